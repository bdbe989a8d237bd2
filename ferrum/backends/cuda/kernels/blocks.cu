// Copies whole blocks of an array, for example blocks of the pool or rows of a table.
//
//     target[to[i]] = source[from[i]]        for i in 0 .. count - 1; `from` null: i itself, and so for `to`
//
// source, target  [.., units] of unit_t      any element type: bytes are copied; of the source there are `blocks`
// from, to        number_t [count], int or long long; those of `to` are distinct, and within the target
//
// A number in `from` that is out of range gives bytes of 0xff, which are NaN: a kernel cannot raise an error, and must
// not read outside of the array.
//
// So the kernel gathers blocks (`to` null), scatters them (`from` null), or copies within an array, where no block may
// be both read and written. Launched: blocks (i, part of UNITS * blockDim.x units). A thread copies UNITS units,
// blockDim.x apart: neighbouring threads access neighbouring bytes, and a thread starts all its loads before the first
// store. unit_t is the largest type that divides a block, usually 16 bytes.

#include "common.cuh"

#define UNITS 4

// bytes of 0xff
__device__ __forceinline__ unit_t nothing() {
    unit_t unit;
    for (int byte = 0; byte < (int)sizeof(unit_t); byte++) reinterpret_cast<unsigned char*>(&unit)[byte] = 0xff;
    return unit;
}

extern "C" __global__ void copy_blocks(const void* source, const number_t* __restrict__ from, void* target,
                                       const number_t* __restrict__ to, long long blocks, long long units) {
    long long i = blockIdx.x, block = from ? from[i] : i;
    bool known = block >= 0 && block < blocks;
    const unit_t* read = static_cast<const unit_t*>(source) + block * units;
    unit_t* write = static_cast<unit_t*>(target) + (to ? to[i] : i) * units;
    long long first = (long long)blockIdx.y * blockDim.x * UNITS + threadIdx.x;
    unit_t held[UNITS];
#pragma unroll
    for (int each = 0; each < UNITS; each++)
        if (first + each * blockDim.x < units) held[each] = known ? read[first + each * blockDim.x] : nothing();
#pragma unroll
    for (int each = 0; each < UNITS; each++)
        if (first + each * blockDim.x < units) write[first + each * blockDim.x] = held[each];
}

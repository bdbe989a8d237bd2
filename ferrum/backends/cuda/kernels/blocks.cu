// Copies of whole blocks of one array.
//
//     target[to[i]] = source[from[i]]        for i in 0 .. count - 1; `from` null: i itself, and so for `to`
//
// source, target  [.., units] of unit_t      any element type: bytes are copied
// from, to        number_t [count], int or long long; ids within the arrays, those of `to` distinct
//
// So the kernel gathers blocks (to null), scatters them (from null), or copies within an array, where no block may be
// both read and written. Launched: blocks (i, stretch of UNITS * blockDim.x units). A thread copies UNITS units,
// blockDim.x apart: neighbouring threads touch neighbouring bytes, and all loads of a thread are on their way before the
// first store. unit_t is as large as the size of a block allows: 16 bytes as a rule.

#include "common.cuh"

#define UNITS 4

extern "C" __global__ void copy_blocks(const void* source, const number_t* __restrict__ from, void* target,
                                       const number_t* __restrict__ to, long long units) {
    long long i = blockIdx.x;
    const unit_t* read = static_cast<const unit_t*>(source) + (from ? from[i] : i) * units;
    unit_t* write = static_cast<unit_t*>(target) + (to ? to[i] : i) * units;
    long long first = (long long)blockIdx.y * blockDim.x * UNITS + threadIdx.x;
    unit_t held[UNITS];
#pragma unroll
    for (int each = 0; each < UNITS; each++)
        if (first + each * blockDim.x < units) held[each] = read[first + each * blockDim.x];
#pragma unroll
    for (int each = 0; each < UNITS; each++)
        if (first + each * blockDim.x < units) write[first + each * blockDim.x] = held[each];
}

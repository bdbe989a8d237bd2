// Types of elements, and sums over a warp and over a block, for all kernels. Rules: no atomics and no fast mathematics,
// so that every run gives the same bits; a block has a multiple of 32 threads; shared memory is declared with SHARED or
// `__shared__`, and is written before it is read.

#ifndef FERRUM_SHIM  // the shim, which runs these files on the CPU, defines its own
#define SHARED(type, name)                                \
    extern __shared__ __align__(16) unsigned char dynamic_[]; \
    type* name = reinterpret_cast<type*>(dynamic_)
#define INFINITY __int_as_float(0x7f800000)
#define NAN __int_as_float(0x7fffffff)
#endif

#define ALL_LANES 0xffffffffu

// ---- elements of 16 bits; arithmetic is in float

struct half_t {
    unsigned short bits;
};

struct bfloat_t {
    unsigned short bits;
};

__device__ __forceinline__ float to_float(float x) { return x; }

__device__ __forceinline__ float to_float(bfloat_t x) { return __uint_as_float((unsigned)x.bits << 16); }

__device__ __forceinline__ float to_float(half_t x) {
#ifdef FERRUM_SHIM
    return shim::half_to_float(x.bits);
#else
    float y;
    asm("cvt.f32.f16 %0, %1;" : "=f"(y) : "h"(x.bits));
    return y;
#endif
}

__device__ __forceinline__ void store(float* place, float x) { *place = x; }

// rounded to nearest even; NaN stays NaN
__device__ __forceinline__ void store(bfloat_t* place, float x) {
    unsigned bits = __float_as_uint(x);
    place->bits = x != x ? (unsigned short)(bits >> 16 | 64u) : (unsigned short)((bits + 0x7fffu + (bits >> 16 & 1u)) >> 16);
}

__device__ __forceinline__ void store(half_t* place, float x) {
#ifdef FERRUM_SHIM
    place->bits = shim::float_to_half(x);
#else
    asm("cvt.rn.f16.f32 %0, %1;" : "=h"(place->bits) : "f"(x));
#endif
}

// ---- sums and largest values, the same in every lane

__device__ __forceinline__ float warp_sum(float x) {
    for (int distance = 16; distance; distance >>= 1) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// NaN if one is NaN
__device__ __forceinline__ float larger(float x, float y) { return x != x ? x : (y != y || y > x) ? y : x; }

__device__ __forceinline__ float warp_max(float x) {
    for (int distance = 16; distance; distance >>= 1) x = larger(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

// the sum over all threads of a block; `parts`: shared memory for 32 numbers, which may be used again at once
__device__ __forceinline__ float block_sum(float x, float* parts) {
    x = warp_sum(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float total = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) total += parts[warp];
    return total;
}

__device__ __forceinline__ float block_max(float x, float* parts) {
    x = warp_max(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    float largest = parts[0];
    for (int warp = 1; warp < (int)blockDim.x / 32; warp++) largest = larger(largest, parts[warp]);
    return largest;
}

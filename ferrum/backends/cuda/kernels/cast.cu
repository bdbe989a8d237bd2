// Converts every element to another float type, rounding to nearest even.
//
//     out = x.astype(to_t)                            float32, float64, float16 and bfloat16 in any pair
//
// Shapes: x [count], out [count], contiguous. A block converts ELEMENTS * blockDim.x neighbours, a thread ELEMENTS of
// them, blockDim.x apart, so that a warp reads and writes neighbours and a thread starts several loads at once.
//
// float64 to float16 must not round twice: 1 + 2**-11 + 2**-40 rounds to 1 + 2**-11 in float32, which lies half way
// between two float16 and would be rounded down, although the number is above the middle. So it is first rounded to
// float32 by rounding to odd: bits that do not fit are cut off, and the last bit is set. Then a number near a middle
// stays on its side of it. float64 to bfloat16 rounds twice, because the definition does: ml_dtypes converts to float32
// first.

#include "common.cuh"

#define ELEMENTS 4

#ifndef from_t
#define from_t float
#define to_t half_t
#endif

__device__ __forceinline__ float to_odd(double x) {
    float y = (float)x;
    if ((double)y == x || x != x) return y;
    unsigned bits = __float_as_uint(y);
    if (fabs((double)y) > fabs(x)) bits--;  // towards zero
    return __uint_as_float(bits | 1u);
}

__device__ __forceinline__ void convert(float x, double* out) { *out = x; }
__device__ __forceinline__ void convert(half_t x, double* out) { *out = to_float(x); }
__device__ __forceinline__ void convert(bfloat_t x, double* out) { *out = to_float(x); }
__device__ __forceinline__ void convert(double x, half_t* out) { store(out, to_odd(x)); }
__device__ __forceinline__ void convert(double x, bfloat_t* out) { store(out, (float)x); }
__device__ __forceinline__ void convert(double x, float* out) { *out = (float)x; }

template <class From, class To>
__device__ __forceinline__ void convert(From x, To* out) {
    store(out, to_float(x));
}

extern "C" __global__ void cast(const from_t* x, to_t* out, long long count) {
    long long first = (long long)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long index = first + each * blockDim.x;
        if (index < count) convert(x[index], &out[index]);
    }
}

// Elementwise operations.
//
//     copy:    out = np.ascontiguousarray(x)          any type of 1, 2, 4 or 8 bytes
//     unary:   out = FUNCTION(x)                      float32; erf_of also float64
//     binary:  out = OPERATION(x, y)                  float32
//
// Shapes: four dimensions n0, n1, n2, n3; missing ones are 1, in front. `x` and `y` may have any strides: element (i0,
// i1, i2, i3) is x[i0 * x0 + i1 * x1 + i2 * x2 + i3 * x3]. A stride of 0 broadcasts an axis. `out` is contiguous.
//
// A block writes ELEMENTS * blockDim.x neighbouring elements of `out`, a thread ELEMENTS of them, blockDim.x apart. So
// the threads of a warp read and write neighbours, and a thread starts several loads at once. Memory limits the speed
// of these kernels. The divisions for the place of an element take no extra time if `index_t` has 32 bits; the launch
// chooses it by the number of elements.

#include "common.cuh"

#define ELEMENTS 4

#ifndef FUNCTION
#define FUNCTION exp_of
#endif
#ifndef OPERATION
#define OPERATION plus
#endif
#ifndef real
#define real float
#endif
#ifndef element_t
#define element_t unsigned
#endif
#ifndef index_t
#define index_t unsigned
#endif

__device__ __forceinline__ float plus(float x, float y) { return x + y; }
__device__ __forceinline__ float minus(float x, float y) { return x - y; }
__device__ __forceinline__ float times(float x, float y) { return x * y; }
__device__ __forceinline__ float divided(float x, float y) { return x / y; }

__device__ __forceinline__ float exp_of(float x) { return expf(x); }
__device__ __forceinline__ float log_of(float x) { return logf(x); }
__device__ __forceinline__ float rsqrt_of(float x) { return 1.0f / sqrtf(x); }
__device__ __forceinline__ float tanh_of(float x) { return tanhf(x); }
__device__ __forceinline__ float erf_of(float x) { return erff(x); }
__device__ __forceinline__ double erf_of(double x) { return erf(x); }
__device__ __forceinline__ float cos_of(float x) { return cosf(x); }
__device__ __forceinline__ float sin_of(float x) { return sinf(x); }

// the place in an operand of element number `index` of the result
__device__ __forceinline__ long long place_of(index_t index, index_t n1, index_t n2, index_t n3, long long s0,
                                              long long s1, long long s2, long long s3) {
    index_t row = index / n3, plane = row / n2, cube = plane / n1;
    return cube * s0 + (plane - cube * n1) * s1 + (row - plane * n2) * s2 + (index - row * n3) * s3;
}

extern "C" __global__ void copy(const void* x, void* out, index_t count, index_t n1, index_t n2, index_t n3,
                                long long x0, long long x1, long long x2, long long x3) {
    const element_t* from = (const element_t*)x;
    element_t* to = (element_t*)out;
    index_t first = (index_t)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        index_t index = first + each * blockDim.x;
        if (index < count) to[index] = from[place_of(index, n1, n2, n3, x0, x1, x2, x3)];
    }
}

extern "C" __global__ void unary(const real* x, real* out, index_t count, index_t n1, index_t n2, index_t n3,
                                 long long x0, long long x1, long long x2, long long x3) {
    index_t first = (index_t)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        index_t index = first + each * blockDim.x;
        if (index < count) out[index] = FUNCTION(x[place_of(index, n1, n2, n3, x0, x1, x2, x3)]);
    }
}

extern "C" __global__ void binary(const float* x, const float* y, float* out, index_t count, index_t n1, index_t n2,
                                  index_t n3, long long x0, long long x1, long long x2, long long x3, long long y0,
                                  long long y1, long long y2, long long y3) {
    index_t first = (index_t)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        index_t index = first + each * blockDim.x;
        if (index < count)
            out[index] = OPERATION(x[place_of(index, n1, n2, n3, x0, x1, x2, x3)],
                                   y[place_of(index, n1, n2, n3, y0, y1, y2, y3)]);
    }
}

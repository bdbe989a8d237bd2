// What a feed-forward part does to every element between its products.
//
//     activate: out = ACTIVATION(x)
//     gate:     out = ACTIVATION(min(gate, limit)) * (clip(up, -limit, limit) + up_offset)
//     softcap:  out = cap * tanh(x / cap)
//
// Shapes: x and out [count]; gate and up [rows, columns] with `gate_stride` and `up_stride` elements from one row to the
// next, because both are often columns of one product; out [rows, columns] without gaps. Without a limit it is infinity.
//
// A block takes ELEMENTS * blockDim.x neighbours (of one row), a thread ELEMENTS of them, blockDim.x apart. Every function
// is finite for every finite x: exp(-x) beyond 89 is infinity, and x / infinity is 0. NaN stays NaN.

#include "common.cuh"

#define ELEMENTS 4

#ifndef ACTIVATION
#define ACTIVATION silu
#endif

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
__device__ __forceinline__ float quick_gelu(float x) { return x * sigmoid(1.702f * x); }
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * (x * (x * x)))));
}
__device__ __forceinline__ float relu(float x) { return larger(x, 0.0f); }

// NaN wins
__device__ __forceinline__ float smaller(float x, float y) { return -larger(-x, -y); }

extern "C" __global__ void activate(const float* x, float* out, long long count) {
    long long first = (long long)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long index = first + each * blockDim.x;
        if (index < count) out[index] = ACTIVATION(x[index]);
    }
}

extern "C" __global__ void gate(const float* gate, const float* up, float* out, int columns, long long gate_stride,
                                long long up_stride, float limit, float up_offset) {
    long long row = blockIdx.x;
    int first = blockIdx.y * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        int column = first + each * blockDim.x;
        if (column < columns) {
            float opened = smaller(gate[row * gate_stride + column], limit);
            float passed = larger(smaller(up[row * up_stride + column], limit), -limit) + up_offset;
            out[row * columns + column] = ACTIVATION(opened) * passed;
        }
    }
}

extern "C" __global__ void softcap(const float* x, float* out, long long count, float cap, float inverse) {
    long long first = (long long)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long index = first + each * blockDim.x;
        if (index < count) out[index] = cap * tanhf(x[index] * inverse);
    }
}

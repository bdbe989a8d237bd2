// The elementwise part of an MLP, and softcap.
//
//     activate: out = ACTIVATION(x)
//     gate:     out = ACTIVATION(min(gate, limit)) * (clip(up, -limit, limit) + up_offset)
//     softcap:  out = cap * tanh(x / cap)
//
// Shapes: x and out [count]; gate and up [rows, columns] with `gate_stride` and `up_stride` elements from one row to
// the next, because both are often columns of one product; out [rows, columns], contiguous. `limit` is infinity for no
// limit.
//
// A block computes ELEMENTS * blockDim.x neighbouring elements (of one row), a thread ELEMENTS of them, blockDim.x
// apart.

#include "activation.cuh"

#define ELEMENTS 4

#ifndef ACTIVATION
#define ACTIVATION silu
#endif

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

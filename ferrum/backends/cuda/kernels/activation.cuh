// Activations, by name and by number, and the gate of an MLP.
//
// Numbers are indices in `ACTIVATIONS` of ferrum/tensor/parts.py. All threads of a launch compute the same activation,
// so a warp never diverges. Every function is finite for finite x: where exp(-x) is infinite, 1 / infinity is 0. NaN
// stays NaN.

#include "common.cuh"

__device__ __forceinline__ float sigmoid(float x) { return 1.0f / (1.0f + expf(-x)); }
__device__ __forceinline__ float silu(float x) { return x * sigmoid(x); }
__device__ __forceinline__ float quick_gelu(float x) { return x * sigmoid(1.702f * x); }
__device__ __forceinline__ float gelu(float x) { return 0.5f * x * (1.0f + erff(x * 0.70710678118654752f)); }
__device__ __forceinline__ float gelu_tanh(float x) {
    return 0.5f * x * (1.0f + tanhf(0.79788456080286536f * (x + 0.044715f * (x * (x * x)))));
}
__device__ __forceinline__ float relu(float x) { return larger(x, 0.0f); }

// NaN if one is NaN
__device__ __forceinline__ float smaller(float x, float y) { return -larger(-x, -y); }

__device__ __forceinline__ float activated(float x, int activation) {
    switch (activation) {
        case 0: return silu(x);
        case 1: return gelu(x);
        case 2: return gelu_tanh(x);
        case 3: return quick_gelu(x);
        default: return relu(x);
    }
}

// `limit` is infinity for no limit
__device__ __forceinline__ float gated(float gate, float up, int activation, float limit, float offset) {
    up = larger(smaller(up, limit), -limit);
    return activated(smaller(gate, limit), activation) * (up + offset);
}

// matmul: products of stacks of matrices, each element computed by itself.
//
//     out[stack] = x[stack] @ y[stack]
//
// x      float [stacks, rows, inner]
// y      float [stacks, inner, columns]
// out    float [stacks, rows, columns]
//
// A thread computes one element of the result and adds up the products in the order of the inner axis. So an element
// depends only on its row and its column, as deterministic mode requires. The kernel is slow.

#include "common.cuh"

extern "C" __global__ void matmul(const float* __restrict__ x, const float* __restrict__ y, float* __restrict__ out,
                                  long long elements, int rows, int inner, int columns) {
    long long element = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (element >= elements) return;
    long long row = element / columns;  // counted through all stacks
    long long stack = row / rows;
    const float* left = x + row * inner;
    const float* right = y + stack * inner * columns + element % columns;
    float total = 0;
    for (int i = 0; i < inner; i++) total = fmaf(left[i], right[(long long)i * columns], total);
    out[element] = total;
}

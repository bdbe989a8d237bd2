// The index of the largest element of every row: the lowest index of equal ones, and of the first NaN if there is one.
//
//     out = np.argmax(x, -1)
//
// Shapes: x [rows, n], parts [rows, chunks], out [rows].
//
// Two kernels, so that one row of 150,000 tokens uses more than one multiprocessor. In `argmax_of_chunks` a block finds
// the largest element of a chunk of a row (ELEMENTS for every thread, blockDim.x apart). In `argmax_of_parts` a warp
// finds the largest of these for a row. Only indices are stored between them; values are read again. Elements are
// compared by their places (order.cuh), so the result does not depend on the order of comparisons.

#include "order.cuh"

#define ELEMENTS 8

extern "C" __global__ void argmax_of_chunks(const float* x, long long* parts, int n) {
    __shared__ place_t shared[32];
    const float* row = x + (long long)blockIdx.x * n;
    long long first = (long long)blockIdx.y * blockDim.x * ELEMENTS + threadIdx.x;
    place_t best = 0;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long id = first + each * blockDim.x;
        place_t place = id < n ? place_of(row[id], (int)id) : 0;
        best = place > best ? place : best;
    }
    best = block_best(best, shared);
    if (threadIdx.x == 0) parts[(long long)blockIdx.x * gridDim.y + blockIdx.y] = id_of(best);
}

extern "C" __global__ void argmax_of_parts(const float* x, const long long* parts, long long* out, int n, int chunks) {
    const float* row = x + (long long)blockIdx.x * n;
    place_t best = 0;
    for (int chunk = threadIdx.x; chunk < chunks; chunk += 32) {
        int id = (int)parts[(long long)blockIdx.x * chunks + chunk];
        place_t place = place_of(row[id], id);
        best = place > best ? place : best;
    }
    best = warp_largest(best);
    if (threadIdx.x == 0) out[blockIdx.x] = id_of(best);
}

// What kernels share that work on rows: the team of threads that has a row, and four neighbours of a row at once.
//
// A long row has a block of its own, a short one a warp (ONE_WARP=1, blocks of blockDim.y warps): a sum over a warp needs
// no barrier. In both, threadIdx.x counts the threads of a team.

#include "common.cuh"

#ifndef ONE_WARP
#define ONE_WARP 0
#endif

// `parts`: shared memory for 32 numbers
__device__ __forceinline__ float team_sum(float x, float* parts) { return ONE_WARP ? warp_sum(x) : block_sum(x, parts); }
__device__ __forceinline__ float team_max(float x, float* parts) { return ONE_WARP ? warp_max(x) : block_max(x, parts); }

// can 16 bytes be read from here at once? A null pointer, from which nothing is read, is no obstacle.
__device__ __forceinline__ bool at_16(const void* place) { return ((unsigned long long)place & 15) == 0; }

// columns `column` to `column` + 3 of a row of n; what lies beyond its end is `beyond`
__device__ __forceinline__ float4 load4(const float* row, int column, int n, bool at_once, float beyond) {
    if (at_once) return *(const float4*)(row + column);
    return make_float4(row[column], column + 1 < n ? row[column + 1] : beyond, column + 2 < n ? row[column + 2] : beyond,
                       column + 3 < n ? row[column + 3] : beyond);
}

__device__ __forceinline__ void store4(float* row, int column, int n, bool at_once, float4 four) {
    if (at_once) {
        *(float4*)(row + column) = four;
        return;
    }
    row[column] = four.x;
    if (column + 1 < n) row[column + 1] = four.y;
    if (column + 2 < n) row[column + 2] = four.z;
    if (column + 3 < n) row[column + 3] = four.w;
}

// Functions of kernels that compute rows: the team of threads of a row, and loads of four neighbouring columns.
//
// A block computes a long row, a warp a short one (ONE_WARP=1, blocks of blockDim.y warps): a sum over a warp needs no
// barrier. In both cases threadIdx.x is the number of a thread in its team.

#include "common.cuh"

#ifndef ONE_WARP
#define ONE_WARP 0
#endif

// `parts`: shared memory for 32 numbers
__device__ __forceinline__ float team_sum(float x, float* parts) { return ONE_WARP ? warp_sum(x) : block_sum(x, parts); }
__device__ __forceinline__ float team_max(float x, float* parts) { return ONE_WARP ? warp_max(x) : block_max(x, parts); }

// true if 16 bytes can be loaded at once from this address, or if it is null
__device__ __forceinline__ bool at_16(const void* place) { return ((unsigned long long)place & 15) == 0; }

// columns `column` to `column` + 3 of a row of n; `beyond` for columns after its end
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

// Softmax along the last axis, and its logarithm.
//
//     shifted = x - x.max(-1)
//     softmax:     out = np.exp(shifted) / np.exp(shifted).sum(-1)
//     log_softmax: out = shifted - np.log(np.exp(shifted).sum(-1))
//
// Shapes: x and out [rows, n]. A row of only -inf gives NaN, like 0 / 0; other -inf have probability 0.
//
// A row is computed by a team of threads: a block, or a warp for short rows. A thread loads four columns at a time. The
// row is read three times, for the largest element, the sum and the result, of which two come from a cache. The order
// of additions depends on n alone.

#include "rows.cuh"

// the largest x of a row, and the sum of exp(x - largest), computed by its team
__device__ __forceinline__ float2 largest_and_sum(const float* row, int n, bool at_once, float* parts) {
    float largest = -INFINITY, sum = 0;
    for (int column = 4 * threadIdx.x; column < n; column += 4 * blockDim.x) {
        float4 v = load4(row, column, n, at_once, -INFINITY);
        largest = larger(largest, larger(larger(v.x, v.y), larger(v.z, v.w)));
    }
    largest = team_max(largest, parts);
    for (int column = 4 * threadIdx.x; column < n; column += 4 * blockDim.x) {
        float4 v = load4(row, column, n, at_once, -INFINITY);
        sum += (expf(v.x - largest) + expf(v.y - largest)) + (expf(v.z - largest) + expf(v.w - largest));
    }
    return make_float2(largest, team_sum(sum, parts));
}

extern "C" __global__ void softmax(const float* x, float* out, long long rows, int n) {
    __shared__ float parts[32];
    long long number = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (number >= rows) return;  // only for a row of one warp, so no barrier waits for it
    const float* row = x + number * n;
    float* result = out + number * n;
    bool at_once = n % 4 == 0 && at_16(row) && at_16(result);
    float2 known = largest_and_sum(row, n, at_once, parts);
    for (int column = 4 * threadIdx.x; column < n; column += 4 * blockDim.x) {
        float4 v = load4(row, column, n, at_once, 0);
        store4(result, column, n, at_once,
               make_float4(expf(v.x - known.x) / known.y, expf(v.y - known.x) / known.y, expf(v.z - known.x) / known.y,
                           expf(v.w - known.x) / known.y));
    }
}

extern "C" __global__ void log_softmax(const float* x, float* out, long long rows, int n) {
    __shared__ float parts[32];
    long long number = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (number >= rows) return;
    const float* row = x + number * n;
    float* result = out + number * n;
    bool at_once = n % 4 == 0 && at_16(row) && at_16(result);
    float2 known = largest_and_sum(row, n, at_once, parts);
    float off = logf(known.y);
    for (int column = 4 * threadIdx.x; column < n; column += 4 * blockDim.x) {
        float4 v = load4(row, column, n, at_once, 0);
        store4(result, column, n, at_once,
               make_float4(v.x - known.x - off, v.y - known.x - off, v.z - known.x - off, v.w - known.x - off));
    }
}

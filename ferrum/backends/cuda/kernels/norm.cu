// Norms of rows, and additions to a residual.
//
//     away = x - x.mean(-1) if centred else x
//     y = away / np.sqrt((away * away).mean(-1) + epsilon) * weight + bias        bias may be null
//     norm_rows:  out = y, or residual + scale * y if residual is not null
//     add_scaled: out = residual + scale * x
//
// Shapes: x [tokens, heads, n], contiguous for each token, `stride` elements from one token to the next; residual and
// out [tokens, heads, n], contiguous; weight and bias [n] or, if `own` is set, [heads, n].
//
// A row is computed by a team of threads: a block, or a warp for short rows (heads of attention). A thread loads four
// columns at a time, 16 bytes if the addresses allow it; a row of 4096 is one load for each thread of a block of 1024,
// so its time is that of one load and two sums. The row is not kept but read again from the L1 cache, so a row may have
// any length. The order of additions depends on n alone.

#include "rows.cuh"

#define ELEMENTS 4

__device__ __forceinline__ float square_sum(float4 v, float mean) {
    float a = v.x - mean, b = v.y - mean, c = v.z - mean, d = v.w - mean;
    return (a * a + b * b) + (c * c + d * d);
}

extern "C" __global__ void norm_rows(const float* x, const float* weight, const float* bias, const float* residual,
                                float* out, long long rows, int heads, int n, long long stride, int own, int centred,
                                float epsilon, float scale) {
    __shared__ float parts[32];
    long long number = (long long)blockIdx.x * blockDim.y + threadIdx.y;
    if (number >= rows) return;  // only for a row of one warp, so no barrier waits for it
    int head = (int)(number % heads), step = 4 * blockDim.x;
    const float* row = x + number / heads * stride + (long long)head * n;
    const float* weights = own ? weight + (long long)head * n : weight;
    const float* biases = bias && own ? bias + (long long)head * n : bias;
    const float* residuals = residual ? residual + number * n : residual;
    float* result = out + number * n;
    bool at_once = n % 4 == 0 && at_16(row) && at_16(weights) && at_16(biases) && at_16(residuals) && at_16(result);

    float mean = 0, sum = 0;
    if (centred) {
        for (int column = 4 * threadIdx.x; column < n; column += step) {
            float4 v = load4(row, column, n, at_once, 0);
            sum += (v.x + v.y) + (v.z + v.w);
        }
        mean = team_sum(sum, parts) / n;
    }
    float squares = 0;
    for (int column = 4 * threadIdx.x; column < n; column += step)
        squares += square_sum(load4(row, column, n, at_once, mean), mean);  // columns after the end add 0
    float factor = 1.0f / sqrtf(team_sum(squares, parts) / n + epsilon);

    for (int column = 4 * threadIdx.x; column < n; column += step) {
        float4 v = load4(row, column, n, at_once, 0), w = load4(weights, column, n, at_once, 0);
        float4 y = make_float4((v.x - mean) * factor * w.x, (v.y - mean) * factor * w.y, (v.z - mean) * factor * w.z,
                               (v.w - mean) * factor * w.w);
        if (biases) {
            float4 b = load4(biases, column, n, at_once, 0);
            y = make_float4(y.x + b.x, y.y + b.y, y.z + b.z, y.w + b.w);
        }
        if (residuals) {
            float4 r = load4(residuals, column, n, at_once, 0);
            y = make_float4(r.x + scale * y.x, r.y + scale * y.y, r.z + scale * y.z, r.w + scale * y.w);
        }
        store4(result, column, n, at_once, y);
    }
}

extern "C" __global__ void add_scaled(const float* x, const float* residual, float* out, long long count, float scale) {
    long long first = (long long)blockIdx.x * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long index = first + each * blockDim.x;
        if (index < count) out[index] = residual[index] + scale * x[index];
    }
}

// Products of weights with a few tokens, which take most of the time of decode steps.
//
//     linear_few:  out = scale * (x @ weights.T + bias) + residual
//     gated_few:   out = activation(gate) * (up + offset), where gate = min(x @ gates.T + gate_bias, limit) and
//                  up = max(min(x @ ups.T + up_bias, limit), -limit)
//
// Shapes: x [tokens, columns], residual and out [tokens, rows], weights [rows, columns] in a FORMAT of formats.cuh,
// bias [rows]. linear_few takes up to three matrices of one format, whose results lie side by side: rows = rows0 +
// rows1 + rows2. A bias or a residual may be null.
//
// A warp computes ROWS rows for TOKENS tokens; the warps of a block are independent. Blocks with the same rows and
// other tokens are neighbours in the grid, so they find the weights in the second-level cache. If fewer tokens or rows
// are left at the end, the last one is computed again and not written.
//
// With one token, the bandwidth of memory limits the speed. Arithmetic grows with the tokens: counted in instructions,
// it is the limit for formats of four bits from about two tokens on, and for bfloat16 not even at eight.

#include "products.cuh"
#include "activation.cuh"

#ifndef FORMAT
#define FORMAT q4_k
#endif
#ifndef TOKENS
#define TOKENS 1
#endif
#ifndef ROWS
#define ROWS 4
#endif

// the addresses of the TOKENS rows of x
__device__ __forceinline__ void find_tokens(const float* x, int first, int tokens, int columns,
                                            const float* (&places)[TOKENS]) {
#pragma unroll
    for (int token = 0; token < TOKENS; token++)
        places[token] = x + (long long)min(first + token, tokens - 1) * columns;
}

extern "C" __global__ void linear_few(
    const float* x, const void* weights0, const void* weights1, const void* weights2, const float* bias0,
    const float* bias1, const float* bias2, int rows0, int rows1, int rows2, const float* residual, float scale,
    int tokens, int columns, float* out) {
    const int lane = threadIdx.x % 32, crowds = (tokens + TOKENS - 1) / TOKENS;
    const int first_token = blockIdx.x % crowds * TOKENS;
    int group = blockIdx.x / crowds * (blockDim.x / 32) + threadIdx.x / 32;
    const int groups0 = (rows0 + ROWS - 1) / ROWS, groups1 = (rows1 + ROWS - 1) / ROWS;

    const unsigned char* weights = (const unsigned char*)weights0;
    const float* bias = bias0;
    int rows = rows0, before = 0;
    if (group >= groups0 + groups1) {
        group -= groups0 + groups1;
        weights = (const unsigned char*)weights2, bias = bias2, rows = rows2, before = rows0 + rows1;
    } else if (group >= groups0) {
        group -= groups0;
        weights = (const unsigned char*)weights1, bias = bias1, rows = rows1, before = rows0;
    }
    if (group * ROWS >= rows) return;

    const unsigned char* places[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; row++)
        places[row] = row_of<FORMAT>(weights, min(group * ROWS + row, rows - 1), columns);
    const float* xs[TOKENS];
    find_tokens(x, first_token, tokens, columns, xs);
    float y = products<FORMAT>(places, xs, columns);

    int row = group * ROWS + lane % ROWS, token = first_token + lane / ROWS;
    if (lane >= ROWS * TOKENS || row >= rows || token >= tokens) return;
    if (bias) y += bias[row];
    y *= scale;
    long long place = (long long)token * (rows0 + rows1 + rows2) + before + row;
    if (residual) y += residual[place];
    out[place] = y;
}

extern "C" __global__ void gated_few(
    const float* x, const void* gates, const void* ups, const float* gate_bias, const float* up_bias, int rows,
    int activation, float limit, float offset, int tokens, int columns, float* out) {
    const int lane = threadIdx.x % 32, crowds = (tokens + TOKENS - 1) / TOKENS, half = ROWS / 2;
    const int first_token = blockIdx.x % crowds * TOKENS;
    const int first_row = (blockIdx.x / crowds * (blockDim.x / 32) + threadIdx.x / 32) * half;
    if (first_row >= rows) return;

    const unsigned char* places[ROWS];  // of gates, then of ups
#pragma unroll
    for (int row = 0; row < half; row++) {
        int number = min(first_row + row, rows - 1);
        places[row] = row_of<FORMAT>((const unsigned char*)gates, number, columns);
        places[half + row] = row_of<FORMAT>((const unsigned char*)ups, number, columns);
    }
    const float* xs[TOKENS];
    find_tokens(x, first_token, tokens, columns, xs);
    float gate = products<FORMAT>(places, xs, columns);
    float up = __shfl_down_sync(ALL_LANES, gate, half);

    int row = first_row + lane % ROWS, token = first_token + lane / ROWS;
    if (lane >= ROWS * TOKENS || lane % ROWS >= half || row >= rows || token >= tokens) return;
    if (gate_bias) gate += gate_bias[row];
    if (up_bias) up += up_bias[row];
    out[(long long)token * rows + row] = gated(gate, up, activation, limit, offset);
}

// The chosen experts of each token; an expert is a gated MLP.
//
//     expert_inner:  out[token, choice] = activation(gate) * (up + offset) of x[token], by expert numbers[token, choice]
//     expert_outer:  out[token] = sum over choices of weights[token, choice] * (downs[numbers[token, choice]] @
//                    inner[token, choice] + down_bias), in the order of the choices, plus always[token]
//
// Shapes: x, always and out of expert_outer [tokens, hidden], numbers and weights [tokens, chosen], inner [tokens,
// chosen, middle]. Gates and ups [middle, hidden] are in one FORMAT of formats.cuh, downs [hidden, middle] may be in
// another one. `table` [experts, 6] holds the addresses of the gate, up and down of each expert, and of their biases
// (0: none), because the matrices of experts are separate arrays, and only the device knows which experts a step uses.
// `hidden` and `middle` are multiples of ROWS.
//
// expert_inner: a warp computes HALF rows of gate and the same of up for one token and choice. Blocks with the same
// rows and other choices are neighbours in the grid, so that blocks of one expert find its weights in the second-level
// cache.
// expert_outer: a block computes ROWS rows for one token, with one warp for each choice, and adds them in shared
// memory.

#include "products.cuh"
#include "activation.cuh"

#ifndef FORMAT
#define FORMAT q4_k
#endif
#ifndef ROWS
#define ROWS 4
#endif
#define HALF (ROWS / 2)

#define GATE 0
#define UP 1
#define DOWN 2
#define BIAS 3  // index of the bias of the gate; those of up and down follow
#define FACTS 6

extern "C" __global__ void expert_inner(const float* x, const unsigned long long* table, const int* numbers, int pairs,
                                        int chosen, int hidden, int middle, int activation, float limit, float offset,
                                        float* out) {
    const int lane = threadIdx.x % 32, pair = blockIdx.x % pairs;
    const int first_row = (blockIdx.x / pairs * (blockDim.x / 32) + threadIdx.x / 32) * HALF;
    if (first_row >= middle) return;
    const unsigned long long* own = table + (long long)numbers[pair] * FACTS;

    const unsigned char* places[ROWS];  // of the gate, then of up
#pragma unroll
    for (int row = 0; row < HALF; row++) {
        places[row] = row_of<FORMAT>((const unsigned char*)own[GATE], first_row + row, hidden);
        places[HALF + row] = row_of<FORMAT>((const unsigned char*)own[UP], first_row + row, hidden);
    }
    const float* const token[1] = {x + (long long)(pair / chosen) * hidden};
    float gate = products<FORMAT>(places, token, hidden);
    float up = __shfl_down_sync(ALL_LANES, gate, HALF);

    int row = first_row + lane;
    if (lane >= HALF) return;
    if (own[BIAS + GATE]) gate += ((const float*)own[BIAS + GATE])[row];
    if (own[BIAS + UP]) up += ((const float*)own[BIAS + UP])[row];
    out[(long long)pair * middle + row] = gated(gate, up, activation, limit, offset);
}

extern "C" __global__ void __launch_bounds__(512) expert_outer(
    const float* inner, const unsigned long long* table, const int* numbers, const float* weights, const float* always,
    int chosen, int hidden, int middle, float* out) {
    __shared__ float said[16][ROWS];  // [choice, row]
    const int lane = threadIdx.x % 32, choice = threadIdx.x / 32, groups = hidden / ROWS;
    const long long token = blockIdx.x / groups, pair = token * chosen + choice;
    const int first_row = blockIdx.x % groups * ROWS;
    const unsigned long long* own = table + (long long)numbers[pair] * FACTS;

    const unsigned char* places[ROWS];
#pragma unroll
    for (int row = 0; row < ROWS; row++)
        places[row] = row_of<FORMAT>((const unsigned char*)own[DOWN], first_row + row, middle);
    const float* const activations[1] = {inner + pair * middle};
    float result = products<FORMAT>(places, activations, middle);

    const float* bias = (const float*)own[BIAS + DOWN];
    int row = first_row + lane;
    if (lane < ROWS) said[choice][lane] = weights[pair] * (bias ? result + bias[row] : result);
    __syncthreads();
    if (choice > 0 || lane >= ROWS) return;
    float total = 0;
    for (int each = 0; each < chosen; each++) total += said[each][lane];
    if (always) total += always[token * hidden + row];
    out[token * hidden + row] = total;
}

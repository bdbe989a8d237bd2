// Attention of single tokens, second part: combines the results of attend_few.cu for the splits of a context.
//
//     most = max(largest[token, head])                                    here and below: of the splits that the token sees
//     factor = exp(largest[token, head] - most)
//     out[token, head] = factor @ mixed[token, head] / (factor @ total[token, head] + exp(sinks[head] - most))
//
// mixed           float [launched tokens, heads, splits, head_dim]      head_dim at most 256
// largest, total  float [launched tokens, heads, splits]
// sinks           float [heads], or null: without the term exp(sinks[head] - most)
// out             float [tokens, heads, head_dim]                       0 for a token that sees nothing
//
// Launched: blocks (token, head), a thread for each dimension, shared memory for one float for each split. A thread
// computes the factors of some splits, and then adds up its dimension over all splits, in order.

#include "attention.cuh"

extern "C" __global__ void attend_combine(const float* __restrict__ mixed, const float* __restrict__ largest,
                                          const float* __restrict__ total, const float* __restrict__ sinks,
                                          const int* __restrict__ seq_starts, const int* __restrict__ context_lens,
                                          float* __restrict__ out, int first_token, int sequences, int splits,
                                          int head_dim, int window) {
    SHARED(float, factors);
    __shared__ float parts[32];
    int thread = threadIdx.x, head = blockIdx.y, token = first_token + blockIdx.x;
    Seen seen = seen_by(token, seq_starts, context_lens, sequences, window);
    int first = seen.first / SPLIT, count = (seen.end + SPLIT - 1) / SPLIT - first;
    long long row = ((long long)blockIdx.x * gridDim.y + head) * splits + first;

    float most = -INFINITY;
    for (int s = thread; s < count; s += blockDim.x) most = larger(most, largest[row + s]);
    most = block_max(most, parts);
    float weight = 0;
    for (int s = thread; s < count; s += blockDim.x) {
        factors[s] = weight_of(largest[row + s], most);
        weight += factors[s] * total[row + s];
    }
    weight = block_sum(weight, parts);  // its barriers also make the factors visible
    if (sinks) weight += weight_of(sinks[head], most);  // if this is infinite, the result is 0

    if (thread >= head_dim) return;
    float sum = 0;
#pragma unroll 8
    for (int s = 0; s < count; s++) sum = fmaf(factors[s], mixed[(row + s) * head_dim + thread], sum);
    out[((long long)token * gridDim.y + head) * head_dim + thread] = seen.end ? sum / weight : 0.0f;
}

// Attention of each token by itself, second part: what attend_few.cu found in the splits of the context, put together.
//
//     most = max(largest[token, head])                                    here and below of the splits that are seen
//     factor = exp(largest[token, head] - most)
//     out[token, head] = factor @ mixed[token, head] / (factor @ total[token, head] + exp(sinks[head] - most))
//
// mixed           float [launched tokens, heads, splits, head_dim]      head_dim at most 256
// largest, total  float [launched tokens, heads, splits]
// sinks           float [heads], or null: no such term
// out             float [tokens, heads, head_dim]                       0 for a token that sees nothing
//
// Launched: blocks (token, head), a thread for each dimension, and shared memory for as many floats as there are splits.
// A thread first works out factors of some splits, and then adds up its dimension over all of them, in their order.

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
    weight = block_sum(weight, parts);  // its barriers are those that the factors need
    if (sinks) weight += weight_of(sinks[head], most);  // where this is infinite, the sink takes all: 0

    if (thread >= head_dim) return;
    float sum = 0;
#pragma unroll 8
    for (int s = 0; s < count; s++) sum = fmaf(factors[s], mixed[(row + s) * head_dim + thread], sum);
    out[((long long)token * gridDim.y + head) * head_dim + thread] = seen.end ? sum / weight : 0.0f;
}

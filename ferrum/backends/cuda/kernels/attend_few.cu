// Attention of single tokens, first part: over one split of a context. attend_combine.cu is the second part.
//
//     split s of a sequence: its positions SPLIT * s .. SPLIT * (s + 1) - 1, of which the token sees some
//     score[j] = softcapped(scale * query[token, head] @ key[j])              for every seen position j
//     largest[token, head, s] = max(score)
//     weight = exp(score - largest);  total[token, head, s] = sum(weight);  mixed[token, head, s] = weight @ values
//
// query         float [tokens, heads, head_dim]      head_dim at most 256; heads g * kv .. g * (kv + 1) - 1 share key
//                                                    head kv, with g = `group`
// keys, values  the pool, see attention.cuh
// block_tables  int [sequences, columns], seq_starts int [sequences + 1], context_lens int [sequences]
// mixed         float [launched tokens, heads, splits, head_dim]
// largest, total  float [launched tokens, heads, splits]
//
// Nothing is written for a split of which a token sees no position; attend_combine skips the same splits.
//
// One token reads its whole context, and a GPU is only busy if many blocks read at the same time, so the context is cut
// into splits. They start at multiples of SPLIT, so the bits of a result depend neither on the other sequences of the
// batch nor on the width of the tables. Launched: blocks (token, kv head and part of its group, split) of SPLIT
// threads.
//
// A block computes HEADS query heads and reads keys and values once for all of them.
//   1. Scores. A warp computes every WARPS-th dimension, and a lane EACH positions of it. With WIDE (block_size and
//      head_dim are multiples of EACH) these are neighbours, which one load of 16 bytes reads. Each warp has a part of a
//      sum over dimensions; the parts are added in shared memory.
//   2. Weights. A warp computes a head.
//   3. Values. A thread computes EACH dimensions of every `count`-th position, again with loads of 16 bytes. The sums over
//      positions are added in shared memory.

#include "attention.cuh"

#define WARPS (SPLIT / 32)  // a block has a thread for every position of its split
#define TWO_BLOCKS SPLIT, 2  // on a multiprocessor at a time: at most 128 registers for a thread

#if WIDE
#define POSITION(lane, i) ((lane) * EACH + (i))
#define AHEAD (HEADS * sizeof(kv_t) > 8 ? 4 : 8)  // loads that a thread starts before it waits; limited by registers
#else
#define POSITION(lane, i) ((i) * 32 + (lane))
#define AHEAD 1  // each of them is EACH loads
#endif

// adds products of the queries and the keys of the positions of a lane, over the dimensions of a warp
__device__ __forceinline__ void add_scores(float sums[HEADS][EACH], const float* queries, const kv_t* __restrict__ keys,
                                           const int* table, int start, Seen seen, int kv_head, int kv_heads,
                                           int head_dim, int block_size) {
    int warp = threadIdx.x / 32, lane = threadIdx.x % 32;
#if WIDE  // all EACH positions lie in one block, and the token sees at least one of them
    int position = start + POSITION(lane, 0);
    if (position + EACH <= seen.first || position >= seen.end) return;
    const kv_t* places = keys + key_of(position, table, kv_head, kv_heads, head_dim, block_size);
#else
    const kv_t* places[EACH];
#pragma unroll
    for (int i = 0; i < EACH; i++) {
        int position = start + POSITION(lane, i);
        bool is_seen = position >= seen.first && position < seen.end;
        places[i] = is_seen ? keys + key_of(position, table, kv_head, kv_heads, head_dim, block_size) : 0;
    }
#endif
#pragma unroll AHEAD
    for (int d = warp; d < head_dim; d += WARPS) {
        float key[EACH];
#if WIDE
        load_each(places + d * block_size, key);
#else
#pragma unroll
        for (int i = 0; i < EACH; i++) key[i] = places[i] ? to_float(places[i][d * block_size]) : 0.0f;
#endif
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float query = queries[h * head_dim + d];
#pragma unroll
            for (int i = 0; i < EACH; i++) sums[h][i] = fmaf(query, key[i], sums[h][i]);
        }
    }
}

// adds the weighted values of every `count`-th of the positions start + from .. start + to - 1
__device__ __forceinline__ void add_values(float sums[HEADS][EACH], const float* weights, const long long* rows,
                                           const kv_t* __restrict__ values, int from, int to, int count, int octet,
                                           int octets, int head_dim) {
#pragma unroll AHEAD
    for (int j = from; j < to; j += count) {
        const kv_t* place = values + rows[j] * head_dim;
        float value[EACH];
#if WIDE
        load_each(place + octet * EACH, value);
#else
#pragma unroll
        for (int i = 0; i < EACH; i++) {
            int d = octet + i * octets;
            value[i] = d < head_dim ? to_float(place[d]) : 0.0f;
        }
#endif
#pragma unroll
        for (int h = 0; h < HEADS; h++) {
            float weight = weights[h * SPLIT + j];
#pragma unroll
            for (int i = 0; i < EACH; i++) sums[h][i] = fmaf(weight, value[i], sums[h][i]);
        }
    }
}

// Element threadIdx.x of the sum of `count` vectors of `stride` numbers each. A thread passes EACH numbers of one of
// them, at `place` and `step` apart; none if `place` is negative. `parts`: shared memory for EACH numbers of every
// thread.
__device__ __forceinline__ float summed(float4* parts, const float* own, int place, int step, int count, int stride) {
    float* numbers = reinterpret_cast<float*>(parts);
    __syncthreads();
    if (place >= 0) {
#if WIDE  // step is 1
        parts[place / 4] = make_float4(own[0], own[1], own[2], own[3]);
        parts[place / 4 + 1] = make_float4(own[4], own[5], own[6], own[7]);
#else
#pragma unroll
        for (int i = 0; i < EACH; i++) numbers[place + i * step] = own[i];
#endif
    }
    __syncthreads();
    float total = 0;
    if (threadIdx.x < stride)
        for (int part = 0; part < count; part++) total += numbers[part * stride + threadIdx.x];
    return total;
}

extern "C" __global__ void __launch_bounds__(TWO_BLOCKS) attend_few(
    const float* __restrict__ query, const kv_t* __restrict__ keys, const kv_t* __restrict__ values,
    const int* __restrict__ block_tables, const int* __restrict__ seq_starts, const int* __restrict__ context_lens,
    float* __restrict__ mixed, float* __restrict__ largest, float* __restrict__ total, int first_token, int sequences,
    int columns, int kv_heads, int group, int head_dim, int block_size, int window, float scale, float softcap) {
    __shared__ float4 parts[SPLIT * EACH / 4];
    __shared__ float queries[HEADS * 256], weights[HEADS * SPLIT];
    __shared__ long long rows[SPLIT];

    int thread = threadIdx.x, warp = thread / 32, lane = thread % 32;
    int token = first_token + blockIdx.x, split = blockIdx.z, start = split * SPLIT;
    Seen seen = seen_by(token, seq_starts, context_lens, sequences, window);
    if (start >= seen.end || start + SPLIT <= seen.first) return;

    int chunks = (group + HEADS - 1) / HEADS;
    int kv_head = blockIdx.y / chunks, in_group = blockIdx.y % chunks * HEADS;
    int heads = kv_heads * group, head = kv_head * group + in_group, present = min(HEADS, group - in_group);
    const int* table = block_tables + (long long)seen.sequence * columns;
    const float* own = query + ((long long)token * heads + head) * head_dim;
    for (int i = thread; i < HEADS * head_dim; i += SPLIT) queries[i] = i < present * head_dim ? own[i] : 0.0f;
    bool is_seen = start + thread >= seen.first && start + thread < seen.end;
    if (is_seen) rows[thread] = row_of(start + thread, table, kv_head, kv_heads, block_size);
    __syncthreads();

    float sums[HEADS][EACH] = {};
    add_scores(sums, queries, keys, table, start, seen, kv_head, kv_heads, head_dim, block_size);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int place = warp * SPLIT + POSITION(lane, 0);
        float product = summed(parts, sums[h], place, POSITION(0, 1), WARPS, SPLIT);
        weights[h * SPLIT + thread] = is_seen ? score_of(product, scale, softcap) : -INFINITY;
    }
    __syncthreads();

    long long gridded = ((long long)blockIdx.x * heads + head) * gridDim.z + split;  // of the first head
    if (warp < present) {
        float most = -INFINITY, sum = 0;
        float* scores = weights + warp * SPLIT;
        for (int j = lane; j < SPLIT; j += 32) most = larger(most, scores[j]);
        most = warp_max(most);
        for (int j = lane; j < SPLIT; j += 32) sum += scores[j] = weight_of(scores[j], most);
        sum = warp_sum(sum);
        if (lane == 0) largest[gridded + warp * gridDim.z] = most, total[gridded + warp * gridDim.z] = sum;
    }
    __syncthreads();

    int octets = (head_dim + EACH - 1) / EACH, count = SPLIT / octets, part = thread / octets, octet = thread % octets;
#pragma unroll
    for (int h = 0; h < HEADS; h++)
#pragma unroll
        for (int i = 0; i < EACH; i++) sums[h][i] = 0;
    int from = max(0, seen.first - start), to = min(SPLIT, seen.end - start);
    if (part < count) add_values(sums, weights, rows, values, from + part, to, count, octet, octets, head_dim);
#pragma unroll
    for (int h = 0; h < HEADS; h++) {
        int place = part < count ? part * octets * EACH + octet * (WIDE ? EACH : 1) : -1;
        float sum = summed(parts, sums[h], place, octets, count, octets * EACH);
        if (h < present && thread < head_dim) mixed[(gridded + h * gridDim.z) * head_dim + thread] = sum;
    }
}

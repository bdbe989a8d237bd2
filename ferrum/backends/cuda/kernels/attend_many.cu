// Attention of many tokens of a sequence together, as in a prefill.
//
//     score[row, j] = softcapped(scale * query[row] @ key[j])             for every position j that the row sees
//     weight = exp(score - max(score))
//     out[row] = weight @ values / (weight.sum() + exp(sink - max(score)))
//
// query, out    float [tokens, heads, head_dim]     head_dim at most 64 * COLUMNS; `group` neighbouring heads share
//                                                   a key head
// keys, values  the pool, see attention.cuh
// sinks         float [heads], or null: without the term of the sink
// block_tables  int [sequences, columns], seq_starts int [sequences + 1], context_lens int [sequences]
//
// A row is one query head of one token: row r of a sequence and key head is head r % group of its token r / group. So
// the heads that share keys and values read them together.
//
// Launched: blocks (tile of ROWS rows, kv head, sequence). ROWS is 64, or 32 for large heads, which need more
// registers. A tile that a sequence does not have ends at once. A block processes the positions that its rows see in
// tiles of PLACES. For every row it keeps the largest score so far, and the sums of weights and of weighted values
// relative to it (online softmax, arXiv 1805.02867); a new largest score scales the sums down.
//
// Both products of a tile, queries times keys and weights times values, are computed like matrix products: strips of
// both operands are copied to shared memory as float, and a thread keeps a part of the result in registers, so that one
// read of shared memory is used in many multiplications. Threads form a grid of DOWN x ACROSS: thread (down, across)
// computes the rows down + DOWN * i, the positions 4 * across .. + 3 of a tile, and the dimensions 64 * c + 4 * across
// .. + 3. So a row belongs to 16 lanes of one warp, and shuffles compute its maximum and sum.

#include "attention.cuh"

#define PLACES 64
#define ACROSS 16
#define DOWN 16
#define THREADS (DOWN * ACROSS)
#define TWO_BLOCKS THREADS, 2    // on a multiprocessor at a time: at most 128 registers for a thread
#define OWN (ROWS / DOWN)        // rows of a thread
#define STRIP 32                 // dimensions of queries and keys that are in shared memory at a time
#define DEPTH 16                 // positions of values that are in shared memory at a time
#define WIDTH (64 * COLUMNS)     // dimensions, padded
#define QUERY_STEP (STRIP + 4)   // from row to row; 4 more, so that rows begin in different banks
#define WEIGHT_STEP (PLACES + 4)
#define BOTH_STRIPS (ROWS * QUERY_STEP + STRIP * PLACES)  // floats of queries and of keys
#define VALUE_STRIP (DEPTH * WIDTH)                       // which uses the same memory later
#define TOGETHER (WIDE ? EACH : 1)  // positions whose keys one load reads: they lie in one block

// sums[i] += left[down + DOWN * i, :length] @ right[:, columns of the thread], for 4 * GROUPS columns: fours, 64 apart
template <int GROUPS>
__device__ __forceinline__ void add_product(float sums[OWN][4 * GROUPS], const float* left, int left_step,
                                            const float* right, int length) {
    int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
#pragma unroll 1
    for (int k = 0; k < length; k += 4) {
        float factors[OWN][4];
#pragma unroll
        for (int i = 0; i < OWN; i++) {
            float4 four = *reinterpret_cast<const float4*>(left + (down + DOWN * i) * left_step + k);
            factors[i][0] = four.x, factors[i][1] = four.y, factors[i][2] = four.z, factors[i][3] = four.w;
        }
#pragma unroll
        for (int j = 0; j < 4; j++) {
#pragma unroll
            for (int c = 0; c < GROUPS; c++) {
                const float* place = right + (k + j) * 64 * GROUPS + 64 * c + 4 * across;
                float4 four = *reinterpret_cast<const float4*>(place);
#pragma unroll
                for (int i = 0; i < OWN; i++) {
                    float* sum = sums[i] + 4 * c;
                    sum[0] = fmaf(factors[i][j], four.x, sum[0]), sum[1] = fmaf(factors[i][j], four.y, sum[1]);
                    sum[2] = fmaf(factors[i][j], four.z, sum[2]), sum[3] = fmaf(factors[i][j], four.w, sum[3]);
                }
            }
        }
    }
}

// dimensions first .. first + STRIP - 1 of all rows -> [ROWS, QUERY_STEP]
__device__ __forceinline__ void load_queries(float* strip, const float* __restrict__ query, const int* query_rows,
                                             int first, int head_dim) {
#pragma unroll 4
    for (int e = threadIdx.x; e < ROWS * STRIP; e += THREADS) {
        int row = e / STRIP, d = e % STRIP;
        bool has = query_rows[row] >= 0 && first + d < head_dim;
        strip[row * QUERY_STEP + d] = has ? query[(long long)query_rows[row] * head_dim + first + d] : 0.0f;
    }
}

// the same dimensions of all positions -> [STRIP, PLACES]
__device__ __forceinline__ void load_keys(float* strip, const kv_t* __restrict__ keys, const long long* key_places,
                                          int first, int head_dim, int block_size) {
#pragma unroll 2
    for (int e = threadIdx.x * TOGETHER; e < STRIP * PLACES; e += THREADS * TOGETHER) {
        int d = first + e / PLACES;
        long long place = key_places[e % PLACES];
        float key[TOGETHER] = {};
        if (place >= 0 && d < head_dim) {
            place += (long long)d * block_size;
#if WIDE
            load_each(keys + place, key);
#else
            key[0] = to_float(keys[place]);
#endif
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) strip[e + i] = key[i];
    }
}

// all dimensions of positions first .. first + DEPTH - 1 -> [DEPTH, WIDTH]
__device__ __forceinline__ void load_values(float* strip, const kv_t* __restrict__ values, const long long* value_places,
                                            int first, int head_dim) {
#pragma unroll 2
    for (int e = threadIdx.x * TOGETHER; e < DEPTH * WIDTH; e += THREADS * TOGETHER) {
        int d = e % WIDTH;
        long long place = value_places[first + e / WIDTH];
        float value[TOGETHER] = {};
        if (place >= 0 && d < head_dim) {
#if WIDE
            load_each(values + place + d, value);
#else
            value[0] = to_float(values[place + d]);
#endif
        }
#pragma unroll
        for (int i = 0; i < TOGETHER; i++) strip[e + i] = value[i];
    }
}

// of 16 neighbouring lanes, the same in each
__device__ __forceinline__ float row_max(float x) {
    for (int distance = ACROSS / 2; distance; distance >>= 1) x = larger(x, __shfl_xor_sync(ALL_LANES, x, distance));
    return x;
}

__device__ __forceinline__ float row_sum(float x) {
    for (int distance = ACROSS / 2; distance; distance >>= 1) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

// a step of the online softmax: the scores of the positions from `from` on become weights [ROWS, WEIGHT_STEP]
__device__ __forceinline__ void weigh(float scores[OWN][4], float4* weights, float most[OWN], float total[OWN],
                                      float sums[OWN][4 * COLUMNS], const int ends[OWN], int from, int window,
                                      float scale, float softcap) {
    int across = threadIdx.x % ACROSS, down = threadIdx.x / ACROSS;
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        float largest = most[i];
#pragma unroll
        for (int j = 0; j < 4; j++) {
            int position = from + 4 * across + j;
            bool sees = position < ends[i] && position >= ends[i] - window;
            scores[i][j] = sees ? score_of(scores[i][j], scale, softcap) : -INFINITY;
            largest = larger(largest, scores[i][j]);
        }
        largest = row_max(largest);
        float sum = 0, factor = weight_of(most[i], largest);
#pragma unroll
        for (int j = 0; j < 4; j++) sum += scores[i][j] = weight_of(scores[i][j], largest);
        most[i] = largest;
        total[i] = total[i] * factor + row_sum(sum);
#pragma unroll
        for (int d = 0; d < 4 * COLUMNS; d++) sums[i][d] *= factor;
        weights[((down + DOWN * i) * WEIGHT_STEP + 4 * across) / 4] =
            make_float4(scores[i][0], scores[i][1], scores[i][2], scores[i][3]);
    }
}

extern "C" __global__ void __launch_bounds__(TWO_BLOCKS) attend_many(
    const float* __restrict__ query, const kv_t* __restrict__ keys, const kv_t* __restrict__ values,
    const float* __restrict__ sinks, const int* __restrict__ block_tables, const int* __restrict__ seq_starts,
    const int* __restrict__ context_lens, float* __restrict__ out, int first_sequence, int columns, int kv_heads,
    int group, int head_dim, int block_size, int window, float scale, float softcap) {
    __shared__ float4 strips[(BOTH_STRIPS > VALUE_STRIP ? BOTH_STRIPS : VALUE_STRIP) / 4];
    __shared__ float4 weight_rows[ROWS * WEIGHT_STEP / 4];
    __shared__ long long key_places[PLACES], value_places[PLACES];
    __shared__ int query_rows[ROWS];
    float* strip = reinterpret_cast<float*>(strips);
    float* key_strip = strip + ROWS * QUERY_STEP;
    float* weights = reinterpret_cast<float*>(weight_rows);

    int thread = threadIdx.x, across = thread % ACROSS, down = thread / ACROSS;
    int tile = gridDim.x - 1 - blockIdx.x;  // tiles that see the most positions begin first
    int kv_head = blockIdx.y, heads = kv_heads * group, sequence = first_sequence + blockIdx.z;
    int start = seq_starts[sequence], count = seq_starts[sequence + 1] - start, context = context_lens[sequence];
    int first_row = tile * ROWS, rows = min(ROWS, count * group - first_row);
    if (rows <= 0) return;
    const int* table = block_tables + (long long)sequence * columns;
    if (thread < ROWS) {
        int token = (first_row + thread) / group, head = kv_head * group + (first_row + thread) % group;
        query_rows[thread] = thread < rows ? (start + token) * heads + head : -1;
    }

    int ends[OWN];  // the end of the positions that a row sees
    float most[OWN], total[OWN], sums[OWN][4 * COLUMNS] = {};
#pragma unroll
    for (int i = 0; i < OWN; i++) {
        ends[i] = max(0, context - count + (first_row + down + DOWN * i) / group + 1);
        most[i] = -INFINITY, total[i] = 0;
    }
    int seen_first = max(0, context - count + first_row / group + 1 - window);  // by at least one row
    int seen_end = max(0, context - count + (first_row + rows - 1) / group + 1);

    for (int from = seen_first / PLACES * PLACES; from < seen_end; from += PLACES) {
        if (thread < PLACES) {
            int position = from + thread;
            bool is_seen = position >= seen_first && position < seen_end;
            // of keys that are read together, no row may see some: their scores are not used
            bool is_read = position >= seen_first / TOGETHER * TOGETHER && position < seen_end;
            key_places[thread] = is_read ? key_of(position, table, kv_head, kv_heads, head_dim, block_size) : -1;
            value_places[thread] = is_seen ? row_of(position, table, kv_head, kv_heads, block_size) * head_dim : -1;
        }
        float scores[OWN][4] = {};
#pragma unroll 1
        for (int first = 0; first < head_dim; first += STRIP) {
            __syncthreads();
            load_queries(strip, query, query_rows, first, head_dim);
            load_keys(key_strip, keys, key_places, first, head_dim, block_size);
            __syncthreads();
            add_product<1>(scores, strip, QUERY_STEP, key_strip, STRIP);
        }
        weigh(scores, weight_rows, most, total, sums, ends, from, window, scale, softcap);
#pragma unroll 1
        for (int first = 0; first < min(PLACES, seen_end - from); first += DEPTH) {
            __syncthreads();
            load_values(strip, values, value_places, first, head_dim);
            __syncthreads();
            add_product<COLUMNS>(sums, weights + first, WEIGHT_STEP, strip, DEPTH);
        }
    }

#pragma unroll
    for (int i = 0; i < OWN; i++) {
        int row = down + DOWN * i;
        if (row >= rows) continue;
        int token = start + (first_row + row) / group, head = kv_head * group + (first_row + row) % group;
        float weight = total[i] + (sinks ? weight_of(sinks[head], most[i]) : 0.0f);
        float* place = out + ((long long)token * heads + head) * head_dim;
#pragma unroll
        for (int c = 0; c < 4 * COLUMNS; c++) {
            int d = 64 * (c / 4) + 4 * across + c % 4;
            if (d < head_dim) place[d] = ends[i] ? sums[i][c] / weight : 0.0f;
        }
    }
}

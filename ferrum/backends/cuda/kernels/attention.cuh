// What the kernels of attention share: what a token sees, where a position lies in the pool, how a product of a query
// and a key becomes a score, and a score a weight.
//
// The pool of one layer, of elements kv_t (float, half_t or bfloat_t):
//
//     keys      [blocks, kv_heads, head_dim, block_size]    neighbouring positions of a dimension are neighbours
//     values    [blocks, kv_heads, block_size, head_dim]    neighbouring dimensions of a position are neighbours
//
// Position p of sequence s lies in block block_tables[s, p / block_size], at place p % block_size. Entries of a table
// beyond the context are never read, and what stands in a block beyond the context never matters: it may be NaN.

#include "common.cuh"

#define SPLIT 256  // positions of a split of the context (attend_few.cu)
#define EACH 8     // neighbours that a thread takes at once: 16 bytes of 16-bit elements

// positions first .. end - 1 of a sequence, the last of them the token's own; none if end is 0
struct Seen {
    int sequence, first, end;
};

// What a token sees, the same in every lane of a warp. One whose sequence has a context of 0 sees nothing: it only fills up
// a batch.
__device__ __forceinline__ Seen seen_by(int token, const int* __restrict__ seq_starts,
                                        const int* __restrict__ context_lens, int sequences, int window) {
    int before = 0;  // sequences that end before the token; its own is the one after them
    for (int s = threadIdx.x % 32; s < sequences; s += 32) before += seq_starts[s + 1] <= token;
    for (int distance = 16; distance; distance >>= 1) before += __shfl_xor_sync(ALL_LANES, before, distance);
    int end = max(0, context_lens[before] - seq_starts[before + 1] + token + 1);
    return Seen{before, max(0, end - window), end};
}

// the row of a position, where `values` is read as [blocks * kv_heads * block_size, head_dim]
__device__ __forceinline__ long long row_of(int position, const int* table, int kv_head, int kv_heads, int block_size) {
    long long matrix = (long long)table[position / block_size] * kv_heads + kv_head;
    return matrix * block_size + position % block_size;
}

// where a position has its key's first element; the next ones follow at distances of block_size
__device__ __forceinline__ long long key_of(int position, const int* table, int kv_head, int kv_heads, int head_dim,
                                            int block_size) {
    int offset = position % block_size;
    return (row_of(position, table, kv_head, kv_heads, block_size) - offset) * head_dim + offset;
}

// a softcap of 0 is none
__device__ __forceinline__ float score_of(float product, float scale, float softcap) {
    float score = product * scale;
    return softcap != 0 ? softcap * tanhf(score / softcap) : score;
}

// exp(score - largest), where a largest of -inf means that there are only scores of -inf, which weigh nothing
__device__ __forceinline__ float weight_of(float score, float largest) {
    return expf(score - (largest == -INFINITY ? 0.0f : largest));
}

// EACH neighbours as float; the first lies at a multiple of 16 bytes
__device__ __forceinline__ void load_each(const float* place, float* x) {
    float4 low = reinterpret_cast<const float4*>(place)[0], high = reinterpret_cast<const float4*>(place)[1];
    x[0] = low.x, x[1] = low.y, x[2] = low.z, x[3] = low.w;
    x[4] = high.x, x[5] = high.y, x[6] = high.z, x[7] = high.w;
}

template <class T>  // half_t, bfloat_t
__device__ __forceinline__ void load_each(const T* place, float* x) {
    uint4 read = *reinterpret_cast<const uint4*>(place);
    unsigned pairs[4] = {read.x, read.y, read.z, read.w};
#pragma unroll
    for (int i = 0; i < 4; i++) {
        x[2 * i] = to_float(T{(unsigned short)pairs[i]});
        x[2 * i + 1] = to_float(T{(unsigned short)(pairs[i] >> 16)});
    }
}

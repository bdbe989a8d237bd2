// Functions of all kernels of attention: which positions a token sees, where a position lies in the pool, and how
// scores and weights are computed.
//
// The pool of one layer, of elements kv_t (float, half_t or bfloat_t):
//
//     keys      [blocks, kv_heads, head_dim, block_size]    neighbouring positions of a dimension are neighbours
//     values    [blocks, kv_heads, block_size, head_dim]    neighbouring dimensions of a position are neighbours
//
// Position p of sequence s lies in block block_tables[s, p / block_size], at offset p % block_size. Entries of a table
// after the context are never read. Positions of a block after the context may hold anything, also NaN.

#include "common.cuh"

#define SPLIT 256  // positions of a split of the context (attend_few.cu)
#define EACH 8     // neighbours that a thread loads at once: 16 bytes of 16-bit elements

// positions first .. end - 1 of a sequence, the last of them the token's own; none if end is 0
struct Seen {
    int sequence, first, end;
};

// The positions that a token sees, the same in every lane of a warp. A token whose sequence has a context of 0 sees
// none: it only pads the batch.
__device__ __forceinline__ Seen seen_by(int token, const int* __restrict__ seq_starts,
                                        const int* __restrict__ context_lens, int sequences, int window) {
    int before = 0;  // sequences that end before the token; the next one is its sequence
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

// the index of the first element of the key of a position; the next ones are block_size apart
__device__ __forceinline__ long long key_of(int position, const int* table, int kv_head, int kv_heads, int head_dim,
                                            int block_size) {
    int offset = position % block_size;
    return (row_of(position, table, kv_head, kv_heads, block_size) - offset) * head_dim + offset;
}

// softcap 0: no softcap
__device__ __forceinline__ float score_of(float product, float scale, float softcap) {
    float score = product * scale;
    return softcap != 0 ? softcap * tanhf(score / softcap) : score;
}

// exp(score - largest); 0 if the largest score is -inf
__device__ __forceinline__ float weight_of(float score, float largest) {
    return expf(score - (largest == -INFINITY ? 0.0f : largest));
}

// EACH neighbours as float; the address of the first is a multiple of 16
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

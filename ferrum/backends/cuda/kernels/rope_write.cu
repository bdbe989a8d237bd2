// Rotates queries and keys by their positions (RoPE), and writes keys and values to the pool.
//
//     first, second = x[..., :half], x[..., half : 2 * half]              dimensions from 2 * half on are not rotated
//     rotated(x) = first * cos[p] - second * sin[p], second * cos[p] + first * sin[p]      p = positions[token]
//     out = rotated(query) * growth[p]
//     keys[block, :, :, offset], values[block, :, offset] = rotated(key), value   block, offset = divmod(slot, block_size)
//
// query       float [tokens, heads, head_dim]        null, like `out`, with heads 0, if only keys and values are written
// key, value  float [tokens, kv_heads, head_dim]     these three are contiguous for each token, and have query_step,
//                                                    key_step and value_step numbers from one token to the next
// out         float [tokens, heads, head_dim]        contiguous
// cos, sin    float [length, half]                   null with half 0: no rotation
// growth      float [length]                         null: queries are not scaled
// positions   int [tokens]
// slots       int [tokens]                           -1: the token is not written
// keys        kv_t [blocks, kv_heads, head_dim, block_size], values kv_t [blocks, kv_heads, block_size, head_dim]:
//             rounded to nearest even
//
// A position outside of the tables gives NaN, because nothing outside of them may be read.
//
// A block computes one head of one token: blocks (token, 0 .. heads - 1) rotate a query, the kv_heads blocks after them
// write a key and a value. A thread computes one dimension and reads both dimensions of its pair, so no thread waits
// for another. The work is a few kilobytes per token; doing all of it in one launch is what saves time.

#include "common.cuh"

struct Turn {
    const float *cos, *sin;  // of this position; null where the position is outside of the tables
    int half;
};

// dimension d of a rotated head
__device__ __forceinline__ float turned(const float* head, int d, Turn turn) {
    if (d >= 2 * turn.half) return head[d];
    if (turn.cos == 0) return NAN;
    int angle = d < turn.half ? d : d - turn.half;
    float cosine = turn.cos[angle], sine = turn.sin[angle];
    return d < turn.half ? head[d] * cosine - head[d + turn.half] * sine : head[d] * cosine + head[angle] * sine;
}

extern "C" __global__ void rope_write(const float* __restrict__ query, const float* __restrict__ key,
                                      const float* __restrict__ value, const float* __restrict__ cos,
                                      const float* __restrict__ sin, const float* __restrict__ growth,
                                      const int* __restrict__ positions, const int* __restrict__ slots,
                                      float* __restrict__ out, kv_t* __restrict__ keys, kv_t* __restrict__ values,
                                      long long query_step, long long key_step, long long value_step, int heads,
                                      int kv_heads, int head_dim, int block_size, int half, int length) {
    long long token = blockIdx.x;
    int head = blockIdx.y;
    int position = half || growth ? positions[token] : 0;
    bool known = position >= 0 && position < length;
    long long angles = (long long)position * half;
    Turn turn = {known ? cos + angles : 0, known ? sin + angles : 0, half};
    if (head < heads) {
        const float* own = query + token * query_step + head * head_dim;
        float* place = out + (token * heads + head) * head_dim;
        float size = !growth ? 1.0f : known ? growth[position] : NAN;
        for (int d = threadIdx.x; d < head_dim; d += blockDim.x) place[d] = turned(own, d, turn) * size;
        return;
    }
    int slot = slots[token];
    if (slot < 0) return;
    head -= heads;
    const float *own_key = key + token * key_step + head * head_dim;
    const float *own_value = value + token * value_step + head * head_dim;
    long long matrix = ((long long)(slot / block_size) * kv_heads + head) * head_dim * block_size;  // in both arrays
    int offset = slot % block_size;
    for (int d = threadIdx.x; d < head_dim; d += blockDim.x) {
        store(keys + matrix + (long long)d * block_size + offset, turned(own_key, d, turn));
        store(values + matrix + (long long)offset * head_dim + d, own_value[d]);
    }
}

// How weights are stored, one struct for each format, and how a thread decodes a few of them.
//
//     decode(load(row, column), column, weights):  weights[0..run - 1] = dequantize(weight)[row, column..column + run - 1]
//
// Definitions: `dequantize` of Dense, Q8_0, Q4_0, Q4_1, Q4_K, Q5_K and Q6_K. Every decoder gives the same bits, even if
// a GPU rounds a product and a sum only once: scales have 11 bits, group scales at most 8 and codes at most 6, so their
// products are exact in float32.
//
// block, bytes   weights of a block, neighbours in a row, and its bytes; a row consists of whole blocks
// run            weights that a thread decodes at a time; `column` is a multiple of it
// runs, apart    runs that share the same bytes, and the columns from one to the next: formats of less than 8 bits have
//                two codes in a byte. One `load` serves all of them.
// stored         the bytes of a run as they are loaded. `load` does not compute with them, so a thread can start many
//                loads before it waits for the first: in loops over rows, those of `ahead` places.
//
// Addresses are aligned to the widest load: rows of float32, float16 and bfloat16 begin at a multiple of 4 numbers,
// rows of Q4_K and Q5_K at a multiple of 16 bytes, of Q4_1 at a multiple of 4. Blocks of Q8_0, Q4_0 and Q6_K only have
// even addresses, so they are loaded 2 bytes at a time.

#include "common.cuh"

__device__ __forceinline__ unsigned short two_bytes(const unsigned char* place) { return *(const unsigned short*)place; }

__device__ __forceinline__ unsigned word_of(unsigned short low, unsigned short high) { return low | (unsigned)high << 16; }

__device__ __forceinline__ float half_of(unsigned bits) {
    half_t x;
    x.bits = (unsigned short)bits;
    return to_float(x);
}

// byte `i` of a word, unsigned and signed
__device__ __forceinline__ float byte_of(unsigned word, int i) { return (float)(word >> 8 * i & 255u); }
__device__ __forceinline__ float signed_byte_of(unsigned word, int i) { return (float)(signed char)(word >> 8 * i); }

// ---- float32, float16, bfloat16

struct float32 {
    static const int block = 4, bytes = 16, run = 4, runs = 1, apart = 0, ahead = 2;
    typedef float4 stored;

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        return *(const float4*)(row + (long long)column * 4);
    }

    static __device__ __forceinline__ void decode(stored four, int column, float* weights) {
        weights[0] = four.x, weights[1] = four.y, weights[2] = four.z, weights[3] = four.w;
    }
};

struct float16 {
    static const int block = 4, bytes = 8, run = 4, runs = 1, apart = 0, ahead = 4;
    typedef uint2 stored;

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        return *(const uint2*)(row + (long long)column * 2);
    }

    static __device__ __forceinline__ void decode(stored four, int column, float* weights) {
        weights[0] = half_of(four.x), weights[1] = half_of(four.x >> 16);
        weights[2] = half_of(four.y), weights[3] = half_of(four.y >> 16);
    }
};

// bfloat16: the upper half of a float32
struct bfloat16 {
    static const int block = 4, bytes = 8, run = 4, runs = 1, apart = 0, ahead = 4;
    typedef uint2 stored;

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        return *(const uint2*)(row + (long long)column * 2);
    }

    static __device__ __forceinline__ void decode(stored four, int column, float* weights) {
        weights[0] = __uint_as_float(four.x << 16), weights[1] = __uint_as_float(four.x & 0xffff0000u);
        weights[2] = __uint_as_float(four.y << 16), weights[3] = __uint_as_float(four.y & 0xffff0000u);
    }
};

// ---- groups of 32 with one scale

// scale (2 bytes), 32 signed codes
struct q8_0 {
    static const int block = 32, bytes = 34, run = 4, runs = 1, apart = 0, ahead = 4;
    struct stored {
        unsigned short scale, low, high;
    };

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        const unsigned char* own = row + (long long)(column / 32) * bytes;
        const unsigned char* codes = own + 2 + column % 32;
        return {two_bytes(own), two_bytes(codes), two_bytes(codes + 2)};
    }

    static __device__ __forceinline__ void decode(stored group, int column, float* weights) {
        float scale = half_of(group.scale);
        unsigned codes = word_of(group.low, group.high);
#pragma unroll
        for (int i = 0; i < run; i++) weights[i] = signed_byte_of(codes, i) * scale;
    }
};

// four codes of the 16 bytes of a group: the low halves of the bytes are its first 16 weights, the high halves its last
__device__ __forceinline__ unsigned four_codes(unsigned packed, int column) {
    return packed >> (column % 32 < 16 ? 0 : 4) & 0x0f0f0f0fu;
}

// scale (2 bytes), 16 bytes of codes that stand for code - 8
struct q4_0 {
    static const int block = 32, bytes = 18, run = 4, runs = 2, apart = 16, ahead = 4;
    typedef q8_0::stored stored;

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        const unsigned char* own = row + (long long)(column / 32) * bytes;
        const unsigned char* codes = own + 2 + column % 16;
        return {two_bytes(own), two_bytes(codes), two_bytes(codes + 2)};
    }

    static __device__ __forceinline__ void decode(stored group, int column, float* weights) {
        float scale = half_of(group.scale);
        unsigned codes = four_codes(word_of(group.low, group.high), column);
#pragma unroll
        for (int i = 0; i < run; i++) weights[i] = (byte_of(codes, i) - 8.0f) * scale;
    }
};

// scale and minimum (2 bytes each), 16 bytes of codes
struct q4_1 {
    static const int block = 32, bytes = 20, run = 4, runs = 2, apart = 16, ahead = 4;
    struct stored {
        unsigned head, packed;
    };

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        const unsigned char* own = row + (long long)(column / 32) * bytes;
        return {*(const unsigned*)own, *(const unsigned*)(own + 4 + column % 16)};
    }

    static __device__ __forceinline__ void decode(stored group, int column, float* weights) {
        float scale = half_of(group.head), minimum = half_of(group.head >> 16);
        unsigned codes = four_codes(group.packed, column);
#pragma unroll
        for (int i = 0; i < run; i++) weights[i] = byte_of(codes, i) * scale + minimum;
    }
};

// ---- blocks of 256 whose groups have their own scales

// Step and offset of a group of 32 weights in Q4_K and Q5_K: weight = step * code - offset. `head`, the first 16 bytes
// of a block: scale and minimum (2 bytes each), then 12 bytes. Of these, bytes 0-3 hold group scales 0-3 and bytes 4-7
// group minimums 0-3 in their low 6 bits; bytes 8-11 hold the low 4 bits of scales 4-7 and, above, of minimums 4-7,
// whose 2 high bits are those of bytes 0-7.
__device__ __forceinline__ void group_of(uint4 head, int group, float* step, float* offset) {
    int place = group % 4 * 8;
    unsigned scale = head.y >> place, minimum = head.z >> place, late = head.w >> place;
    scale = group < 4 ? scale & 63u : (late & 15u) | (scale >> 2 & 48u);
    minimum = group < 4 ? minimum & 63u : (late >> 4 & 15u) | (minimum >> 2 & 48u);
    *step = half_of(head.x) * (float)scale;
    *offset = half_of(head.x >> 16) * (float)minimum;
}

// head, 128 bytes of codes: 32 bytes hold two groups, the first in the low halves
struct q4_k {
    static const int block = 256, bytes = 144, run = 8, runs = 2, apart = 32, ahead = 2;
    struct stored {
        uint4 head;
        uint2 packed;
    };

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        const unsigned char* own = row + (long long)(column / 256) * bytes;
        return {*(const uint4*)own, *(const uint2*)(own + 16 + column % 256 / 64 * 32 + column % 32)};
    }

    static __device__ __forceinline__ void decode(stored part, int column, float* weights) {
        int group = column / 32 % 8, high = group % 2 * 4;
        unsigned codes[2] = {part.packed.x >> high & 0x0f0f0f0fu, part.packed.y >> high & 0x0f0f0f0fu};
        float step, offset;
        group_of(part.head, group, &step, &offset);
#pragma unroll
        for (int i = 0; i < run; i++) weights[i] = step * byte_of(codes[i / 4], i % 4) - offset;
    }
};

// head, 32 bytes of fifth bits (bit g of byte i belongs to code i of group g), 128 bytes of codes as in Q4_K
struct q5_k {
    static const int block = 256, bytes = 176, run = 8, runs = 2, apart = 32, ahead = 2;
    struct stored {
        uint4 head;
        uint2 fifth, packed;
    };

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        const unsigned char* own = row + (long long)(column / 256) * bytes;
        return {*(const uint4*)own, *(const uint2*)(own + 16 + column % 32),
                *(const uint2*)(own + 48 + column % 256 / 64 * 32 + column % 32)};
    }

    static __device__ __forceinline__ void decode(stored part, int column, float* weights) {
        int group = column / 32 % 8, high = group % 2 * 4;
        unsigned codes[2] = {
            (part.packed.x >> high & 0x0f0f0f0fu) | (part.fifth.x >> group & 0x01010101u) << 4,
            (part.packed.y >> high & 0x0f0f0f0fu) | (part.fifth.y >> group & 0x01010101u) << 4,
        };
        float step, offset;
        group_of(part.head, group, &step, &offset);
#pragma unroll
        for (int i = 0; i < run; i++) weights[i] = step * byte_of(codes[i / 4], i % 4) - offset;
    }
};

// 128 bytes of low halves, 64 bytes of high bit pairs, 16 signed group scales, scale (2 bytes); codes stand for code -
// 32. Each half of a block, 128 weights in four quarters, has 64 bytes of low halves: quarters 0 and 1 in the low
// halves of the bytes, 2 and 3 in the high ones; and 32 bytes of pairs: bits 2q and 2q + 1 belong to quarter q.
struct q6_k {
    static const int block = 256, bytes = 210, run = 8, runs = 2, apart = 64, ahead = 1;
    struct stored {
        unsigned short low[4], high[4], scale;
        signed char early_scale, late_scale;  // of the two quarters that share bytes
    };

    static __device__ __forceinline__ stored load(const unsigned char* row, int column) {
        const unsigned char* own = row + (long long)(column / 256) * bytes;
        const unsigned char* low = own + column % 256 / 128 * 64 + column % 64;
        const unsigned char* high = own + 128 + column % 256 / 128 * 32 + column % 32;
        const unsigned char* group_scales = own + 192 + column % 256 / 128 * 8 + column % 64 / 16;
        return {{two_bytes(low), two_bytes(low + 2), two_bytes(low + 4), two_bytes(low + 6)},
                {two_bytes(high), two_bytes(high + 2), two_bytes(high + 4), two_bytes(high + 6)},
                two_bytes(own + 208),
                (signed char)group_scales[0], (signed char)group_scales[4]};
    }

    static __device__ __forceinline__ void decode(const stored& part, int column, float* weights) {
        int quarter = column / 32 % 4;
        float step = half_of(part.scale) * (float)(quarter < 2 ? part.early_scale : part.late_scale);
#pragma unroll
        for (int i = 0; i < run; i++) {
            unsigned low = word_of(part.low[i / 4 * 2], part.low[i / 4 * 2 + 1]) >> quarter / 2 * 4 & 0x0f0f0f0fu;
            unsigned high = word_of(part.high[i / 4 * 2], part.high[i / 4 * 2 + 1]) >> quarter * 2 & 0x03030303u;
            weights[i] = step * (byte_of(low | high << 4, i % 4) - 32.0f);
        }
    }
};

// the address of a row
template <class Format>
__device__ __forceinline__ const unsigned char* row_of(const unsigned char* weights, int row, int columns) {
    return weights + (long long)row * (columns / Format::block * Format::bytes);
}

// The order of the tokens of a row, for the kernels that choose tokens.
//
// The *place* of a token is an integer of 64 bits; a better token has a larger place. The high bits are the logit, as
// an integer of the same order; the low bits are the id, so that of equal logits the lowest id is the best, and no two
// places are equal. NaN is the largest, as in np.argmax, and -0 equals 0. A set of the best tokens is given by one
// number, its *cut*: a token belongs to it if its place is at least the cut. A row has at most 2**31 tokens; all places
// are above 0.

#include "common.cuh"

typedef unsigned long long place_t;

__device__ __forceinline__ place_t place_of(float logit, int id) {
    unsigned bits = __float_as_uint(logit == 0 ? 0.0f : logit);
    unsigned rising = logit != logit ? 0xffffffffu : bits >> 31 ? ~bits : bits | 0x80000000u;
    return (place_t)rising << 32 | (0xffffffffu - (unsigned)id);
}

__device__ __forceinline__ int id_of(place_t place) { return (int)(0xffffffffu - (unsigned)place); }

// ---- reductions over the lanes of a warp; the result is the same in every lane

template <class T>
__device__ __forceinline__ T warp_total(T x) {
    for (int distance = 16; distance; distance >>= 1) x += __shfl_xor_sync(ALL_LANES, x, distance);
    return x;
}

template <class T>
__device__ __forceinline__ T warp_largest(T x) {
    for (int distance = 16; distance; distance >>= 1) {
        T other = __shfl_xor_sync(ALL_LANES, x, distance);
        x = other > x ? other : x;
    }
    return x;
}

// the sum over this lane and the lanes before it
template <class T>
__device__ __forceinline__ T warp_running(T x) {
    int lane = threadIdx.x % 32;
    for (int distance = 1; distance < 32; distance *= 2) {
        T before = __shfl_up_sync(ALL_LANES, x, distance);
        if (lane >= distance) x += before;
    }
    return x;
}

// ---- reductions over a block; the result is the same in every thread; `parts`: shared memory for 32 numbers, which
// may be used again at once

template <class T>
__device__ __forceinline__ T block_total(T x, T* parts) {
    x = warp_total(x);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = x;
    __syncthreads();
    T total = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) total += parts[warp];
    return total;
}

__device__ __forceinline__ place_t block_best(place_t place, place_t* parts) {
    place = warp_largest(place);
    __syncthreads();
    if (threadIdx.x % 32 == 0) parts[threadIdx.x / 32] = place;
    __syncthreads();
    place_t best = 0;
    for (int warp = 0; warp < (int)blockDim.x / 32; warp++) best = parts[warp] > best ? parts[warp] : best;
    return best;
}

// ---- the share of a warp: neighbouring tokens, which come after those of the warps before it

struct share_t {
    int first, last;
};

__device__ __forceinline__ share_t share_of_warp(int n) {
    int warps = blockDim.x / 32, lines = (n + 31) / 32;
    long long size = (lines + warps - 1) / warps * 32, first = threadIdx.x / 32 * size;
    return {(int)(first < n ? first : n), (int)(first + size < n ? first + size : n)};
}

// ---- a cut by a sum

#define DIGITS 16
#define CUT_PARTS (32 * (DIGITS + 1))

// 16 sums over a warp in the time of one: in each step a lane passes half of its sums to its partner and receives the
// other half of the partner's sums. In the end lane i has the sum number i / 2.
template <int HALF>
__device__ __forceinline__ double sixteen_sums(double* sums) {
    bool upper = threadIdx.x & 2 * HALF;
#pragma unroll
    for (int each = 0; each < HALF; each++) {
        double low = sums[each], high = sums[each + HALF];
        sums[each] = (upper ? high : low) + __shfl_xor_sync(ALL_LANES, upper ? low : high, 2 * HALF);
    }
    if constexpr (HALF > 1) return sixteen_sums<HALF / 2>(sums);
    return sums[0] + __shfl_xor_sync(ALL_LANES, sums[0], 1);
}

// The cut of the best tokens whose amounts, the best first, reach `wanted`, including the token that reaches it. An
// amount is the weight of a token, or 1 if there are no weights; at least one is above 0. If all amounts together do
// not reach it, all tokens with an amount above 0 belong to the set. All threads of a block must call it; `parts`:
// shared memory for CUT_PARTS numbers.
//
// The place at which the sum reaches `wanted` is found digit by digit, in hexadecimal, like a word in a dictionary: a
// pass over the row adds up amounts by the next digit of the place, for the tokens that begin with the digits found so
// far. The loop ends when one token is left, or when the sum equals `wanted`, as counts do; usually after at most six
// passes, unless many logits are equal. Every thread keeps sixteen sums in registers, so no two threads add to the same
// number, and the order of additions is fixed.
__device__ place_t cut_at(const float* logits, const double* weights, int n, double wanted, double* parts) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    share_t share = share_of_warp(n);
    place_t begin = 0;  // the digits found so far
    double above = 0;   // the sum of all tokens that are better than those which begin with them
    for (int shift = 60; shift >= 0; shift -= 4) {
        double sums[DIGITS];
#pragma unroll
        for (int digit = 0; digit < DIGITS; digit++) sums[digit] = 0;
        double left = 0;
#pragma unroll 2
        for (int id = share.first + lane; id < share.last; id += 32) {
            place_t place = place_of(logits[id], id);
            if (place >> shift >> 4 != begin) continue;
            double amount = weights ? weights[id] : 1.0;
            left += 1;
#pragma unroll
            for (int digit = 0; digit < DIGITS; digit++)
                sums[digit] += (int)(place >> shift & 15) == digit ? amount : 0.0;
        }
        double sum = sixteen_sums<DIGITS / 2>(sums);
        left = warp_total(left);
        __syncthreads();
        if (lane % 2 == 0) parts[warp * (DIGITS + 1) + lane / 2] = sum;
        if (lane == 0) parts[warp * (DIGITS + 1) + DIGITS] = left;
        __syncthreads();
        double total = 0;  // over all warps: lane i < 16 has the sum of digit i, lane 16 that of `left`
        if (lane <= DIGITS)
            for (int each = 0; each < warps; each++) total += parts[each * (DIGITS + 1) + lane];

        int found = 0;
        bool reached = false;
        double until = above;
        for (int digit = DIGITS - 1; digit >= 0; digit--) {
            double amount = __shfl_sync(ALL_LANES, total, digit);
            if (reached || amount == 0) continue;
            found = digit;  // or the last one that counts, if rounding errors keep the sum below `wanted`
            above = until;
            until += amount;
            reached = until >= wanted;
        }
        begin = begin << 4 | found;
        if (until == wanted || __shfl_sync(ALL_LANES, total, DIGITS) == 1) return begin << shift;
    }
    return begin;
}

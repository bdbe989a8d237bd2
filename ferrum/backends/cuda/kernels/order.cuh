// The order of the tokens of a row, and what kernels share that choose among them.
//
// A token's *place* is a number of 64 bits: the larger one is the better token. In front stands the logit, as an integer
// of the same order; behind it the id, so that of equal logits the lowest id is the best and no two places are equal.
// NaN is above everything, as in np.argmax, and -0 equals 0. A set of the best tokens is then a number too, its *cut*: a
// token belongs to it if its place is not below. Places of a row of at most 2**31 tokens; 0 is below every place.

#include "common.cuh"

typedef unsigned long long place_t;

__device__ __forceinline__ place_t place_of(float logit, int id) {
    unsigned bits = __float_as_uint(logit == 0 ? 0.0f : logit);
    unsigned rising = logit != logit ? 0xffffffffu : bits >> 31 ? ~bits : bits | 0x80000000u;
    return (place_t)rising << 32 | (0xffffffffu - (unsigned)id);
}

__device__ __forceinline__ int id_of(place_t place) { return (int)(0xffffffffu - (unsigned)place); }

// ---- of the lanes of a warp, the same in every lane

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

// of this lane and those before it
template <class T>
__device__ __forceinline__ T warp_running(T x) {
    int lane = threadIdx.x % 32;
    for (int distance = 1; distance < 32; distance *= 2) {
        T before = __shfl_up_sync(ALL_LANES, x, distance);
        if (lane >= distance) x += before;
    }
    return x;
}

// ---- of the warps of a block, the same in every thread; `parts`: shared memory for 32 numbers, which may be used again
// at once

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

// ---- the tokens that a warp of a block looks at: neighbours, so that what comes before them are those of the warps
// before it

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

// 16 sums over a warp for the price of one: in each step a lane gives away half of its sums, and takes over the other
// half of its partner's. Lane i is left with the sum number i / 2.
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

// The cut with which the amounts of the best tokens, the best first, reach `wanted`: the token that crosses it belongs to
// them. An amount is the token's weight, or 1 where there are no weights; one at least is above 0. Where all of them
// together do not reach it, all that amount to something belong to them. For a block, which must call it together;
// `parts`: shared memory for CUT_PARTS numbers.
//
// The place where the sum crosses is found like a word in a dictionary, one hexadecimal digit after the other, from the
// first on: a pass over the row adds up the amounts by their next digit among the tokens that begin with the digits found
// so far. It ends as soon as one token is left, or the sum is reached exactly, as a count is: rarely after more than six
// passes, unless many logits are equal. Every thread keeps its sixteen sums in registers, so no two threads add to one
// number, and the order of additions is fixed.
__device__ place_t cut_at(const float* logits, const double* weights, int n, double wanted, double* parts) {
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32, warps = blockDim.x / 32;
    share_t share = share_of_warp(n);
    place_t begin = 0;  // the digits found so far
    double above = 0;   // what all tokens amount to that come before those which begin with them
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
        double total = 0;  // of all warps: in lanes 0 to 15 of the digit that is the lane's number, in lane 16 of `left`
        if (lane <= DIGITS)
            for (int each = 0; each < warps; each++) total += parts[each * (DIGITS + 1) + lane];

        int found = 0;
        bool reached = false;
        double until = above;
        for (int digit = DIGITS - 1; digit >= 0; digit--) {
            double amount = __shfl_sync(ALL_LANES, total, digit);
            if (reached || amount == 0) continue;
            found = digit;  // or, where rounding keeps the digits of a crossing from reaching it, the last that counts
            above = until;
            until += amount;
            reached = until >= wanted;
        }
        begin = begin << 4 | found;
        if (until == wanted || __shfl_sync(ALL_LANES, total, DIGITS) == 1) return begin << shift;
    }
    return begin;
}

// Samples one token for every row of logits.
//
//     x = np.float64(logits) / temperature
//     top_k:   keeps the k largest of x, of equal ones those with the lowest ids; 0 or less keeps all
//     weights = np.exp(x - x.max()), and 0 for tokens that are not kept
//     top_p:   keeps the best tokens until their weights reach top_p * weights.sum(), including the one that reaches it; 1
//              keeps all
//     min_p:   keeps weights of at least min_p
//     out = the first id at which weights.cumsum() exceeds unit * weights.sum()
//
// This is the definition `choose` in ferrum/tensor/drawing.py. A row whose temperature is below GREEDY_BELOW, or whose
// largest logit is not finite, gives the id of the largest logit.
//
// Shapes: logits [rows, n]; weights float64 [rows, n]; best [rows], the ids of the largest logits; settings float64
// [rows, 5]: temperature, top_k, top_p, min_p, unit; out int64 [rows].
//
// `weigh` writes the weights with many blocks, because an exponential in float64 is slow. In `draw` a block computes a
// row: two cuts by a sum (order.cuh), then the sums of the shares of its warps, in the order of ids. The warp in whose
// share the running sum passes the random number looks for the token, 32 neighbours at a time.
//
// Sums are float64, but their order of additions is not that of np.cumsum, so their last bits may differ. A token can
// differ from that of the definition only if two numbers that are compared differ by as little.

#include "order.cuh"

#define GREEDY_BELOW 1e-5
#define ELEMENTS 4
#define SETTINGS 5

__device__ __forceinline__ bool is_drawn(float largest, double temperature) {
    return temperature >= GREEDY_BELOW && fabsf(largest) < INFINITY;
}

extern "C" __global__ void weigh(const float* logits, const long long* best, const double* settings, double* weights,
                                 int n) {
    long long row = blockIdx.x, first = (long long)blockIdx.y * blockDim.x * ELEMENTS + threadIdx.x;
    float largest = logits[row * n + best[row]];
    double temperature = settings[row * SETTINGS];
    if (!is_drawn(largest, temperature)) return;
    double most = largest / temperature;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long id = first + each * blockDim.x;
        if (id < n) weights[row * n + id] = exp(logits[row * n + id] / temperature - most);
    }
}

// the token of a share at which `before` plus the running sum passes `wanted`; computed by one warp
__device__ __forceinline__ int first_past(const float* logits, const double* weights, share_t share, place_t cut,
                                          double least, double before, double wanted) {
    int lane = threadIdx.x % 32, latest = -1;
    for (int line = share.first; line < share.last; line += 32) {
        int id = line + lane;
        bool kept = id < share.last && weights[id] > 0 && weights[id] >= least && place_of(logits[id], id) >= cut;
        double until = before + warp_running(kept ? weights[id] : 0.0);
        if (kept) latest = id;
        int here = 32 - warp_largest(kept && until > wanted ? 32 - lane : 0);  // the first lane that passes
        if (here < 32) return line + here;
        before = __shfl_sync(ALL_LANES, until, 31);
    }
    return warp_largest(latest);  // it would pass without rounding errors
}

extern "C" __global__ void __launch_bounds__(512) draw(const float* logits, const double* weights,
                                                       const long long* best, const double* settings, long long* out,
                                                       int n) {
    __shared__ double parts[CUT_PARTS];
    long long row = blockIdx.x;
    logits += row * n;
    weights += row * n;
    settings += row * SETTINGS;
    double temperature = settings[0], top_k = settings[1], top_p = settings[2], min_p = settings[3], unit = settings[4];
    if (!is_drawn(logits[best[row]], temperature)) {
        if (threadIdx.x == 0) out[row] = best[row];
        return;
    }
    place_t cut = 0;
    share_t share = share_of_warp(n);
    if (top_k > 0 && top_k < n) cut = cut_at(logits, nullptr, n, top_k, parts);
    if (top_p < 1) {
        double total = 0;
#pragma unroll 4
        for (int id = share.first + threadIdx.x % 32; id < share.last; id += 32)
            if (place_of(logits[id], id) >= cut) total += weights[id];
        total = block_total(total, parts);
        place_t nucleus = cut_at(logits, weights, n, top_p * total, parts);
        cut = nucleus > cut ? nucleus : cut;  // rounding may place the first after the second
    }
    double own = 0, total = 0, before = 0, until = 0;
#pragma unroll 4
    for (int id = share.first + threadIdx.x % 32; id < share.last; id += 32)
        if (weights[id] >= min_p && place_of(logits[id], id) >= cut) own += weights[id];
    total = block_total(own, parts);  // writes the sum of warp i to parts[i]

    double wanted = unit * total;
    int warp = -1;  // the first warp whose share passes it, or the last one with a positive sum
    bool passed = false;
    for (int each = 0; each < (int)blockDim.x / 32; each++) {
        if (passed || parts[each] == 0) continue;
        warp = each;
        before = until;
        until += parts[each];
        passed = until > wanted;
    }
    if ((int)threadIdx.x / 32 == warp) {
        int token = first_past(logits, weights, share, cut, min_p, before, wanted);
        if (threadIdx.x % 32 == 0) out[row] = token;
    }
}

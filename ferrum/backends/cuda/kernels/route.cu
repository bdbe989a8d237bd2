// The experts of each token, and their weights.
//
//     chances = softmax(scores)
//     numbers = np.argsort(-chances, kind="stable")[:, :chosen]
//     weights = chances[numbers], divided by its sum if `normalised`
//
// Shapes: scores [tokens, experts], weights and numbers [tokens, chosen].
//
// A block of one warp computes one token. Lane l keeps the probabilities of experts l, l + 32, ... in shared memory;
// other lanes do not read them, so no barrier is needed. The best expert is taken `chosen` times, and its probability
// is replaced by -1. The experts of a token are distinct even if all probabilities are NaN: the following kernels use
// them as indices.

#include "common.cuh"

#define TAKEN -1.0f

// true if expert `number` is better than the other one; of equal probabilities, or NaN, the lower number is
__device__ __forceinline__ bool is_before(float chance, int number, float other_chance, int other) {
    if (chance > other_chance) return true;
    return !(chance < other_chance) && number < other;
}

extern "C" __global__ void route(const float* scores, int experts, int chosen, int normalised, float* weights,
                                 int* numbers) {
    SHARED(float, chances);
    const int lane = threadIdx.x;
    const float* own_scores = scores + (long long)blockIdx.x * experts;
    float* own_weights = weights + (long long)blockIdx.x * chosen;

    float most = -INFINITY, sum = 0;
    for (int n = lane; n < experts; n += 32) most = larger(most, own_scores[n]);
    most = warp_max(most);
    for (int n = lane; n < experts; n += 32) {
        chances[n] = expf(own_scores[n] - most);
        sum += chances[n];
    }
    sum = warp_sum(sum);
    for (int n = lane; n < experts; n += 32) chances[n] /= sum;

    float total = 0, own_weight = 0;
    for (int place = 0; place < chosen; place++) {
        float best = TAKEN;
        int number = experts;  // none yet; every expert is better
        for (int n = lane; n < experts; n += 32)
            if (chances[n] != TAKEN && is_before(chances[n], n, best, number))
                best = chances[n], number = n;
        for (int distance = 16; distance; distance >>= 1) {
            float other_best = __shfl_xor_sync(ALL_LANES, best, distance);
            int other = __shfl_xor_sync(ALL_LANES, number, distance);
            if (other < experts && is_before(other_best, other, best, number))
                best = other_best, number = other;
        }
        total += best;
        if (number % 32 == lane) chances[number] = TAKEN;
        if (place == lane) {
            own_weight = best;
            numbers[(long long)blockIdx.x * chosen + place] = number;
        }
    }
    if (lane < chosen) own_weights[lane] = normalised ? own_weight / total : own_weight;
}

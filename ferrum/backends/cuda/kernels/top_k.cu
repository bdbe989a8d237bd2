// The best tokens of every row, and log probabilities.
//
//     top_k:     ids = np.argsort(-logits, kind="stable")[:, :k];  values = np.take_along_axis(logits, ids, -1)
//     logsumexp: out = largest + np.log(np.exp(np.float64(logits) - largest).sum(-1))
//     rank:      out = ((logits > own) | ((logits == own) & (np.arange(n) < token))).sum(-1)
//     tell:      out = [log probability of the token, its rank + 1, *ids, *log probabilities of ids]
//
// Shapes: logits [rows, n], values and ids [rows, k], k at most MOST; best [rows], the ids of the largest logits; sums
// [rows, chunks]; tokens [rows]; logsumexp float64 [rows], rank int64 [rows]: the number of better tokens; tell float64
// [rows, 2 + 2 k]. For a token id out of range all n tokens are better.
//
// In `top_k` a block computes a row: the cut of the k best tokens (order.cuh), then each warp writes those of its share
// to shared memory, where k places (at most MOST) are sorted by a bitonic network. The sum of exponentials has two
// kernels, so that one long row uses more than one multiprocessor; its order of additions depends on n alone.

#include "order.cuh"

#define MOST 1024
#define ELEMENTS 8

// sorts `places`, the largest first; their number is a power of two
__device__ __forceinline__ void sort_places(place_t* places, int count) {
    for (int size = 2; size <= count; size *= 2)
        for (int distance = size / 2; distance; distance /= 2) {
            for (int index = threadIdx.x; index < count; index += blockDim.x) {
                int partner = index ^ distance;
                place_t own = places[index], other = places[partner];
                bool falling = (index & size) == 0;
                if (partner > index && (own < other) == falling) {
                    places[index] = other;
                    places[partner] = own;
                }
            }
            __syncthreads();
        }
}

extern "C" __global__ void __launch_bounds__(512) top_k(const float* logits, float* values, long long* ids, int n, int k,
                                                         int padded) {
    __shared__ double parts[CUT_PARTS];
    __shared__ int counts[32];
    __shared__ place_t places[MOST];
    const float* row = logits + (long long)blockIdx.x * n;
    int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    place_t cut = cut_at(row, nullptr, n, k, parts);

    share_t share = share_of_warp(n);
    int count = 0;
    for (int id = share.first + lane; id < share.last; id += 32) count += place_of(row[id], id) >= cut;
    count = warp_total(count);
    if (lane == 0) counts[warp] = count;
    for (int index = k + threadIdx.x; index < padded; index += blockDim.x) places[index] = 0;  // below every place
    __syncthreads();
    int start = 0;
    for (int each = 0; each < warp; each++) start += counts[each];
    for (int line = share.first; line < share.last; line += 32) {
        int id = line + lane;
        place_t place = id < share.last ? place_of(row[id], id) : 0;
        int kept = place >= cut && place, until = warp_running(kept);
        if (kept) places[start + until - 1] = place;
        start += __shfl_sync(ALL_LANES, until, 31);
    }
    __syncthreads();
    sort_places(places, padded);
    for (int index = threadIdx.x; index < k; index += blockDim.x) {
        int id = id_of(places[index]);
        values[(long long)blockIdx.x * k + index] = row[id];
        ids[(long long)blockIdx.x * k + index] = id;
    }
}

extern "C" __global__ void sums_of_chunks(const float* logits, const long long* best, double* sums, int n) {
    __shared__ double shared[32];
    const float* row = logits + (long long)blockIdx.x * n;
    double largest = row[best[blockIdx.x]], sum = 0;
    long long first = (long long)blockIdx.y * blockDim.x * ELEMENTS + threadIdx.x;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long id = first + each * blockDim.x;
        if (id < n) sum += exp(row[id] - largest);
    }
    sum = block_total(sum, shared);
    if (threadIdx.x == 0) sums[(long long)blockIdx.x * gridDim.y + blockIdx.y] = sum;
}

extern "C" __global__ void logsumexp(const float* logits, const long long* best, const double* sums, double* out, int n,
                                     int chunks) {
    double sum = 0;
    for (int chunk = threadIdx.x; chunk < chunks; chunk += 32) sum += sums[(long long)blockIdx.x * chunks + chunk];
    sum = warp_total(sum);
    if (threadIdx.x == 0) out[blockIdx.x] = logits[(long long)blockIdx.x * n + best[blockIdx.x]] + log(sum);
}

extern "C" __global__ void rank(const float* logits, const long long* tokens, long long* out, int n) {
    __shared__ int shared[32];
    const float* row = logits + (long long)blockIdx.x * n;
    long long token = tokens[blockIdx.x];
    place_t own = token >= 0 && token < n ? place_of(row[token], (int)token) : 0;
    int better = 0;
#pragma unroll 4
    for (int id = threadIdx.x; id < n; id += blockDim.x) better += place_of(row[id], id) > own;
    better = block_total(better, shared);
    if (threadIdx.x == 0) out[blockIdx.x] = better;
}

// out[row] = log probability of the token, its rank from 1 on, the k ids, their log probabilities
extern "C" __global__ void tell(const float* logits, const long long* tokens, const double* total, const long long* rank,
                                const float* values, const long long* ids, double* out, int n, int k) {
    long long row = blockIdx.x, token = tokens[row];
    out += row * (2 + 2 * k);
    if (threadIdx.x == 0) {
        out[0] = token >= 0 && token < n ? logits[row * n + token] - total[row] : (double)NAN;
        out[1] = (double)rank[row] + 1;
    }
    for (int each = threadIdx.x; each < k; each += blockDim.x) {
        out[2 + each] = (double)ids[row * k + each];
        out[2 + k + each] = values[row * k + each] - total[row];
    }
}

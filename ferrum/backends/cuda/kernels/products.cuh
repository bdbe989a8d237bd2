// Products of a few rows of weights with a few rows of activations, by one warp.
//
// A warp reads rows of weights from the left to the right without gaps, in sweeps: a lane takes the runs (see
// formats.cuh) that its own number gives it, then those one sweep farther on. The loads of some sweeps and all rows are on
// their way before anything is computed: memory that takes half a microsecond to answer is kept busy by nothing else.
// Activations come out of the first-level cache and serve all of the rows. The order in which a lane adds up depends on
// nothing but the format and the number of columns: the bits of a product are the same whatever other rows and tokens
// there are.

#include "formats.cuh"

// The product of every row with every token, each in a lane of its own: lane token * rows + row. `weights` and `x` point
// to where the rows begin.
template <class Format, int rows, int tokens>
__device__ __forceinline__ float products(const unsigned char* const (&weights)[rows], const float* const (&x)[tokens],
                                          int columns) {
    static_assert(rows * tokens <= 32, "a lane for each product");
    const int ahead = Format::ahead, run = Format::run, runs = Format::runs, sweep = 32 * run * runs;
    const int lane = threadIdx.x % 32, side = runs == 1 ? 32 : Format::apart / run;  // lanes whose runs lie side by side
    const int first = lane / side * side * run * runs + lane % side * run;
    float sums[tokens][rows] = {};
    for (int begin = 0; begin < columns; begin += ahead * sweep) {
        typename Format::stored stored[ahead][rows];
#pragma unroll
        for (int part = 0; part < ahead; part++) {
            int column = begin + part * sweep + first;
            if (column < columns) {
#pragma unroll
                for (int row = 0; row < rows; row++) stored[part][row] = Format::load(weights[row], column);
            }
        }
        __syncwarp();  // no lane needs it: it keeps the compiler from moving a load to where it is used
#pragma unroll
        for (int each = 0; each < ahead * runs; each++) {
            int part = each / runs, column = begin + part * sweep + first + each % runs * Format::apart;
            if (column < columns) {
                float decoded[rows][run];
#pragma unroll
                for (int row = 0; row < rows; row++) Format::decode(stored[part][row], column, decoded[row]);
#pragma unroll
                for (int token = 0; token < tokens; token++) {
#pragma unroll
                    for (int i = 0; i < run; i += 4) {
                        float4 four = *(const float4*)(x[token] + column + i);
#pragma unroll
                        for (int row = 0; row < rows; row++) {
                            float sum = fmaf(four.x, decoded[row][i], sums[token][row]);
                            sum = fmaf(four.y, decoded[row][i + 1], sum);
                            sum = fmaf(four.z, decoded[row][i + 2], sum);
                            sums[token][row] = fmaf(four.w, decoded[row][i + 3], sum);
                        }
                    }
                }
            }
        }
    }
    float own = 0;
#pragma unroll
    for (int each = 0; each < rows * tokens; each++) {
        float whole = warp_sum(sums[each / rows][each % rows]);
        if (lane == each) own = whole;
    }
    return own;
}

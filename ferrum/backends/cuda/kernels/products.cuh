// Products of a few rows of weights with a few rows of activations, by one warp.
//
// A warp reads rows of weights from left to right in sweeps. In a sweep each lane reads the runs (see formats.cuh) at
// its own number, so that the warp reads contiguous memory. The loads of several sweeps and all rows are started before
// anything is computed, because memory answers after half a microsecond. Activations are read from the first-level
// cache, once for all rows. The order of additions of a lane depends only on the format and the number of columns, so
// the bits of a product do not depend on the other rows and tokens.

#include "formats.cuh"

// The products of all rows and tokens: lane token * rows + row has the product of `row` and `token`. `weights` and `x`
// point to the first elements of the rows.
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

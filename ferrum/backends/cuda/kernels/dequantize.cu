// Decodes whole matrices, for products of many tokens.
//
//     dequantize:  out = weight.dequantize()          in float32, or rounded to bfloat16
//     rounded:     out = x.astype(bfloat16)
//
// Shapes: weights [rows, columns] in a FORMAT of formats.cuh, out [rows, columns] of out_t; x and out [count].
//
// A thread decodes one run of weights, four or eight neighbouring numbers. Neighbouring threads decode neighbouring
// runs, so that a warp reads and writes contiguous memory.

#include "formats.cuh"

#ifndef FORMAT
#define FORMAT q4_k
#endif
#ifndef out_t
#define out_t float
#endif

extern "C" __global__ void dequantize(const void* weights, out_t* out, int rows, int columns) {
    const int runs = columns / FORMAT::run;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)rows * runs) return;
    int row = (int)(index / runs), column = (int)(index % runs) * FORMAT::run;
    float decoded[FORMAT::run];
    const unsigned char* place_of_row = row_of<FORMAT>((const unsigned char*)weights, row, columns);
    FORMAT::decode(FORMAT::load(place_of_row, column), column, decoded);
    alignas(16) out_t made[FORMAT::run];
#pragma unroll
    for (int i = 0; i < FORMAT::run; i++) store(&made[i], decoded[i]);
    uint2* place = (uint2*)(out + index * FORMAT::run);
#pragma unroll
    for (int i = 0; i < (int)(sizeof(made) / sizeof(uint2)); i++) place[i] = ((const uint2*)made)[i];
}

extern "C" __global__ void rounded(const float* x, bfloat_t* out, long long count) {
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index < count) store(&out[index], x[index]);
}

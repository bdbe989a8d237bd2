// The row of a table for each token.
//
//     out = scale * table.dequantize()[token_ids]
//
// Shapes: table [vocab, columns] in a FORMAT of formats.cuh, token_ids [tokens], out [tokens, columns].
//
// A thread decodes one run of the row of a token; neighbouring threads decode neighbouring runs. A token id out of
// range gives NaN: nothing is read outside of the table, and the error is visible in the results.

#include "formats.cuh"

#ifndef FORMAT
#define FORMAT q4_k
#endif

extern "C" __global__ void embed(const void* table, const int* token_ids, float scale, int vocab, int tokens, int columns,
                                 float* out) {
    const int runs = columns / FORMAT::run;
    long long index = (long long)blockIdx.x * blockDim.x + threadIdx.x;
    if (index >= (long long)tokens * runs) return;
    int column = (int)(index % runs) * FORMAT::run, row = token_ids[index / runs];
    float decoded[FORMAT::run];
    if (row >= 0 && row < vocab) {
        const unsigned char* place = row_of<FORMAT>((const unsigned char*)table, row, columns);
        FORMAT::decode(FORMAT::load(place, column), column, decoded);
    } else {
        for (int i = 0; i < FORMAT::run; i++) decoded[i] = NAN;
    }
    float4* fours = (float4*)(out + index * FORMAT::run);
#pragma unroll
    for (int i = 0; i < FORMAT::run; i += 4)
        fours[i / 4] = make_float4(decoded[i] * scale, decoded[i + 1] * scale, decoded[i + 2] * scale, decoded[i + 3] * scale);
}

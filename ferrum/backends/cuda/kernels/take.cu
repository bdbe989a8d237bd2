// Rows of an array by their numbers.
//
//     out = x[numbers]
//
// Shapes: x [rows, columns], numbers [taken], out [taken, columns]; elements of any type of 1, 2, 4 or 8 bytes. A number
// below 0 or from `rows` on gives bytes of 0xff, which read as NaN: a kernel cannot raise, and must not read elsewhere.
//
// A block writes ELEMENTS * blockDim.x neighbours of one row, a thread ELEMENTS of them, blockDim.x apart.

#include "common.cuh"

#define ELEMENTS 4

#ifndef element_t
#define element_t unsigned
#define number_t int
#endif

extern "C" __global__ void take(const void* x, const number_t* numbers, void* out, long long rows, long long columns) {
    long long number = numbers[blockIdx.x], first = (long long)blockIdx.y * blockDim.x * ELEMENTS + threadIdx.x;
    bool known = number >= 0 && number < rows;
    const element_t* from = (const element_t*)x + number * columns;
    element_t* to = (element_t*)out + blockIdx.x * columns;
#pragma unroll
    for (int each = 0; each < ELEMENTS; each++) {
        long long column = first + each * blockDim.x;
        if (column < columns) to[column] = known ? from[column] : (element_t)~(element_t)0;
    }
}

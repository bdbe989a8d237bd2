// What CUDA C++ gives to a kernel, for the CPU: kernels are tested by it where there is no GPU.
//
// What it shows: missing and diverging barriers, shuffles that not every lane reaches, shared memory that is read before
// it is written (it holds 0xff at first), addresses that are not aligned for what is read there, indices beyond an array
// of known length, integers that overflow, and everything that a wrong index or a wrong formula does.
// What it cannot show: memory order between threads that no barrier separates but that run in order here, timing, bank
// conflicts, coalescing, tensor cores, asynchronous copies, what the compiler of a GPU makes of a text. Both compilers are
// told to round a product before it is added to something; exp, tanh and their like have last bits of their own.

#pragma once
#include <cmath>
#include "fibers.h"

#define FERRUM_SHIM
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(bytes) __attribute__((aligned(bytes)))
#define SHARED(type, name) type* name = reinterpret_cast<type*>(shim::dynamic_shared)

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) int2 {
    int x, y;
};
struct alignas(16) int4 {
    int x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline int2 make_int2(int x, int y) { return {x, y}; }
static inline int4 make_int4(int x, int y, int z, int w) { return {x, y, z, w}; }
static inline uint2 make_uint2(unsigned x, unsigned y) { return {x, y}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// ---- barriers and shuffles. `line` is where the caller stands: all threads must stand there

static inline void __syncthreads(int line = __builtin_LINE()) {
    if (line != shim::skipped) shim::stop(shim::AT_BARRIER, line);
}

namespace shim {

// what every lane of the mask offers can be read from slot number -> of it, once this returns
template <class T>
static int offered(unsigned mask, T value, int line) {
    static_assert(sizeof(T) == 4 || sizeof(T) == 8, "a shuffle moves 4 or 8 bytes");
    Fiber& own = fibers[current];
    int slot = own.turn++ & 1;  // the other slot may still be read by lanes that have not run since the last shuffle
    std::memcpy(&own.slots[slot], &value, sizeof(T));
    if (!(mask >> (current & 31) & 1)) fail(NOT_IN_MASK, line);
    own.mask = mask;
    stop(AT_SHUFFLE, line);
    return slot;
}

// the value of the lane `source`, from 0 to 31, of the same warp
template <class T>
static T exchanged(unsigned mask, T value, int source, int line) {
    int slot = offered(mask, value, line);
    if (!(mask >> source & 1)) fail(NOT_IN_MASK, line);
    T result;
    std::memcpy(&result, &fibers[(current & ~31) | source].slots[slot], sizeof(T));
    return result;
}

// the lanes are in groups of `width` next to each other; a lane outside the own group stands for the own
static inline int within(int lane, int width) {
    int own = current & 31;
    return (lane ^ own) & ~(width - 1) ? own : lane;
}

}  // namespace shim

static inline void __syncwarp(unsigned mask = 0xffffffffu, int line = __builtin_LINE()) {
    if (line != shim::skipped) shim::offered(mask, 0, line);
}
template <class T>
static T __shfl_sync(unsigned mask, T value, int lane, int width = 32, int line = __builtin_LINE()) {
    int first = shim::current & 31 & ~(width - 1);
    return shim::exchanged(mask, value, first | (lane & (width - 1)), line);
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int lanes, int width = 32, int line = __builtin_LINE()) {
    return shim::exchanged(mask, value, shim::within((shim::current & 31) ^ lanes, width), line);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, int distance, int width = 32, int line = __builtin_LINE()) {
    return shim::exchanged(mask, value, shim::within((shim::current & 31) + distance, width), line);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, int distance, int width = 32, int line = __builtin_LINE()) {
    return shim::exchanged(mask, value, shim::within((shim::current & 31) - distance, width), line);
}
static inline unsigned __ballot_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    int slot = shim::offered(mask, (unsigned)(predicate != 0), line);
    unsigned lanes = 0;
    for (int lane = 0; lane < 32; lane++)
        if (mask >> lane & 1) lanes |= (unsigned)shim::fibers[(shim::current & ~31) | lane].slots[slot] << lane;
    return lanes;
}
static inline int __any_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) != 0;
}
static inline int __all_sync(unsigned mask, int predicate, int line = __builtin_LINE()) {
    return __ballot_sync(mask, predicate, line) == mask;
}

// ---- numbers

namespace shim {

template <class To, class From>
static To same_bits(From x) {
    static_assert(sizeof(To) == sizeof(From), "as many bits");
    To y;
    std::memcpy(&y, &x, sizeof(To));
    return y;
}

static inline float half_to_float(unsigned short bits) {
    unsigned size = (unsigned)(bits & 0x7fff) << 13;                         // exponent and fraction in their places
    float x = same_bits<float>(size) * same_bits<float>(0x77800000u);        // times 2^112: the exponents count from
    unsigned sign = (unsigned)(bits & 0x8000) << 16;                         // other numbers; exact for subnormals, too
    if ((bits & 0x7c00) == 0x7c00) x = same_bits<float>(size | 0x7f800000u);  // inf, NaN
    return same_bits<float>(same_bits<unsigned>(x) | sign);
}

// to nearest, ties to even
static inline unsigned short float_to_half(float x) {
    unsigned bits = same_bits<unsigned>(x), size = bits & 0x7fffffff;
    unsigned short sign = (unsigned short)(bits >> 16 & 0x8000);
    if (size > 0x7f800000) return sign | 0x7e00;
    if (size >= 0x477ff000) return sign | 0x7c00;  // from 65520 on
    if (size < 0x38800000)  // below 2^-14: the sum with 0.5 ends where a subnormal float16 does
        return sign | (unsigned short)(same_bits<unsigned>(same_bits<float>(size) + 0.5f) - 0x3f000000u);
    return sign | (unsigned short)((size - (112u << 23) + 0xfff + (size >> 13 & 1)) >> 13);
}

}  // namespace shim

static inline float __uint_as_float(unsigned bits) { return shim::same_bits<float>(bits); }
static inline unsigned __float_as_uint(float x) { return shim::same_bits<unsigned>(x); }
static inline float __int_as_float(int bits) { return shim::same_bits<float>(bits); }
static inline int __float_as_int(float x) { return shim::same_bits<int>(x); }
static inline double __longlong_as_double(long long bits) { return shim::same_bits<double>(bits); }
static inline long long __double_as_longlong(double x) { return shim::same_bits<long long>(x); }
static inline unsigned long long __double_as_ulonglong(double x) { return shim::same_bits<unsigned long long>(x); }
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
static inline float __fadd_rn(float x, float y) { return x + y; }
static inline float __fmul_rn(float x, float y) { return x * y; }
static inline float __fmaf_rn(float x, float y, float z) { return std::fma(x, y, z); }
static inline float __fdiv_rn(float x, float y) { return x / y; }
static inline float __fsqrt_rn(float x) { return std::sqrt(x); }
static inline double __dadd_rn(double x, double y) { return x + y; }
static inline double __dmul_rn(double x, double y) { return x * y; }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __popcll(unsigned long long x) { return __builtin_popcountll(x); }
static inline int __ffs(int x) { return __builtin_ffs(x); }
static inline int __clz(int x) { return x ? __builtin_clz((unsigned)x) : 32; }
template <class T>
static T __ldg(const T* place) {
    return *place;
}
template <class T>
static inline T min(T x, T y) {
    return y < x ? y : x;
}
template <class T>
static inline T max(T x, T y) {
    return x < y ? y : x;
}

// ---- what g++ -fsanitize=... calls, instead of its own library, which would write to the console

#define SHIM_CHECK(name, what) \
    extern "C" void __ubsan_handle_##name(const char* const* place) { shim::fail(shim::what, *(const int*)(place + 1)); }
SHIM_CHECK(type_mismatch_v1, MISALIGNED)
SHIM_CHECK(out_of_bounds, OUT_OF_BOUNDS)
SHIM_CHECK(add_overflow, INT_OVERFLOW)
SHIM_CHECK(sub_overflow, INT_OVERFLOW)
SHIM_CHECK(mul_overflow, INT_OVERFLOW)
SHIM_CHECK(negate_overflow, INT_OVERFLOW)
SHIM_CHECK(shift_out_of_bounds, SHIFT_TOO_FAR)
SHIM_CHECK(divrem_overflow, DIVISION_BY_ZERO)

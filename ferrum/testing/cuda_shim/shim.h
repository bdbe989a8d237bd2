// Runs CUDA C++ kernels on the CPU, so that they can be tested where there is no GPU.
//
// Each thread of a block is a fiber: a stack of its own, and a place where it stopped. Fibers run one at a time, each up
// to its next barrier or shuffle, in an order that is drawn anew for every round: what depends on the order in which
// threads run gives other results at other seeds. Blocks run one after another, in an order that is drawn, too.
//
// What it shows: missing and diverging barriers, shuffles that not every lane reaches, shared memory that is read before
// it is written (it holds 0xff at first), everything that a wrong index or a wrong formula does.
// What it cannot show: memory order between threads that no barrier separates but that run in order here, timing, bank
// conflicts, coalescing, tensor cores, asynchronous copies, what the compiler of a GPU makes of a text.

#pragma once
#include <cmath>
#include <cstdint>
#include <cstdio>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>
#include <vector>

#define FERRUM_SHIM
#define __global__
#define __device__
#define __host__
#define __constant__ static const
#define __forceinline__ inline
#define __launch_bounds__(threads)
#define __shared__ static __attribute__((section("shim_shared")))
#define SHARED(type, name) type* name = reinterpret_cast<type*>(shim::dynamic_shared)

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

struct alignas(8) float2 {
    float x, y;
};
struct alignas(16) float4 {
    float x, y, z, w;
};
struct alignas(8) uint2 {
    unsigned x, y;
};
struct alignas(16) uint4 {
    unsigned x, y, z, w;
};
static inline float2 make_float2(float x, float y) { return {x, y}; }
static inline float4 make_float4(float x, float y, float z, float w) { return {x, y, z, w}; }
static inline uint4 make_uint4(unsigned x, unsigned y, unsigned z, unsigned w) { return {x, y, z, w}; }

// every __shared__ variable lies in one section, whose ends the linker knows
extern "C" char __start_shim_shared[] __attribute__((weak));
extern "C" char __stop_shim_shared[] __attribute__((weak));

namespace shim {

// ---- fibers: a switch saves the registers that a function must keep, and takes another stack

extern "C" void shim_switch(void** from, void* to);
#if defined(__x86_64__)
asm(".text\n"
    ".globl shim_switch\n"
    ".type shim_switch, @function\n"
    "shim_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size shim_switch, .-shim_switch\n");
#else
#error "the shim switches between fibers on x86-64 only"
#endif

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };
enum Fault { NONE, STUCK, BARRIER_MISSED, LANE_MISSED };

struct Fiber {
    void* stack_pointer;
    State state;
    dim3 index;
    unsigned mask;       // lanes that the shuffle it waits at is for
    unsigned turn;       // shuffles so far: which of the two slots is in use
    uint64_t slots[2];   // what it offers to the other lanes
};

static const size_t STACK = 64 << 10;
static const int MOST_THREADS = 1024;
static Fiber fibers[MOST_THREADS];
static int current, count;
static void* scheduler_stack;
static char* stacks;
static unsigned char* dynamic_shared;
static void (*entry)(void**);
static void** arguments;
static uint64_t random_state;

static unsigned drawn(unsigned below) {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (unsigned)((random_state * 2685821657736338717ull >> 33) % below);
}

static void shuffle(int* order, int length) {
    for (int i = length - 1; i > 0; i--) {
        int other = drawn(i + 1), held = order[i];
        order[i] = order[other];
        order[other] = held;
    }
}

static void stop(State state) {
    fibers[current].state = state;
    shim_switch(&fibers[current].stack_pointer, scheduler_stack);
}

static void run_thread() {
    entry(arguments);
    stop(DONE);
    abort();  // nobody continues a thread that is done
}

static void prepare(int thread) {
    uint64_t* top = reinterpret_cast<uint64_t*>(stacks + (thread + 1) * STACK - 64);
    *--top = 0;  // where a caller's address would be, so that the stack is aligned as after a call
    *--top = reinterpret_cast<uint64_t>(&run_thread);
    for (int i = 0; i < 6; i++) *--top = 0;
    Fiber& fiber = fibers[thread];
    fiber.stack_pointer = top;
    fiber.state = READY;
    fiber.turn = 0;
    fiber.index = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
}

// the lanes of a warp go on when each of those that a shuffle is for has come to it
static Fault release_shuffles(bool* ran) {
    for (int warp = 0; warp < count; warp += 32) {
        int lanes = count - warp < 32 ? count - warp : 32;
        unsigned waiting = 0, gone = 0;
        for (int lane = 0; lane < lanes; lane++) {
            waiting |= (unsigned)(fibers[warp + lane].state == AT_SHUFFLE) << lane;
            gone |= (unsigned)(fibers[warp + lane].state == DONE) << lane;
        }
        for (int lane = 0; lane < lanes; lane++) {
            Fiber& fiber = fibers[warp + lane];
            if (fiber.state != AT_SHUFFLE) continue;
            if (fiber.mask & gone) return LANE_MISSED;
            if ((fiber.mask & ~waiting) != 0) continue;
            unsigned mask = fiber.mask;
            for (int each = 0; each < lanes; each++)
                if (mask >> each & 1) fibers[warp + each].state = READY;
            *ran = true;
        }
    }
    return NONE;
}

// all threads of a block go on when each has come to the barrier
static Fault release_barrier(bool* ran, bool* alive) {
    int at_barrier = 0, done = 0;
    for (int thread = 0; thread < count; thread++) {
        at_barrier += fibers[thread].state == AT_BARRIER;
        done += fibers[thread].state == DONE;
    }
    *alive = done < count;
    if (at_barrier && at_barrier + done == count) {
        if (done) return BARRIER_MISSED;
        for (int thread = 0; thread < count; thread++) fibers[thread].state = READY;
        *ran = true;
    }
    return NONE;
}

static Fault run_block() {
    static int order[MOST_THREADS];
    for (int thread = 0; thread < count; thread++) prepare(thread), order[thread] = thread;
    for (bool alive = true; alive;) {
        bool ran = false;
        shuffle(order, count);
        for (int i = 0; i < count; i++) {
            if (fibers[order[i]].state != READY) continue;
            current = order[i];
            threadIdx = fibers[current].index;
            ran = true;
            shim_switch(&scheduler_stack, fibers[current].stack_pointer);
        }
        if (Fault fault = release_shuffles(&ran)) return fault;
        if (Fault fault = release_barrier(&ran, &alive)) return fault;
        if (alive && !ran) return STUCK;
    }
    return NONE;
}

// ---- what kernels call

template <class T>
static T exchanged(unsigned mask, T value, int source) {
    static_assert(sizeof(T) <= 8, "a shuffle moves at most 8 bytes");
    Fiber& own = fibers[current];
    int slot = own.turn++ & 1;  // the other slot may still be read by lanes that have not run since the last shuffle
    std::memcpy(&own.slots[slot], &value, sizeof(T));
    own.mask = mask;
    stop(AT_SHUFFLE);
    T result = value;
    int from = (current & ~31) | (source & 31);
    if (from < count && (mask >> (source & 31) & 1)) std::memcpy(&result, &fibers[from].slots[slot], sizeof(T));
    return result;
}

static inline float half_to_float(unsigned short bits) {
    unsigned sign = (bits & 0x8000u) << 16, exponent = bits >> 10 & 31, fraction = bits & 0x3ff;
    float size;
    if (exponent == 31) size = fraction ? NAN : INFINITY;
    else if (exponent) size = std::ldexp(1024.0f + fraction, (int)exponent - 25);
    else size = std::ldexp((float)fraction, -24);
    unsigned word;
    std::memcpy(&word, &size, 4);
    word |= sign;
    std::memcpy(&size, &word, 4);
    return size;
}

// to nearest, ties to even: the rounding of the processor does it, at the place where a float16 ends
static inline unsigned short float_to_half(float x) {
    unsigned short sign = std::signbit(x) ? 0x8000 : 0;
    if (x != x) return sign | 0x7e00;
    float size = std::fabs(x);
    if (size == 0) return sign;
    if (size >= 65520.0f) return sign | 0x7c00;
    int exponent;
    std::frexp(size, &exponent);
    int place = exponent - 11 < -24 ? -24 : exponent - 11;  // of the last bit
    int steps = (int)std::nearbyint(std::ldexp(size, -place));
    if (place == -24) return sign | (unsigned short)steps;  // subnormal, or the smallest that is not
    if (steps == 2048) steps = 1024, place++;
    return sign | (unsigned short)((place + 25) << 10 | (steps - 1024));
}

}  // namespace shim

static inline void __syncthreads() { shim::stop(shim::AT_BARRIER); }
static inline void __syncwarp(unsigned mask = 0xffffffffu) {
    shim::fibers[shim::current].mask = mask;
    shim::stop(shim::AT_SHUFFLE);
}
template <class T>
static T __shfl_xor_sync(unsigned mask, T value, int lanes) {
    return shim::exchanged(mask, value, (shim::current & 31) ^ lanes);
}
template <class T>
static T __shfl_sync(unsigned mask, T value, int lane) {
    return shim::exchanged(mask, value, lane);
}
template <class T>
static T __shfl_down_sync(unsigned mask, T value, int distance) {
    int lane = (shim::current & 31) + distance;
    return shim::exchanged(mask, value, lane < 32 ? lane : shim::current & 31);
}
template <class T>
static T __shfl_up_sync(unsigned mask, T value, int distance) {
    int lane = (shim::current & 31) - distance;
    return shim::exchanged(mask, value, lane >= 0 ? lane : shim::current & 31);
}
static inline float __uint_as_float(unsigned bits) {
    float x;
    std::memcpy(&x, &bits, 4);
    return x;
}
static inline unsigned __float_as_uint(float x) {
    unsigned bits;
    std::memcpy(&bits, &x, 4);
    return bits;
}
static inline unsigned long long __double_as_ulonglong(double x) {
    unsigned long long bits;
    std::memcpy(&bits, &x, 8);
    return bits;
}
static inline float rsqrtf(float x) { return 1.0f / std::sqrt(x); }
static inline double rsqrt(double x) { return 1.0 / std::sqrt(x); }
static inline int __popc(unsigned x) { return __builtin_popcount(x); }
static inline int __ffs(unsigned x) { return __builtin_ffs((int)x); }
static inline int min(int x, int y) { return x < y ? x : y; }
static inline int max(int x, int y) { return x > y ? x : y; }

// Runs a kernel whose arguments lie at `a`; `call` hands them over. -> 0, or the fault that ended it.
extern "C" int shim_launch(void (*call)(void**), void** a, const unsigned* grid, const unsigned* block,
                           unsigned shared_bytes, uint64_t seed) {
    using namespace shim;
    if (!stacks) {
        void* memory = mmap(nullptr, MOST_THREADS * STACK, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return STUCK;
        stacks = static_cast<char*>(memory);
    }
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    count = (int)(block[0] * block[1] * block[2]);
    entry = call;
    arguments = a;
    random_state = seed * 0x9e3779b97f4a7c15ull | 1;
    dynamic_shared = static_cast<unsigned char*>(aligned_alloc(16, (shared_bytes + 31) / 16 * 16));
    std::vector<int> order((size_t)grid[0] * grid[1] * grid[2]);
    for (size_t i = 0; i < order.size(); i++) order[i] = (int)i;
    shuffle(order.data(), (int)order.size());
    Fault fault = NONE;
    for (int number : order) {
        blockIdx = {number % grid[0], number / grid[0] % grid[1], number / (grid[0] * grid[1])};
        std::memset(dynamic_shared, 0xff, (shared_bytes + 31) / 16 * 16);
        if (__start_shim_shared) std::memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
        fault = run_block();
        if (fault) break;
    }
    free(dynamic_shared);
    return fault;
}

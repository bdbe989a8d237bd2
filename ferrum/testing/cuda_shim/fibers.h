// Threads of a block as fibers: each has a stack of its own, and a place where it stopped.
//
// One fiber runs at a time, up to its next barrier or shuffle. Which warp goes next and in what order its lanes go is
// drawn: at times every warp moves a step in turn, at times one warp runs ahead of the others as far as a barrier lets
// it. What depends on the order in which threads run gives other results at other seeds.

#pragma once
#include <csignal>
#include <cstdint>
#include <cstdlib>
#include <cstring>
#include <sys/mman.h>

struct dim3 {
    unsigned x, y, z;
};
static dim3 threadIdx, blockIdx, blockDim, gridDim;

// every __shared__ variable lies in one section, whose ends the linker knows
#define __shared__ static __attribute__((section("shim_shared")))
extern "C" char __start_shim_shared[] __attribute__((weak));
extern "C" char __stop_shim_shared[] __attribute__((weak));

namespace shim {

static const size_t STACK = (64 << 10) + 192;  // not a power of two: stacks would share the same lines of the cache
static const int MOST_THREADS = 1024, MOST_WARPS = 32;

// ---- from one fiber to another

#if defined(__x86_64__) && !defined(SHIM_PORTABLE)
// a switch saves the registers that a function must keep on the stack it leaves, and takes them from the other
typedef void* Place;
extern "C" void shim_switch(Place* left, Place entered);
asm(".text\n"
    ".local shim_switch\n"
    ".type shim_switch, @function\n"
    "shim_switch:\n"
    "  pushq %rbp\n  pushq %rbx\n  pushq %r12\n  pushq %r13\n  pushq %r14\n  pushq %r15\n"
    "  movq %rsp, (%rdi)\n"
    "  movq %rsi, %rsp\n"
    "  popq %r15\n  popq %r14\n  popq %r13\n  popq %r12\n  popq %rbx\n  popq %rbp\n"
    "  ret\n"
    ".size shim_switch, .-shim_switch\n");

static void go(Place* left, Place* entered) { shim_switch(left, *entered); }

static void begin(Place* place, char* stack, void (*run)()) {
    uint64_t* top = reinterpret_cast<uint64_t*>(stack + STACK - 64);
    *--top = 0;  // where a caller's address would be, so that the stack is aligned as after a call
    *--top = reinterpret_cast<uint64_t>(run);
    for (int i = 0; i < 6; i++) *--top = 0;
    *place = top;
}
#else
}  // namespace shim
#include <ucontext.h>
namespace shim {
typedef ucontext_t Place;

static void go(Place* left, Place* entered) { swapcontext(left, entered); }

static void begin(Place* place, char* stack, void (*run)()) {
    getcontext(place);
    place->uc_stack.ss_sp = stack;
    place->uc_stack.ss_size = STACK;
    place->uc_link = nullptr;
    makecontext(place, run, 0);
}
#endif

// ---- the threads of the block that runs

enum State { READY, AT_BARRIER, AT_SHUFFLE, DONE };

// the numbers are known to module.py
enum Fault {
    NONE, NO_MEMORY, STUCK, BARRIER_MISSED, BARRIERS_DIFFER, LANE_MISSED, SHUFFLES_DIFFER, NOT_IN_MASK, SHARED_EXCEEDED,
    STACK_EXCEEDED, NO_ADDRESS, MISALIGNED, OUT_OF_BOUNDS, INT_OVERFLOW, SHIFT_TOO_FAR, DIVISION_BY_ZERO
};

struct Fiber {
    Place place;
    State state;
    dim3 index;
    int line;           // of the barrier or shuffle that it waits at
    unsigned mask;      // lanes that the shuffle is for
    unsigned turn;      // shuffles so far: which of the two slots is in use
    uint64_t slots[2];  // what it offers to the other lanes
};

static Fiber fibers[MOST_THREADS];
static int count;       // threads of a block
static int current;     // the fiber that runs
static int skipped;     // barriers on this line do nothing: a test checks that a missing barrier is found
static Fault fault;
static int fault_line;
static Place scheduler;
static char* stacks;
static unsigned char* dynamic_shared;
static void (*entry)(void**);
static void** arguments;
static uint64_t random_state;
static const uint64_t UNTOUCHED = 0x5afe5afe5afe5afeull;  // at the far end of every stack

static unsigned drawn(unsigned below) {  // xorshift64*
    random_state ^= random_state >> 12;
    random_state ^= random_state << 25;
    random_state ^= random_state >> 27;
    return (unsigned)((random_state * 2685821657736338717ull >> 32) * below >> 32);
}

static void shuffle(int* order, int length) {
    for (int i = length - 1; i > 0; i--) {
        int other = drawn(i + 1), held = order[i];
        order[i] = order[other];
        order[other] = held;
    }
}

static bool failed(Fault what, int line) {
    fault = what;
    fault_line = line;
    return true;
}

static void stop(State state, int line) {
    fibers[current].state = state;
    fibers[current].line = line;
    go(&fibers[current].place, &scheduler);
}

// called by a thread, which does not go on
[[noreturn]] static void fail(Fault what, int line) {
    failed(what, line);
    stop(DONE, line);
    abort();
}

// the first lies above an unused stack: an overflow of the first is found at its end, inside of the memory
static char* stack_of(int thread) { return stacks + (thread + 1) * STACK; }

static uint64_t* far_end(int thread) { return reinterpret_cast<uint64_t*>(stack_of(thread)); }

static void run_thread() {
    entry(arguments);
    stop(DONE, 0);
    abort();  // a thread that has ended is never continued
}

static void begin_thread(int thread) {
    Fiber& fiber = fibers[thread];
    begin(&fiber.place, stack_of(thread), run_thread);
    fiber.state = READY;
    fiber.turn = 0;
    fiber.index = {thread % blockDim.x, thread / blockDim.x % blockDim.y, thread / (blockDim.x * blockDim.y)};
    *far_end(thread) = UNTOUCHED;
}

// ---- who goes on

// lanes go on when each of those that their shuffle is for has come to it. -> can any of the warp go on?
static bool release_shuffles(int first) {
    unsigned waiting = 0, done = 0, ready = 0;
    for (int lane = 0; lane < 32; lane++) {
        State state = fibers[first + lane].state;
        waiting |= (unsigned)(state == AT_SHUFFLE) << lane;
        done |= (unsigned)(state == DONE) << lane;
        ready |= (unsigned)(state == READY) << lane;
    }
    while (waiting) {
        Fiber& asking = fibers[first + __builtin_ctz(waiting)];
        unsigned mask = asking.mask;
        waiting &= waiting - 1;
        if (mask & done) return failed(LANE_MISSED, asking.line);
        bool complete = true;
        for (int lane = 0; lane < 32; lane++)
            complete &= !(mask >> lane & 1) || fibers[first + lane].state == AT_SHUFFLE;
        if (!complete) continue;
        for (int lane = 0; lane < 32; lane++) {
            if (!(mask >> lane & 1)) continue;
            Fiber& other = fibers[first + lane];
            if (other.mask != mask || other.line != asking.line) return failed(SHUFFLES_DIFFER, asking.line);
            other.state = READY;
        }
        waiting &= ~mask;
        ready |= mask;
    }
    return ready != 0;
}

// every lane that can, in one of 512 orders, up to where it waits. -> can any of the warp go on?
static bool run_warp(int warp) {
    unsigned start = drawn(32), step = 2 * drawn(16) + 1;
    for (unsigned i = 0; i < 32; i++) {
        int thread = warp * 32 + (start + i * step) % 32;
        if (fibers[thread].state != READY) continue;
        current = thread;
        threadIdx = fibers[thread].index;
        go(&scheduler, &fibers[thread].place);
        if (*far_end(thread) != UNTOUCHED) return failed(STACK_EXCEEDED, fibers[thread].line);
        if (fault) return true;
    }
    return release_shuffles(warp * 32);
}

// all threads go on when each has come to the same barrier. -> is any left?
static bool release_barrier() {
    int at_barrier = 0, done = 0, line = 0;
    for (int thread = 0; thread < count; thread++) {
        Fiber& fiber = fibers[thread];
        done += fiber.state == DONE;
        if (fiber.state == AT_SHUFFLE) return failed(STUCK, fiber.line);
        if (fiber.state != AT_BARRIER) continue;
        if (at_barrier++ && fiber.line != line) return failed(BARRIERS_DIFFER, line);
        line = fiber.line;
    }
    if (at_barrier && done) return failed(BARRIER_MISSED, line);
    for (int thread = 0; thread < count && at_barrier; thread++) fibers[thread].state = READY;
    return at_barrier != 0;
}

// every warp as far as it can go without a barrier for all
static void run_warps(int* order) {
    int left = count / 32;
    bool one_ahead = drawn(2);
    shuffle(order, left);
    while (left && !fault) {
        int place = one_ahead ? left - 1 : (int)drawn(left), warp = order[place];
        if (run_warp(warp)) continue;
        order[place] = order[--left];
        order[left] = warp;
    }
}

static void run_block() {
    int order[MOST_WARPS];
    for (int thread = 0; thread < count; thread++) begin_thread(thread);
    for (int warp = 0; warp < count / 32; warp++) order[warp] = warp;
    do run_warps(order);
    while (!fault && release_barrier() && !fault);
}

// ---- blocks, one after another in a drawn order

static const size_t AROUND = 64;  // bytes behind dynamic shared memory that no kernel may write to

static bool shared_exceeded(size_t bytes) {
    for (size_t i = 0; i < AROUND; i++)
        if (dynamic_shared[bytes + i] != 0xff) return true;
    return false;
}

static void run_blocks(size_t shared_bytes) {
    uint64_t blocks = (uint64_t)gridDim.x * gridDim.y * gridDim.z;
    uint32_t* order = static_cast<uint32_t*>(std::malloc(blocks * sizeof(uint32_t)));
    if (!order) return (void)failed(NO_MEMORY, 0);
    for (uint64_t i = 0; i < blocks; i++) {  // each drawn number goes to a drawn place among those before it
        uint32_t other = drawn((uint32_t)i + 1);
        order[i] = order[other];
        order[other] = (uint32_t)i;
    }
    for (uint64_t i = 0; i < blocks && !fault; i++) {
        uint32_t number = order[i];
        blockIdx = {number % gridDim.x, number / gridDim.x % gridDim.y, number / (gridDim.x * gridDim.y)};
        std::memset(dynamic_shared, 0xff, shared_bytes + AROUND);
        if (__start_shim_shared) std::memset(__start_shim_shared, 0xff, __stop_shim_shared - __start_shim_shared);
        run_block();
        if (!fault && shared_exceeded(shared_bytes)) failed(SHARED_EXCEEDED, 0);
    }
    std::free(order);
}

// a thread that reads or writes where no memory is ends there; the signal has a stack of its own, as the thread's may be
// what it has left
static void on_bad_address(int) { fail(NO_ADDRESS, 0); }

static void run_with_signals(size_t shared_bytes) {
    static char signal_stack[64 << 10];
    stack_t own = {}, others_stack;
    own.ss_sp = signal_stack;
    own.ss_size = sizeof signal_stack;
    struct sigaction bad = {}, others_fault, others_bus;
    bad.sa_handler = on_bad_address;
    bad.sa_flags = SA_ONSTACK | SA_NODEFER;
    sigaltstack(&own, &others_stack);
    sigaction(SIGSEGV, &bad, &others_fault);
    sigaction(SIGBUS, &bad, &others_bus);
    run_blocks(shared_bytes);
    sigaction(SIGBUS, &others_bus, nullptr);
    sigaction(SIGSEGV, &others_fault, nullptr);
    sigaltstack(&others_stack, nullptr);
}

// Runs a kernel whose arguments lie at `a`; `call` hands them over. -> 0, or the fault that ended it and its line.
extern "C" int shim_launch(void (*call)(void**), void** a, const unsigned* grid, const unsigned* block,
                           unsigned shared_bytes, uint64_t seed, int without) {
    if (!stacks) {
        size_t bytes = (MOST_THREADS + 1) * STACK;
        void* memory = mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED) return NO_MEMORY;
        stacks = static_cast<char*>(memory);
    }
    size_t bytes = ((size_t)shared_bytes + AROUND + 127) / 64 * 64;
    dynamic_shared = static_cast<unsigned char*>(aligned_alloc(64, bytes));
    if (!dynamic_shared) return NO_MEMORY;
    gridDim = {grid[0], grid[1], grid[2]};
    blockDim = {block[0], block[1], block[2]};
    count = (int)(block[0] * block[1] * block[2]);
    entry = call;
    arguments = a;
    random_state = seed * 0x9e3779b97f4a7c15ull | 1;
    skipped = without;
    failed(NONE, 0);
    run_with_signals(shared_bytes);
    std::free(dynamic_shared);
    return fault | fault_line << 8;
}

}  // namespace shim

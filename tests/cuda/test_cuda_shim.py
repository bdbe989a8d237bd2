"""CUDA-10, CUDA-11, CUDA-13, CUDA-17: kernels on the CPU show what a GPU would do wrong."""

from __future__ import annotations

import gc
import os

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import DeviceError
from ferrum.testing.cuda_shim.module import LARGEST_GRID, MOST_SHARED
from tests.cuda.shim import SCHEDULES
from tests.cuda.texts import COMMON, GLOBAL, SEEDS, kernel, result


@pytest.mark.clause("CUDA-17")
def test_a_text_is_not_taken_for_another_one() -> None:
    """However often numbers of open files are used again."""
    gc.collect()  # what earlier tests have left open
    before = len(os.listdir("/proc/self/fd"))
    for number in range(4):
        gc.collect()
        assert (result(f"y[t] = {number}.5f;") == number + 0.5).all()
    gc.collect()
    assert len(os.listdir("/proc/self/fd")) <= before


# ---- the order of threads and of blocks
REVERSED = "__shared__ float held[64];\nheld[t] = (float)t;\n__syncthreads();\ny[t] = held[63 - t];"


@pytest.mark.clause("CUDA-10")
@pytest.mark.parametrize("options", [(), ("-DSHIM_PORTABLE",)], ids=["assembler", "ucontext"])
@pytest.mark.parametrize("seed", SCHEDULES)
@pytest.mark.parametrize("threads", [32, 64, 96, 512, 1024])
def test_a_sum_of_a_block_is_right_in_every_order(threads: int, seed: int, options: tuple[str, ...]) -> None:
    y = result(
        "__shared__ float parts[32]; y[t] = block_sum((float)(t + 1), parts);", threads, seed=seed, options=options
    )
    assert (y == threads * (threads + 1) / 2).all()
    y = result(
        "__shared__ float parts[32]; y[t] = block_max((float)(t ^ 21), parts);", threads, seed=seed, options=options
    )
    assert (y == (np.arange(threads) ^ 21).max()).all()


@pytest.mark.clause("CUDA-10")
@pytest.mark.parametrize("shared", ["__shared__ float held[64];", "SHARED(float, held);"])
def test_a_missing_barrier_is_seen(shared: str) -> None:
    """What a thread reads before another has written it is NaN."""
    whole = REVERSED.replace("__shared__ float held[64];", shared)
    results = [result(whole, seed=seed, shared=256) for seed in SEEDS]
    assert all((each == np.arange(64)[::-1]).all() for each in results)
    missing = [result(whole.replace("__syncthreads();", ""), seed=seed, shared=256) for seed in SEEDS]
    assert all(np.isnan(each).any() and not np.isnan(each).all() for each in missing)
    assert len({each.tobytes() for each in missing}) > 1
    line = 1 + COMMON.count("\n") + 1 + REVERSED[: REVERSED.index("__syncthreads")].count("\n") + 1
    skipped = [result(whole, seed=seed, shared=256, without=line) for seed in SEEDS]
    assert [each.tobytes() for each in skipped] == [each.tobytes() for each in missing]


@pytest.mark.clause("CUDA-10")
def test_a_missing_barrier_before_the_next_round_is_seen() -> None:
    """A warp runs ahead of another, through shuffles of its own, and writes what the other has yet to read."""
    rounds = """
        __shared__ float held[64];
        float sum = 0;
        for (int round = 0; round < 3; round++) {
            held[t] = warp_sum((float)round);
            __syncthreads();
            sum += held[63 - t];
            __syncthreads();
        }
        y[t] = sum;
    """
    assert all((result(rounds, seed=seed) == 96).all() for seed in SEEDS)
    missing = rounds.replace("sum += held[63 - t];\n            __syncthreads();", "sum += held[63 - t];")
    assert any((result(missing, seed=seed) != 96).any() for seed in SEEDS)


@pytest.mark.clause("CUDA-10")
def test_a_warp_may_run_ahead_of_another_by_any_number_of_steps() -> None:
    """y: by how many steps each of three warps was ahead of both others at most. All begin at -1: not written."""
    body = """
        __shared__ int steps[3];
        for (int step = 0; step < 40; step++) {
            int warp = t / 32;
            if (t % 32 == 0) {
                steps[warp]++;
                y[warp] = max(y[warp], (float)(steps[warp] - max(steps[(warp + 1) % 3], steps[(warp + 2) % 3])));
            }
            __syncwarp();
        }
    """
    ahead = [result(body, 96, seed=seed)[:3].astype(int).tolist() for seed in range(1, 41)]
    assert {each.index(40) for each in ahead if 40 in each} == {0, 1, 2}
    assert any(max(each) < 20 for each in ahead)


@pytest.mark.clause("CUDA-10")
def test_a_missing_barrier_of_a_warp_is_seen() -> None:
    whole = REVERSED.replace("__syncthreads()", "__syncwarp()").replace("63 - t", "t ^ 1")
    assert all((result(whole, seed=seed) == np.arange(64) ^ 1).all() for seed in SEEDS)
    missing = [result(whole.replace("__syncwarp();", ""), seed=seed) for seed in SEEDS]
    assert all(np.isnan(each).any() for each in missing)


@pytest.mark.clause("CUDA-10")
def test_every_thread_of_a_warp_may_come_before_every_other() -> None:
    """Which lane wrote last, over many orders."""
    last = {
        int(result("__shared__ int held[1]; held[0] = t;\n__syncwarp(); y[t] = held[0];", 32, seed=s)[0])
        for s in range(400)
    }
    assert last == set(range(32))


@pytest.mark.clause("CUDA-10")
def test_lanes_come_in_orders_of_many_kinds() -> None:
    """By how much the next lane's number is larger, modulo 32."""
    body = "__shared__ int held[1]; if (t == 0) held[0] = 0;\n__syncwarp(); y[t] = held[0]++;"
    steps = set()
    for seed in range(1, 101):
        order = np.argsort(result(body, 32, seed=seed))
        assert sorted(order) == list(range(32))
        steps |= set(((order[1:] - order[:-1]) % 32).tolist())
    assert steps >= {1, 3, 15, 17, 29, 31}


@pytest.mark.clause("CUDA-10")
def test_the_order_of_blocks_is_drawn() -> None:
    text = f"{GLOBAL} f(int* last, int* count) {{ if (!threadIdx.x) last[(*count)++] = blockIdx.x; }}"
    orders = set()
    for seed in SEEDS:
        last, count = np.zeros(50, np.int32), np.zeros(1, np.int32)
        kernel(text, seed=seed)((50,), (32,), last, count)
        assert sorted(last) == list(range(50))
        orders.add(last.tobytes())
    assert len(orders) == len(SEEDS)


@pytest.mark.clause("CUDA-10")
def test_launches_of_one_module_have_different_orders_and_the_same_ones_in_every_run() -> None:
    def orders() -> list[bytes]:
        module = kernel(f"{GLOBAL} f(int* last, int* count) {{ if (!threadIdx.x) last[(*count)++] = blockIdx.x; }}")
        last = [np.zeros(50, np.int32) for _ in range(5)]
        for each in last:
            module((50,), (32,), each, np.zeros(1, np.int32))
        return [each.tobytes() for each in last]

    assert len(set(orders())) == 5 and orders() == orders()


@pytest.mark.clause("CUDA-10")
@given(
    st.tuples(*[st.integers(1, 4)] * 3),
    st.sampled_from([(32,), (16, 2), (4, 4, 4), (1, 32, 2), (2, 3, 16), (1, 1, 64)]),
)
def test_threads_and_blocks_have_three_numbers(grid: tuple[int, ...], block: tuple[int, ...]) -> None:
    text = f"""{GLOBAL} f(int* y) {{
        long long block = blockIdx.x + gridDim.x * (blockIdx.y + gridDim.y * blockIdx.z);
        int thread = threadIdx.x + blockDim.x * (threadIdx.y + blockDim.y * threadIdx.z);
        y[block * (blockDim.x * blockDim.y * blockDim.z) + thread] += 1 + block * 1000 + thread;
    }}"""
    blocks, threads = int(np.prod(grid)), int(np.prod(block))
    y = np.zeros((blocks, threads), np.int32)
    kernel(text)(grid, block, y)
    assert (y == 1 + np.arange(blocks)[:, None] * 1000 + np.arange(threads)).all()


# ---- what is wrong with barriers and shuffles
@pytest.mark.clause("CUDA-11")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("if (t != 5) __syncthreads();", "some threads ended without coming to the barrier at which others wait"),
        ("if (t < 32)\n__syncthreads();\nelse\n__syncthreads();", "threads wait at different barriers"),
        ("if (t == 3) return; warp_sum(1);", "a lane waits for one that has ended"),
        ("if (t == 3) __syncthreads(); else warp_sum(1);", "a lane waits for one that waits elsewhere"),
        ("if (t == 3)\nwarp_max(1); else\n{__shfl_sync(ALL_LANES, 1, 0);}", "stand at different lines"),
        ("if (t == 3) __syncwarp(); else\nwarp_sum(1);", "stand at different lines"),
        ("__shfl_sync(t == 3 ? 0xffu : ALL_LANES, 1, 0);", "name different lanes"),
        ("__shfl_sync(0xffffu, 1, 0);", "a lane takes part in a shuffle that is not for it"),
        ("if (t % 32 < 16) __shfl_sync(0xffffu, 1, 16);", "reads from one that takes no part"),
        ("if (t % 32 < 16) __shfl_xor_sync(0xffffu, 1, 16);", "reads from one that takes no part"),
    ],
)
def test_threads_that_do_not_meet_are_an_error(body: str, sentence: str) -> None:
    for seed in SEEDS:
        with pytest.raises(DeviceError, match=sentence):
            result(body, seed=seed)
    assert (result("y[t] = 1;") == 1).all()  # and the next launch works


@pytest.mark.clause("CUDA-11")
def test_an_error_shows_the_line() -> None:
    with pytest.raises(DeviceError, match=r"^kernel f: some threads .*, at `if \(t\) __syncthreads\(\);`$"):
        result("y[t] = 0;\nif (t) __syncthreads();\n")


@pytest.mark.clause("CUDA-11")
def test_a_kernel_that_failed_can_be_launched_again() -> None:
    run = kernel(f"{GLOBAL} f(float* y, int least) {{\nif ((int)threadIdx.x >= least) __syncthreads(); y[0] = 5; }}")
    y = np.zeros(1, np.float32)
    for _ in range(2):
        with pytest.raises(DeviceError, match="some threads ended"):
            run((3,), (64,), y, 1)
        y[0] = 0
        run((3,), (64,), y, 0)
        assert y[0] == 5


@pytest.mark.clause("CUDA-11")
def test_lanes_may_meet_in_groups() -> None:
    body = """
        unsigned own = t % 32 < 8 ? 0xffu : 0xffffff00u;
        float x = __shfl_sync(own, (float)t, t % 32 < 8 ? 7 : 31);
        if (t % 32 < 8) x += __shfl_xor_sync(0xffu, (float)t, 1);
        y[t] = x;
    """
    lanes = np.arange(64) % 32
    expected = np.where(lanes < 8, 7 + (np.arange(64) ^ 1), 31) + np.arange(64) // 32 * 32
    assert all((result(body, seed=seed) == expected).all() for seed in SEEDS)


# ---- memory
@pytest.mark.clause("CUDA-13")
@pytest.mark.parametrize("shared", ["__shared__ float held[64];", "SHARED(float, held);"])
def test_shared_memory_holds_nothing_before_it_is_written(shared: str) -> None:
    """Nor does it hold what the block or the launch before has left there."""
    text = f"""{COMMON}
    {GLOBAL} f(float* y) {{
        {shared}
        y[blockIdx.x * 64 + threadIdx.x] = held[threadIdx.x];
        held[threadIdx.x] = 1;
    }}"""
    run = kernel(text)
    for _ in range(2):
        y = np.zeros(640, np.float32)
        run((10,), (64,), y, shared=256)
        assert np.isnan(y).all()


@pytest.mark.clause("CUDA-13")
def test_a_variable_holds_nothing_before_it_is_written() -> None:
    y = result("float own[4]; if (y[t] == 0) own[1] = 2; y[t] = own[t % 4];")
    assert (y.reshape(16, 4)[:, 1] == 2).all() and (abs(y.reshape(16, 4)[:, [0, 2, 3]]) > 1e30).all()


@pytest.mark.clause("CUDA-13")
@pytest.mark.parametrize(
    ("body", "sentence"),
    [
        ("SHARED(float, held); held[t] = 1; if (t == 9) held[64] = 1;", "beyond the end of its dynamic shared memory"),
        ("y[t] = reinterpret_cast<float4*>(y + t)->x;", "not aligned .* at `y\\[t\\] ="),
        ("*reinterpret_cast<uint2*>(y + t) = make_uint2(1, 2);", "not aligned"),
        ("float* none = y[t] ? y : nullptr;\nnone[t] = 1;", "reads or writes where no memory is"),
        ("y[(long long)t << 45] = 1;", "reads or writes where no memory is"),
        ("__shared__ float held[32];\nheld[t] = 1;", "an index lies outside its array, at `held\\[t\\] = 1;`"),
        ("float own[8];\nown[t - 1] = 1; y[t] = own[t % 8];", "an index lies outside its array"),
        ("int rows = 65536 + t; y[t] = rows * rows;", "an integer overflowed"),
        ("int rows = 2147483647 - t; y[t] = rows + 1;", "an integer overflowed"),
        ("y[t] = 1 << t;", "a shift by more bits than there are"),
        ("y[t] = 7 / t;", "an integer was divided by zero"),
        ("volatile char much[70000]; much[69999 - t] = 1; y[t] = much[t];", "more stack than there is"),
    ],
)
def test_what_a_gpu_would_not_forgive_is_an_error(body: str, sentence: str) -> None:
    with pytest.raises(DeviceError, match=sentence):
        result(body, shared=256)
    assert (result("y[t] = 1;") == 1).all()


@pytest.mark.clause("CUDA-13")
@pytest.mark.parametrize("options", [(), ("-DSHIM_PORTABLE",)], ids=["assembler", "ucontext"])
def test_1024_threads_may_each_use_much_stack(options: tuple[str, ...]) -> None:
    text = f"""
    static int depth(int* y, int level) {{
        volatile int held[250];
        for (int i = 0; i < 250; i++) held[i] = level + i;
        if (level % 8 == 0) __syncthreads();
        int below = level ? depth(y, level - 1) : 0, sum = 0;
        for (int i = 0; i < 250; i++) sum += held[i] - level - i;
        return below + sum + 1;
    }}
    {GLOBAL} f(int* y) {{ y[threadIdx.x] = depth(y, 40) + threadIdx.x; }}"""
    y = np.zeros(1024, np.int32)
    kernel(text, options=options)((1,), (1024,), y)
    assert (y == 41 + np.arange(1024)).all()


# ---- what a launch may ask for
@pytest.mark.clause("CUDA-13")
@pytest.mark.parametrize(
    ("grid", "block", "shared", "sentence"),
    [
        ((1,), (1056,), 0, "a block of"),
        ((1,), (33,), 0, "a block of"),
        ((1,), (0,), 0, "a block of"),
        ((1,), (1, 1, 128), 0, "a block of"),
        ((1,), (64, 32), 0, "a block of"),
        ((1, 2**16), (32,), 0, "a grid of"),
        ((1, 1, 2**16), (32,), 0, "a grid of"),
        ((2**31,), (32,), 0, "a grid of"),
        ((-1,), (32,), 0, "a grid of"),
        ((1,), (32,), MOST_SHARED + 4, "dynamic shared memory"),
    ],
)
def test_a_launch_that_no_gpu_takes_is_refused(
    grid: tuple[int, ...], block: tuple[int, ...], shared: int, sentence: str
) -> None:
    with pytest.raises(DeviceError, match=sentence):
        kernel("y[0] = 1;")(grid, block, np.zeros(1, np.float32), shared=shared)


@pytest.mark.clause("CUDA-13")
def test_the_largest_that_it_takes() -> None:
    y = np.zeros(1, np.float32)
    run = kernel("if (t == 0) y[0] += 1;")
    for grid, block, shared in [((1, LARGEST_GRID[1]), (32,), 0), ((1,), (1024,), MOST_SHARED), ((1,), (1, 16, 64), 0)]:
        run(grid, block, y, shared=shared)
    assert y[0] == 65535 + 1 + 1024

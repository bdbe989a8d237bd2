"""OPS-60 to OPS-63: what a recorded step does for a primitive, and which primitives cannot be recorded."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numba_recording import ELEMENTWISE
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import PRIMITIVES, Tensor
from ferrum.tensor.weights import Dense, Linear
from ferrum.types import DecodeSteps
from tests.backends.test_step_replay import batch_of

OPS = NumbaOps(2)
ROWS = 96
ODD = np.array([np.nan, np.inf, -np.inf, 0.0, -0.0, 1e-45, -1e-40, 3.4e38, -3.4e38, 1.0, -1.0], np.float32)
Step = Callable[[TensorOps, StepBatch], Tensor]


def numbers(shape: Sequence[int], seed: int) -> np.ndarray:
    """Random float32 numbers, about one in three of them from ODD."""
    random = np.random.default_rng(seed)
    ordinary, odd = random.standard_normal(shape), random.choice(ODD, shape)
    return np.where(random.random(shape) < 1 / 3, odd, ordinary).astype(np.float32)


def one_each(token_ids: Sequence[int]) -> StepBatch:
    count = len(token_ids)
    return batch_of(token_ids, [1] * count, np.arange(count * 10, dtype=np.int32).reshape(count, 10))


def same_bits(ours: np.ndarray, theirs: np.ndarray) -> None:
    """Checks that both have the same bits; any NaN equals any other."""
    assert (ours.shape, ours.dtype) == (theirs.shape, theirs.dtype)
    np.testing.assert_array_equal(ours, theirs)
    if ours.dtype.kind == "f":
        known = ~np.isnan(theirs)
        np.testing.assert_array_equal(np.signbit(ours)[known], np.signbit(theirs)[known])


def check_replayed(step: Step, tokens: int, ops: NumbaOps = OPS) -> None:
    """Records the step for these tokens or more, replays it for other tokens and for fewer, and compares the bits with
    those of the step."""
    for count in (tokens, tokens, tokens // 2 + 1):
        batch = one_each(np.random.default_rng(count).integers(0, ROWS, count).tolist())
        with np.errstate(all="ignore"):
            same_bits(ops.run_step(step, batch), step(ops, batch))
    found = ops.decode_steps(step)
    assert (found.total, found.replayed, found.refusal) == (3, 3, None)


def refusal(step: Step, tokens: int = 3) -> str:
    """The reason why the step cannot be recorded. Checks that its results are right."""
    for _ in range(2):
        batch = one_each(list(range(tokens)))
        same_bits(OPS.run_step(step, batch), step(OPS, batch))
    found = OPS.decode_steps(step)
    assert (found.total, found.replayed) == (2, 0) and found.refusal is not None
    return found.refusal


def with_gaps(x: np.ndarray, gaps: int) -> np.ndarray:
    """An array equal to x that is every second element, or every second row, of a larger array."""
    if not gaps or not x.ndim:
        return x
    axis = -1 if gaps == 1 else 0
    return np.repeat(x, 2, axis)[(slice(None),) * (axis % x.ndim) + (slice(None, None, 2),)]


shapes = st.lists(st.sampled_from([1, 2, 3, 5, 16, 17, 40]), min_size=0, max_size=3).filter(
    lambda shape: np.prod(shape) <= 700
)


@st.composite
def operands(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...], int]:
    """Draws the shape of a token's values, a shape that broadcasts to it, and the gaps in memory of the second."""
    shape = tuple(draw(shapes))
    full = (1, *shape) if draw(st.booleans()) else shape
    other = tuple(1 if draw(st.integers(0, 3)) == 0 else size for size in full)
    return shape, other[draw(st.integers(0, len(other))) :], draw(st.integers(0, 2))


@pytest.mark.clause("OPS-60")
@pytest.mark.parametrize("name", [*ELEMENTWISE, "where"])
@given(given_operands=operands(), tokens=st.sampled_from([1, 2, 3, 4, 7, 64]), seed=st.integers(0, 99))
def test_arithmetic_and_comparisons_have_numpys_bits(
    name: str, given_operands: tuple[tuple[int, ...], tuple[int, ...], int], tokens: int, seed: int
) -> None:
    shape, other, gaps = given_operands
    table, y = numbers((ROWS, *shape), seed), with_gaps(numbers(other, seed + 1), gaps)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.take(table, batch.token_ids)
        if name == "rsqrt":
            return ops.rsqrt(x)
        if name == "where":
            return ops.where(ops.less(y, x), x, y)
        return getattr(ops, name)(*((x, y) if seed % 2 else (y, x)))

    check_replayed(step, tokens)


@pytest.mark.clause("OPS-60")
@pytest.mark.parametrize("value", [1, 0.1, np.float32(2.5), -0.0])
def test_a_number_beside_a_tensor(value: float) -> None:
    table = numbers((ROWS, 40), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.mul(ops.take(table, batch.token_ids), ops.asarray(np.full(40, value, np.float32), "float32"))
        return ops.maximum(ops.add(x, ops.scalar(float(value))), ops.mul(x, value))

    check_replayed(step, 3)


@st.composite
def programs(draw: st.DrawFn) -> list[tuple[str, int]]:
    """Draws up to six moves, each the name of one of MOVES and a number for it."""
    return draw(st.lists(st.tuples(st.sampled_from(sorted(MOVES)), st.integers(0, 5)), min_size=1, max_size=6))


MOVES: dict[str, Callable[[TensorOps, StepBatch, Tensor, int], Tensor]] = {
    "turn": lambda ops, batch, x, n: ops.permute(x, (0, 2, 1)),
    "cut": lambda ops, batch, x, n: ops.split(x, (1, x.shape[1 + n % 2] - 1), 1 + n % 2)[(n // 2) % 2],
    "join": lambda ops, batch, x, n: ops.concat((x, ops.mul(x, x)), 1 + n % 2),
    "flatten": lambda ops, batch, x, n: ops.reshape(x, (x.shape[0], 1, -1)),
    "spread": lambda ops, batch, x, n: ops.reshape(ops.reshape(x, (-1, x.shape[2])), x.shape),
    "widen": lambda ops, batch, x, n: ops.broadcast_to(
        ops.reshape(ops.split(x, (1, x.shape[2] - 1), 2)[0], (x.shape[0], x.shape[1], 1)), x.shape
    ),
    "choose": lambda ops, batch, x, n: ops.where(ops.equal(x, ops.scalar(0)), ops.full((), n, "float32"), x),
    "again": lambda ops, batch, x, n: ops.take(x, batch.logit_rows),
    "other": lambda ops, batch, x, n: ops.take(x, ops.take(batch.logit_rows, batch.logit_rows)),
    "keep": lambda ops, batch, x, n: ops.cast(x, "float32"),
}


@pytest.mark.clause("OPS-60")
@given(program=programs(), tokens=st.sampled_from([1, 2, 3, 4]), seed=st.integers(0, 9))
def test_moves_in_any_order(program: list[tuple[str, int]], tokens: int, seed: int) -> None:
    table = numbers((ROWS, 6, 8), seed)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.take(table, batch.token_ids)
        for name, number in program:
            if 0 not in x.shape[1:] and (name != "join" or x.shape[1] * x.shape[2] < 400):
                x = MOVES[name](ops, batch, x, number)
        return ops.add(x, ops.scalar(1))

    check_replayed(step, tokens)


@pytest.mark.clause("OPS-60")
def test_the_definition_of_rope_is_recorded() -> None:
    table, angles = numbers((ROWS, 4, 16), 3), np.outer(np.arange(32), 0.5 ** np.arange(6))
    tables = RopeTables(np.cos(angles).astype(np.float32), np.sin(angles).astype(np.float32))

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.rope(ops.take(table, batch.token_ids), tables, batch.positions)

    check_replayed(step, 3)


@pytest.mark.clause("OPS-60")
def test_a_bias_behind_a_product_is_recorded() -> None:
    """There are 64 features, which a replay for fewer than 64 tokens must not cut off."""
    table, weight = Dense(numbers((ROWS, 64), 0)), Dense(numbers((64, 64), 1))
    bias, scale = numbers((64,), 2), np.ones(64, np.float32)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.embed(table, batch.token_ids)
        return ops.linear_add(ops.mul(x, ops.add(scale, ops.scalar(1))), Linear(weight, bias), x)

    for tokens in (3, 64, 40):
        check_replayed(step, tokens, NumbaOps(2))


@pytest.mark.clause("OPS-60")
def test_a_copy_that_a_kernel_needs_is_a_launch() -> None:
    """Halves of a head, and transposed rows, lie apart from each other."""
    table, weight = numbers((ROWS, 4, 32), 1), Dense(np.eye(64, dtype=np.float32))
    layer = KvLayer(np.zeros((64, 4, 16, 4), np.float32), np.zeros((64, 4, 4, 16), np.float32))
    ops = NumbaOps(2)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        key, value = ops.split(ops.take(table, batch.token_ids), (16, 16), 2)
        ops.kv_write(layer, key, value, batch.slots)
        return ops.linear(ops.reshape(ops.permute(key, (0, 2, 1)), (-1, 64)), Linear(weight))

    check_replayed(step, 3, ops)
    for run in (ops.run_step, lambda step, batch: step(ops, batch)):
        layer.keys[:], layer.values[:] = 0, 0
        run(step, one_each([7, 8, 9]))
        same_bits(layer.keys[[0, 10, 20], :, :, 0], table[[7, 8, 9], :, :16])
        same_bits(layer.values[[0, 10, 20], :, 0], table[[7, 8, 9], :, 16:])


@pytest.mark.clause("OPS-61")
def test_constants_of_a_step_are_computed_once() -> None:
    """This holds for every primitive: elementary functions, sums, random numbers."""
    table = numbers((ROWS, 40), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        frequencies = ops.exp(ops.mul(ops.asarray(np.arange(40.0), "float32"), ops.scalar(-0.1)))
        scale = ops.sum(ops.cast(ops.arange(9, "int64"), "float32"), 0)
        noise = ops.normal((40,), key=3)
        last = ops.split(ops.concat((frequencies, scale), 0), (1, 40), 0)[1]
        return ops.add(ops.mul(ops.take(table, batch.token_ids), ops.mul(last, noise)), scale)

    check_replayed(step, 3)


@pytest.mark.clause("OPS-60")
def test_rows_of_tables_with_more_rows_than_tokens() -> None:
    """Rows are taken by the place of a token in its batch, and by indices from another table."""
    table, halves = numbers((2 * ROWS, 64), 0), np.random.default_rng(1).random((ROWS, 64)).astype(np.float16)
    others = np.random.default_rng(2).permutation(ROWS).astype(np.int32)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        places, other = ops.take(table[::2], batch.logit_rows), ops.take(others, batch.token_ids)
        return ops.add(places, ops.embed(Dense(halves), other))

    check_replayed(step, 3)


@pytest.mark.clause("OPS-62")
def test_rows_with_gaps_are_named() -> None:
    table = numbers((ROWS, 80), 0)[:, ::2]
    assert refusal(lambda ops, batch: ops.take(table, batch.token_ids)) == "take of rows with gaps"


@pytest.mark.clause("OPS-61")
def test_memory_from_outside_may_change_between_steps() -> None:
    """Such memory is no constant: a replay reads it again."""
    table, shift = numbers((ROWS, 40), 0), np.ones(40, np.float32)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.add(ops.take(table, batch.token_ids), ops.asarray(ops.mul(shift, ops.scalar(2)), "float32"))

    check_replayed(step, 3)
    shift[:] = 5
    batch = one_each([1, 2])
    same_bits(OPS.run_step(step, batch), step(OPS, batch))


FLOATS: dict[str, Callable[[TensorOps, Tensor], Any]] = {
    **{
        name: lambda ops, x, name=name: getattr(ops, name)(x)  # type: ignore[misc]
        for name in ("exp", "log", "tanh", "erf", "cos", "sin", "argsort", "to_numpy")
    },
    **{
        name: lambda ops, x, name=name: getattr(ops, name)(x, 1)  # type: ignore[misc]
        for name in ("sum", "max", "argmax", "cumsum")
    },
    "matmul": lambda ops, x: ops.matmul(x, ops.transpose(x)),
    "bitcast": lambda ops, x: ops.bitcast(x, "int32"),
    "cast": lambda ops, x: ops.cast(x, "float64"),
    "take_along": lambda ops, x: ops.take_along(x, ops.zeros(x.shape, "int64")),
    "put": lambda ops, x: ops.put(
        ops.zeros((1, 2), "float32"), (ops.arange(1, "int32"),), ops.zeros((1, 2), "float32")
    ),
    "asarray": lambda ops, x: ops.asarray(x, "float64"),
}


@pytest.mark.clause("OPS-62")
@pytest.mark.parametrize("name", sorted(FLOATS))
def test_what_has_no_exact_kernel_is_named(name: str) -> None:
    table = np.random.default_rng(0).random((ROWS, 40), np.float32) + 1

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.take(table, batch.token_ids)
        FLOATS[name](ops, x)
        return ops.add(x, ops.scalar(1))

    with np.errstate(all="ignore"):
        assert refusal(step, 1).split()[0] == name


INTEGERS = ("floor_divide", "bitwise_and", "bitwise_xor", "right_shift", "add", "mul", "less")


@pytest.mark.clause("OPS-62")
@pytest.mark.parametrize("name", INTEGERS)
def test_arithmetic_on_integers_is_named(name: str) -> None:
    table = numbers((ROWS, 40), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        getattr(ops, name)(batch.positions, ops.full((), 2, "int32"))
        return ops.take(table, batch.token_ids)

    assert refusal(step).split()[0] == name


@pytest.mark.clause("OPS-62")
def test_views_of_integers_with_gaps_are_named() -> None:
    """A kernel would copy them when the step is recorded, and the copy would not change later."""
    table = numbers((ROWS, 40), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        ops.split(batch.block_tables, (1, batch.block_tables.shape[1] - 1), 1)
        return ops.take(table, batch.token_ids)

    assert refusal(step) == "split of integers"


LOOKS: dict[str, Callable[[Sequence[int]], Any]] = {
    "length": len,
    "item": lambda numbers: numbers[0],
    "end": lambda numbers: numbers[-1],
    "slice": lambda numbers: numbers[:1],
    "loop": lambda numbers: [number + 1 for number in numbers],
    "list": list,
    "sum": sum,
    "largest": max,
    "truth": bool,
    "comparison": lambda numbers: numbers == [1],
    "membership": lambda numbers: 1 in numbers,
    "search": lambda numbers: numbers.index(1),
    "joined": lambda numbers: [0, *numbers],
    "added": lambda numbers: [0] + numbers,  # type: ignore[operator]  # noqa: RUF005
    "array": lambda numbers: np.asarray(numbers),
    "typed array": lambda numbers: np.array(numbers, np.int32),
    "pairs": lambda numbers: list(zip(numbers, numbers, strict=True)),
}


@pytest.mark.clause("OPS-62")
@pytest.mark.parametrize("field", ["starts", "contexts"])
@pytest.mark.parametrize("look", LOOKS)
def test_a_look_at_the_batch_on_the_host_is_named(look: str, field: str) -> None:
    table = numbers((ROWS, 40), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        found = LOOKS[look](getattr(batch, field))
        assert found is not None
        return ops.take(table, batch.token_ids)

    assert refusal(step, 1) == f"reading batch.{field} on the host"


@pytest.mark.clause("OPS-41", "OPS-62")
def test_a_step_that_computes_with_contexts_follows_them() -> None:
    table = np.random.default_rng(0).random((ROWS, 40), np.float32)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.mul(ops.take(table, batch.token_ids), ops.scalar(max(batch.contexts)))

    for context in (1, 5, 3):
        batch = batch_of([7], [context], np.arange(10, dtype=np.int32)[None])
        same_bits(OPS.run_step(step, batch), table[[7]] * np.float32(context))
    assert OPS.decode_steps(step).replayed == 0


@pytest.mark.clause("OPS-62")
def test_every_primitive_is_known_to_this_file() -> None:
    shape = {"reshape", "permute", "broadcast_to", "concat", "split", "take", "cast", "where"}
    constant = {"asarray", "empty", "full", "arange"}
    assert {*FLOATS, *INTEGERS, *ELEMENTWISE, *shape, *constant} == set(PRIMITIVES)


BESIDE: dict[str, Callable[[TensorOps, StepBatch, Tensor], Tensor]] = {
    "permute": lambda ops, batch, x: ops.permute(x, (1, 0)),
    "split": lambda ops, batch, x: ops.split(x, (1, x.shape[0] - 1), 0)[0],
    "concat": lambda ops, batch, x: ops.concat((x, x), 0),
    "reshape": lambda ops, batch, x: ops.reshape(x, (1, -1)),
    "broadcast_to": lambda ops, batch, x: ops.broadcast_to(x, (2, *x.shape)),
    "add": lambda ops, batch, x: ops.add(x, ops.zeros((4, 1, 1), "float32")),
    "take": lambda ops, batch, x: ops.take(x, ops.zeros((4,), "int32")),
}


@pytest.mark.clause("OPS-62")
@pytest.mark.parametrize("name", sorted(BESIDE))
def test_tokens_that_no_longer_come_first_are_refused(name: str) -> None:
    """A replay for three tokens of a tape for four would compute three quarters of the wrong elements."""
    table = numbers((ROWS, 4), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return BESIDE[name](ops, batch, ops.take(table, batch.token_ids))

    assert refusal(step).split()[0] == name


@pytest.mark.clause("OPS-62")
@pytest.mark.parametrize("tokens", [1, 4])
def test_more_dimensions_than_a_kernel_has(tokens: int) -> None:
    table = numbers((ROWS, 1, 2, 3, 2), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.take(table, batch.token_ids)

    assert refusal(step, tokens) == "take of 5 dimensions"


@pytest.mark.clause("OPS-62")
def test_a_kernel_for_rows_that_are_not_tokens_is_refused() -> None:
    """Eight rows of a table are not the rows of eight tokens."""
    table, eight, weight = numbers((ROWS, 64), 0), numbers((8, 64), 1), Dense(numbers((64, 64), 2))

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        made = ops.linear(eight, Linear(weight))
        return ops.add(ops.take(table, batch.token_ids), ops.split(made, (1, 7), 0)[0])

    assert refusal(step).startswith("a kernel whose size")


@pytest.mark.clause("OPS-62")
def test_a_launch_or_a_result_of_another_number_of_rows_is_refused() -> None:
    table = Dense(numbers((ROWS, 64), 0))

    def three_rows(ops: TensorOps, batch: StepBatch) -> Tensor:
        ops.embed(table, ops.arange(3, "int32"))
        return ops.embed(table, batch.token_ids)

    def two_for_each_token(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.reshape(ops.embed(table, batch.token_ids), (-1, 32))

    assert refusal(three_rows) == "a launch whose size is not a multiple of the tokens"
    assert refusal(two_for_each_token) == "a result whose size is not a multiple of the tokens"


@pytest.mark.clause("OPS-62")
def test_an_index_outside_of_a_table_reads_nothing_outside_of_it() -> None:
    table = numbers((8, 40), 1)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.take(table, batch.token_ids)

    ops = NumbaOps(2)
    ops.run_step(step, one_each([0, 1, 2, 3]))
    found = ops.run_step(step, one_each([-1, 8, 1 << 30, -9]))
    same_bits(found[0], table[-1])
    assert np.isnan(found[1:]).all()


@pytest.mark.clause("OPS-63")
def test_steps_that_could_be_replayed_are_counted_with_what_kept_them_from_it() -> None:
    table = numbers((ROWS, 40), 0)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.take(table, batch.token_ids)
        if batch.block_tables.shape[1] <= 8:
            return ops.add(x, x)
        return ops.exp(x) if len(batch.token_ids) == 1 else ops.log(x)

    ops, tables = NumbaOps(2), np.arange(900, dtype=np.int32).reshape(90, 10)
    assert ops.decode_steps(step) == DecodeSteps()
    for contexts in ([1], [2], [39], [39, 40], [1] * 65):  # tables of one column and of ten; too many sequences
        with np.errstate(all="ignore"):
            ops.run_step(step, batch_of([5] * len(contexts), contexts, tables[: len(contexts)]))
    assert ops.decode_steps(step) == DecodeSteps(4, 2, "exp")
    assert NumpyOps().decode_steps(step) == DecodeSteps()

"""Properties of the types: each at its full width in every operation that moves it, and in casts.

Owns: the promises OPS-06, OPS-07 and OPS-78 at the limits of every type, and the order of numbers that differ only in a
wide type. Refuses to know: how a backend stores them. Next: `specs/OPS.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferrum.conformance.harness import call_unchanged, check_same, host, variants
from ferrum.conformance.strategies import Host, Layout, lay
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES, Tensor, host_dtype
from ferrum.tensor.weights import Dense

FLOATS = ("float64", "float32", "float16", "bfloat16")
INTEGERS = ("int64", "int32", "int8", "uint64", "uint32", "uint8")


def bits_of(x: Host) -> Host:
    """The bits of every element; equal bits for every NaN."""
    words = np.ascontiguousarray(x).view(f"u{x.dtype.itemsize}").reshape(x.shape)
    return np.where(np.isnan(x.astype(np.float64)), 0x7FC0, words) if x.dtype.name in FLOATS else words


def assert_bits(actual: Host, expected: Host) -> None:
    assert actual.dtype == expected.dtype
    np.testing.assert_array_equal(bits_of(actual), bits_of(expected))


def every_kind_of(dtype: str) -> Host:
    """Numbers [6, 8] of all sizes of a type: for floats both zeros, infinities, NaN and numbers below the smallest
    normal one; for integers both limits."""
    width = host_dtype(dtype).itemsize
    random = np.random.default_rng(width)
    if dtype == "bool":
        return random.integers(0, 2, (6, 8)).astype(bool)
    raw = random.integers(0, 256, (6, 8 * width), np.uint8).view(host_dtype(dtype))
    if dtype in FLOATS:
        smallest = np.array([1, 3], f"u{width}").view(raw.dtype)  # the two least significant bits alone
        raw[0] = np.array([0.0, -0.0, np.inf, -np.inf, np.nan, *smallest, -1.0]).astype(raw.dtype)
        raw[0, 5:7] = smallest
    else:
        info = np.iinfo(raw.dtype)
        raw[0, :4] = info.min, info.max, info.max - 1, info.max // 2 + 1
    return raw


Move = Callable[[TensorOps, Tensor], Tensor]


def written(ops: TensorOps, x: Tensor) -> Tensor:
    target = ops.zeros(tuple(x.shape), str(x.dtype))
    ops.put(target, (ops.arange(6, "int32"),), x)
    return target


def written_through_a_view(ops: TensorOps, x: Tensor) -> Tensor:
    target = ops.zeros((8, 6), str(x.dtype))
    ops.put(ops.permute(target, (1, 0)), (ops.arange(6, "int64"),), x)
    return target


def stored_and_fetched(ops: TensorOps, x: Tensor) -> Tensor:
    places = ops.host_array((6, 8), str(x.dtype))
    ops.store(x, places, range(6))
    return ops.fetch(places, range(6), str(x.dtype))


def indices(ops: TensorOps, *values: int) -> Tensor:
    return ops.asarray(np.array(values), "int64")


MOVES: dict[str, tuple[Move, Callable[[Host], Host]]] = {
    "reshape": (lambda ops, x: ops.reshape(x, (4, 12)), lambda x: x.reshape(4, 12)),
    "reshape a view": (lambda ops, x: ops.reshape(ops.permute(x, (1, 0)), (48,)), lambda x: x.T.ravel()),
    "permute": (lambda ops, x: ops.permute(x, (1, 0)), lambda x: x.T),
    "broadcast_to": (lambda ops, x: ops.broadcast_to(x, (2, 6, 8)), lambda x: np.stack((x, x))),
    "concat rows": (lambda ops, x: ops.concat((x, x), 0), lambda x: np.concatenate((x, x))),
    "concat columns": (lambda ops, x: ops.concat((x, x), 1), lambda x: np.concatenate((x, x), 1)),
    "concat a view": (lambda ops, x: ops.concat((x, ops.split(x, (1, 7), 1)[1]), 1), lambda x: np.c_[x, x[:, 1:]]),
    "split": (lambda ops, x: ops.split(x, (1, 3, 4), 1)[1], lambda x: x[:, 1:4]),
    "take rows": (lambda ops, x: ops.take(x, indices(ops, 5, 0, 0)), lambda x: x[[5, 0, 0]]),
    "take columns": (lambda ops, x: ops.take(x, indices(ops, 7, 0, 3), 1), lambda x: x[:, [7, 0, 3]]),
    "take a view": (lambda ops, x: ops.take(ops.transpose(x), indices(ops, 7, 0)), lambda x: x.T[[7, 0]]),
    "put": (written, lambda x: x),
    "put through a view": (written_through_a_view, lambda x: x.T),
    "cast to itself": (lambda ops, x: ops.cast(x, str(x.dtype)), lambda x: x),
    "store and fetch": (stored_and_fetched, lambda x: x),
}


@pytest.mark.clause("OPS-06", "OPS-76", "OPS-78")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("name", MOVES)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_move_keeps_every_bit(ops: TensorOps, name: str, dtype: str) -> None:
    move, expected = MOVES[name]
    x = every_kind_of(dtype)
    for layout in (Layout.CONTIGUOUS, Layout.PERMUTED):
        result = call_unchanged(ops, lambda tensor: move(ops, tensor), (lay(ops, x, layout, dtype),))
        assert str(result.dtype) == dtype
        assert_bits(host(ops, result), expected(x))


@pytest.mark.clause("OPS-06", "OPS-78")
@pytest.mark.parametrize("dtype", ["float32", "float64", "int64"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_choice_keeps_every_bit(ops: TensorOps, dtype: str) -> None:
    x, y = every_kind_of(dtype), every_kind_of(dtype)[::-1]
    condition = np.random.default_rng(0).integers(0, 2, x.shape).astype(bool)
    placed = lay(ops, condition, dtype="bool"), lay(ops, x, dtype=dtype), lay(ops, y, dtype=dtype)
    assert_bits(host(ops, call_unchanged(ops, ops.where, placed)), np.where(condition, x, y))
    order = np.random.default_rng(1).integers(0, 8, (6, 11))
    picked = call_unchanged(ops, ops.take_along, (placed[1], lay(ops, order, dtype="int64")))
    assert_bits(host(ops, picked), np.take_along_axis(x, order, -1))


# ---- casts
@pytest.mark.clause("OPS-07", "OPS-78")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.parametrize("to", ["float32", "float64"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_short_float_is_a_long_one(ops: TensorOps, dtype: str, to: str) -> None:
    """Scales of weights are float16, and some are below its smallest normal number."""
    x = np.arange(65536, dtype=np.uint16).view(host_dtype(dtype))
    check_cast(ops, x, dtype, to, x.astype(to))


@pytest.mark.clause("OPS-07", "OPS-78")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_every_short_float_is_the_nearest_to_its_neighbourhood(ops: TensorOps, dtype: str) -> None:
    """float32 numbers at, just before, halfway to and just past each; a number past the largest becomes infinite."""
    last = 0x7C00 if dtype == "float16" else 0x7F80  # infinity
    short = np.arange(last + 1, dtype=np.uint16).view(host_dtype(dtype)).astype(np.float64)
    short[-1] = 2 * short[-2] - short[-3]  # where the next number would be
    halves = ((short[1:] + short[:-1]) / 2).astype(np.float32)
    even = np.arange(last) + np.arange(last) % 2  # of the two neighbours the one whose last bit is 0
    for x, nearest in (
        (short[:-1].astype(np.float32), np.arange(last)),
        (halves, even),
        (np.nextafter(halves, np.float32(0)), np.arange(last)),
        (np.nextafter(halves, np.float32(np.inf)), np.arange(last) + 1),
    ):
        for sign in (1, -1):
            words = (nearest + (0x8000 if sign < 0 else 0)).astype(np.uint16)
            check_cast(ops, sign * x, "float32", dtype, words.view(host_dtype(dtype)))


def check_cast(ops: TensorOps, x: Host, source: str, to: str, expected: Host) -> None:
    result = call_unchanged(ops, ops.cast, (lay(ops, x, dtype=source), to))
    assert str(result.dtype) == to
    assert_bits(host(ops, result), expected)


def halfway(dtype: str) -> Host:
    """float64 between two float32, or integers that float32 cannot hold: half of them are rounded up."""
    if dtype == "float64":
        return np.array([1 + 2.0**-24, 1 + 3 * 2.0**-24, -1 - 2.0**-24, 1 + 2.0**-24 + 2.0**-50, 1e300, -1e300, 2e-46])
    near = [2**24 + 1, 2**24 + 3, 2**31 - 1, 2**25 + 1, 2**25 + 2, 2**25 + 6]
    return np.array(near if dtype == "int32" else [*near, 2**40 + 2**16, 2**40 + 2**16 + 1, 2**62 + 1], dtype)


@pytest.mark.clause("OPS-07")
@pytest.mark.parametrize("dtype", ["float64", "int32", "int64", "uint64", "uint32"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_cast_to_float32_is_the_nearest(ops: TensorOps, dtype: str) -> None:
    values = halfway("int32" if dtype == "uint32" else dtype).astype(dtype)
    check_cast(ops, values, dtype, "float32", values.astype(np.float32))


@pytest.mark.clause("OPS-07")
@pytest.mark.parametrize("to", INTEGERS)
@pytest.mark.parametrize("dtype", DTYPES)
def test_a_cast_between_types_keeps_what_both_hold(ops: TensorOps, dtype: str, to: str) -> None:
    """Limits included: bytes are unsigned, and int64 keeps all bits."""
    ends = [(-1, 1), *((sign, 1 << power) for power in (7, 8, 31, 32, 40, 63) for sign in (1, -1))]
    numbers = {0, 1, 2, 100, 127, 200, 255, *(sign * size - shift for sign, size in ends for shift in (0, 1))}
    common = np.array(sorted(number for number in numbers if holds(dtype, number) and holds(to, number)), object)
    check_cast(ops, common.astype(host_dtype(dtype)), dtype, to, common.astype(host_dtype(to)))


def holds(dtype: str, number: int) -> bool:
    if dtype == "bool":
        return number in (0, 1)
    if dtype in FLOATS:
        return abs(number) <= 65504 and int(np.array(number, host_dtype(dtype)).astype(np.float64)) == number
    info = np.iinfo(dtype)
    return bool(info.min <= number <= info.max)


# ---- numbers that only a wide type tells apart
NEARLY_ONE = 1 + np.random.default_rng(0).permutation(90) * 2.0**-45
NEAR = {
    "float64": np.concatenate((NEARLY_ONE, -NEARLY_ONE, [-(10.0**300), 10.0**300, -1.0, 1.0])),
    "int64": 2**24 + np.random.default_rng(1).permutation(90),
    "int64, large": np.array([2**40 + 1, 2**40, -(2**40), -(2**40) - 1, 2**62, 2**62 - 1, 2**62 + 1, -(2**62)]),
    "int64, negative": -(2**24) - np.random.default_rng(2).permutation(90),
}


@pytest.mark.clause("OPS-03", "OPS-05")
@pytest.mark.parametrize("name", NEAR)
def test_what_a_wide_type_tells_apart_is_told_apart(ops: TensorOps, name: str) -> None:
    """Sampling sorts float64 on every backend, and the ranks of tokens are int64."""
    dtype, x = name.partition(",")[0], NEAR[name]
    tensor, rolled = lay(ops, x, dtype=dtype), lay(ops, np.roll(x, 1), dtype=dtype)
    check_same(ops, "argsort", (tensor,), np.argsort(-x, kind="stable"), "int64")
    check_same(ops, "sort", (tensor,), -np.sort(-x), dtype)
    check_same(ops, "max", (tensor, -1), x.max(keepdims=True), dtype)
    check_same(ops, "maximum", (tensor, rolled), np.maximum(x, np.roll(x, 1)), dtype)
    check_same(ops, "less", (tensor, rolled), x < np.roll(x, 1), "bool")
    check_same(ops, "equal", (tensor, rolled), x == np.roll(x, 1), "bool")
    check_same(ops, "equal", (tensor, tensor), np.ones(x.shape, bool), "bool")
    operands = lay(ops, x < np.roll(x, 1), dtype="bool"), tensor, rolled
    check_same(ops, "where", operands, np.minimum(x, np.roll(x, 1)), dtype)
    if dtype == "float64":
        check_same(ops, "argmax", (tensor, -1), np.array(x.argmax()), "int64")
        check_same(ops, "add", (tensor, rolled), x + np.roll(x, 1), dtype)
        check_same(ops, "mul", (tensor, lay(ops, np.array(3.0), dtype=dtype)), 3 * x, dtype)


ENDS = {bits: np.array([1, 7, 2 ** (bits // 2), 2 ** (bits - 8) + 1, 2 ** (bits - 1) - 1]) for bits in (32, 64)}


@pytest.mark.clause("OPS-03")
@pytest.mark.parametrize("bits", ENDS)
def test_no_float_stands_between_integers_and_their_quotient(ops: TensorOps, bits: int) -> None:
    """Slots are divided by the block size, without a conversion to float."""
    dtype = f"int{bits}"
    x, by = (
        np.concatenate((ENDS[bits], -ENDS[bits]))[:, None].astype(dtype),
        np.array([1, 2, 3, 16, 48, 2**20 + 1], dtype),
    )
    check_same(ops, "floor_divide", (lay(ops, x, dtype=dtype), lay(ops, by, dtype=dtype)), x // by, dtype)
    root = lay(ops, np.array([2 ** (bits // 2 - 1) - 1], dtype), dtype=dtype)
    check_same(ops, "mul", (root, root), np.array([(2 ** (bits // 2 - 1) - 1) ** 2], dtype), dtype)
    large = x[::2] // 4 + 1  # whose sums do not overflow
    check_same(ops, "cumsum", (lay(ops, large, dtype=dtype), 0), large.cumsum(0, dtype=dtype), dtype)
    check_same(ops, "sum", (lay(ops, large, dtype=dtype), 0), large.sum(0, keepdims=True, dtype=dtype), dtype)


@pytest.mark.clause("OPS-03")
def test_both_halves_of_a_word_are_computed(ops: TensorOps) -> None:
    """Random numbers use only the low half of most words, so they would not show a wrong high half."""
    x, y = np.random.default_rng(5).integers(0, 2**64, (2, 64), "uint64")
    places = np.arange(64, dtype="uint64")
    first, second, shifts = (lay(ops, each, dtype="uint64") for each in (x, y, places))
    for name, operand, expected in (
        ("bitwise_and", second, x & y), ("bitwise_xor", second, x ^ y), ("right_shift", shifts, x >> places),
        ("add", second, x + y), ("sub", second, x - y), ("mul", second, x * y),
    ):  # fmt: skip
        check_same(ops, name, (first, operand), expected, "uint64")


@pytest.mark.clause("OPS-05")
def test_the_first_of_small_integers_wins(ops: TensorOps) -> None:
    """`draw` uses argmax of int8."""
    x = np.zeros((3, 5000), np.int8)
    x[0, 4097:] = x[1, 0] = x[2, 300] = x[2, 4999] = 1
    check_same(ops, "argmax", (lay(ops, x, dtype="int8"), -1), np.array([4097, 0, 300]), "int64")
    negative = np.full((2, 70), -128, np.int8)
    negative[1, 69] = -127
    check_same(ops, "argmax", (lay(ops, negative, dtype="int8"), -1), np.array([0, 69]), "int64")


@pytest.mark.clause("OPS-17")
@pytest.mark.parametrize("kind", ["float16", "bfloat16", "float32"])
def test_a_dense_weight_is_what_its_type_holds(ops: TensorOps, kind: str) -> None:
    x: Any = every_kind_of(kind)[1:]
    x = np.where(np.isfinite(x.astype(np.float32)), x, np.ones((), x.dtype))
    for function in variants(ops, "dequantize"):
        actual = host(ops, call_unchanged(ops, function, (Dense(lay(ops, x, dtype=kind)),)))
        np.testing.assert_array_equal(actual, x.astype(ops.float_dtype))

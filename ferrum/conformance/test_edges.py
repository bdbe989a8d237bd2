"""Properties of the primitives where kernels fail easily: no rows, long rows, limits of types, NaN, a second call.

Owns: what the contract in `ferrum.tensor.ops` says about types and limits. Refuses to know: ordinary values.
Next: `ferrum.conformance.test_shapes`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferrum.conformance import oracles
from ferrum.conformance.harness import check, check_same, host
from ferrum.conformance.strategies import Host, lay
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import NEEDED, Tensor, host_dtype
from ferrum.tensor.parts import Head, Norm
from ferrum.tensor.weights import Dense, Linear

LARGE = 2**40 + 12345
"""An integer whose low 32 bits alone are another one."""

# ---- types
X, Y = np.array([[3, 1, 2, 2, 1, 0]]), np.array([[1, 1, 2, 1, 3, 1]])  # a cast to bool makes 1 of everything but 0

BY_HAND: dict[str, Callable[[Host, Host], Host]] = {
    "add": lambda x, y: x + y,
    "sub": lambda x, y: np.maximum(x, y) - np.minimum(x, y),
    "mul": lambda x, y: x * y,
    "div": lambda x, y: x / y,
    "floor_divide": lambda x, y: x // y,
    "maximum": np.maximum,
    "less": lambda x, y: x < y,
    "equal": lambda x, y: x == y,
    "bitwise_and": lambda x, y: x & y,
    "bitwise_xor": lambda x, y: x ^ y,
    "right_shift": lambda x, y: x >> y,
    "where": lambda x, y: np.where(x < y, x, y),
    "matmul": lambda x, y: x @ y.T,
    "sum": lambda x, y: x.sum(1, keepdims=True, dtype=x.dtype),
    "max": lambda x, y: x.max(1, keepdims=True),
    "cumsum": lambda x, y: x.cumsum(1, dtype=x.dtype),
    "argmax": lambda x, y: x.argmax(1),
    "argsort": lambda x, y: np.array([[0, 2, 3, 1, 4, 5]]),
}


def call(ops: TensorOps, name: str, x: Host, y: Host, dtype: str) -> Tensor:
    """The primitive of two operands of this type, or of the first."""
    if name == "sub":
        x, y = np.maximum(x, y), np.minimum(x, y)
    first, second = lay(ops, x, dtype=dtype), lay(ops, y, dtype=dtype)
    if name in ("sum", "max", "cumsum", "argmax"):
        return getattr(ops, name)(first, 1)
    if name == "argsort":
        return ops.argsort(first)
    if name == "where":
        return ops.where(lay(ops, x < y, dtype="bool"), first, second)
    return getattr(ops, name)(first, ops.transpose(second) if name == "matmul" else second)


@pytest.mark.clause("OPS-01")
@pytest.mark.parametrize(("name", "dtype"), [(name, dtype) for name in BY_HAND for dtype in NEEDED[name]])
def test_a_primitive_takes_every_type_it_is_needed_for(ops: TensorOps, name: str, dtype: str) -> None:
    x, y = X.astype(host_dtype(dtype)), Y.astype(host_dtype(dtype))
    expected = BY_HAND[name](x, y)
    result = call(ops, name, x, y, dtype)
    assert str(result.dtype) == expected.dtype.name
    if name in ("div", "matmul"):
        assert_close(host(ops, result), expected, dtype)
    else:
        assert_same(host(ops, result), expected)


FUNCTIONS: dict[str, Callable[[Host], Host]] = {
    "exp": np.exp, "log": np.log, "rsqrt": lambda x: 1 / np.sqrt(x), "tanh": np.tanh, "cos": np.cos, "sin": np.sin,
    "erf": lambda x: oracles.error_function(x).value,
}  # fmt: skip


@pytest.mark.clause("OPS-01")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("name", FUNCTIONS)
def test_functions_have_the_precision_of_their_operand(ops: TensorOps, name: str, dtype: str) -> None:
    """Every backend makes random numbers with float64."""
    x = np.linspace(0.1, 3, 40).astype(dtype)
    result = getattr(ops, name)(lay(ops, x, dtype=dtype))
    assert str(result.dtype) == dtype
    assert_close(host(ops, result), FUNCTIONS[name](x.astype(np.float64)), dtype)


# ---- ends of types
@pytest.mark.clause("OPS-03")
@pytest.mark.parametrize("dtype", ["uint64", "uint8"])
def test_unsigned_integers_wrap_at_both_ends(ops: TensorOps, dtype: str) -> None:
    top = int(np.iinfo(dtype).max)
    x, y = (lay(ops, np.array(values, dtype), dtype=dtype) for values in ([top, 0, top, 1], [1, 1, top, top]))
    for name, expected in (("add", [0, 1, top - 1, 0]), ("sub", [top - 1, top, 0, 2]), ("mul", [top, 0, 1, top])):
        check_same(ops, name, (x, y), np.array(expected, dtype), dtype)


@pytest.mark.clause("OPS-03")
def test_int64_is_not_cut_to_32_bits(ops: TensorOps) -> None:
    values = np.array([LARGE, 12345, -LARGE, LARGE - 1, 2**32 + 12345])
    x, y = lay(ops, values, dtype="int64"), lay(ops, values[::-1].copy(), dtype="int64")
    flipped = values[::-1]
    for name, expected in (
        ("add", values + flipped), ("sub", values - flipped), ("maximum", np.maximum(values, flipped)),
        ("less", values < flipped), ("equal", values == flipped), ("floor_divide", values // flipped),
    ):  # fmt: skip
        check_same(ops, name, (x, y), expected, str(expected.dtype))
    check_same(ops, "mul", (x, lay(ops, np.array(3), dtype="int64")), 3 * values, "int64")
    successors = lay(ops, values + 1, dtype="int64")  # equal in float32
    check_same(ops, "less", (x, successors), np.ones(5, bool), "bool")
    check_same(ops, "equal", (x, successors), np.zeros(5, bool), "bool")
    check_same(ops, "maximum", (x, successors), values + 1, "int64")
    check_same(ops, "cast", (x, "float64"), values.astype(np.float64), "float64")
    check_same(ops, "argsort", (x,), np.array([0, 3, 4, 1, 2]), "int64")
    check_same(ops, "where", (ops.less(x, y), x, y), np.minimum(values, flipped), "int64")
    for name, total in (("sum", values.sum(keepdims=True)), ("max", values[:1]), ("cumsum", values.cumsum())):
        check_same(ops, name, (x, 0), total, "int64")


@pytest.mark.clause("OPS-07")
@pytest.mark.parametrize("dtype", ["int64", "int32"])
def test_a_cast_to_an_integer_cuts_off_the_fraction(ops: TensorOps, dtype: str) -> None:
    x = np.array([0.0, 0.9, 1.5, -0.9, -1.5, 2.5, 100.99])
    check_same(ops, "cast", (lay(ops, x), dtype), np.array([0, 0, 1, 0, -1, 2, 100], dtype), dtype)


# ---- NaN and infinity
@pytest.mark.clause("OPS-02", "OPS-05")
@pytest.mark.parametrize("count", [5, 700, 5000])
def test_nan_is_found_wherever_it_is(ops: TensorOps, count: int) -> None:
    """Damaged models are detected by it."""
    x = np.random.default_rng(count).standard_normal((4, count))
    x[0, 3] = x[1, count - 1] = x[2, 1] = x[2, 4] = np.nan
    x[2, 0] = np.inf
    tensor = lay(ops, x)
    check_same(ops, "argmax", (tensor, -1), np.array([3, count - 1, 1, x[3].argmax()]), "int64")
    check(ops, "max", (tensor, -1), x.max(-1, keepdims=True))
    check(ops, "maximum", (tensor, lay(ops, x[:, ::-1])), np.maximum(x, x[:, ::-1]))
    first = host(ops, ops.argsort(tensor))
    assert [first[0, 0], first[1, 0], *first[2, :3], first[3, 0]] == [3, count - 1, 1, 4, 0, x[3].argmax()]
    assert all(sorted(row) == list(range(count)) for row in first.tolist())


@pytest.mark.clause("OPS-05")
def test_a_row_of_nothing_but_minus_infinity(ops: TensorOps) -> None:
    x = lay(ops, np.full((2, 1500), -np.inf))
    check_same(ops, "argmax", (x, -1), np.array([0, 0]), "int64")
    check_same(ops, "max", (x, -1), np.full((2, 1), -np.inf), ops.float_dtype)
    check_same(ops, "argsort", (x,), np.tile(np.arange(1500), (2, 1)), "int64")


# ---- long rows
@pytest.mark.clause("OPS-04", "OPS-05")
@pytest.mark.parametrize("count", [1023, 1025, 4097, 40000])
def test_rows_longer_than_a_block_of_threads(ops: TensorOps, count: int) -> None:
    x = np.round(8 * np.random.default_rng(count).standard_normal((3, count))) / 8  # with ties
    x[0, count - 1] = x[1, 0] = x[2, count // 2] = 100
    tensor = lay(ops, x)
    check(ops, "sum", (tensor, -1), oracles.total(x, -1))
    check(ops, "cumsum", (tensor, -1), oracles.running_total(x, -1))
    check(ops, "max", (tensor, -1), np.full((3, 1), 100.0))
    check_same(ops, "argmax", (tensor, -1), np.array([count - 1, 0, count // 2]), "int64")
    check_same(ops, "argsort", (tensor,), np.argsort(-x, -1, kind="stable"), "int64")
    check(ops, "sum", (ops.transpose(tensor), 0), oracles.total(x.T, 0))
    wide = lay(ops, x, dtype="float64")  # as sampling has it
    assert_close(host(ops, ops.cumsum(wide, -1)), oracles.running_total(x, -1), "float64")


@pytest.mark.clause("OPS-08")
@pytest.mark.parametrize("sides", [(1, 1500, 3), (3, 2, 1500), (1500, 3, 2), (257, 129, 65)])
def test_matrices_larger_than_a_tile(ops: TensorOps, sides: tuple[int, int, int]) -> None:
    m, k, n = sides
    random = np.random.default_rng(m)
    x, y = (random.standard_normal(shape).astype(np.float32).astype(np.float64) for shape in ((2, m, k), (2, k, n)))
    check(ops, "matmul", (lay(ops, x), lay(ops, y)), oracles.matmul(x, y))


@pytest.mark.clause("OPS-06")
def test_many_indices_move_many_rows(ops: TensorOps) -> None:
    random = np.random.default_rng(0)
    x, order = random.standard_normal((3000, 5)), random.permutation(3000)
    check(ops, "take", (lay(ops, x), lay(ops, order, dtype="int64")), x[order])
    target = ops.zeros((3000, 5), ops.float_dtype)
    ops.put(target, (lay(ops, order, dtype="int64"),), lay(ops, x[order]))
    assert_close(host(ops, target), x, ops.float_dtype)
    along = random.integers(0, 2000, (3, 4000))
    y = random.standard_normal((3, 2000))
    check(ops, "take_along", (lay(ops, y), lay(ops, along, dtype="int64")), np.take_along_axis(y, along, -1))


# ---- no rows
Use = Callable[[TensorOps, Tensor], Tensor]


def operation(name: str, *arguments: Any, operands: int = 1) -> Use:
    return lambda ops, x: getattr(ops, name)(*[x] * operands, *arguments)


NO_ROWS: dict[str, tuple[Use, tuple[int, ...]]] = {
    **{name: (operation(name, operands=2), (0, 4)) for name in ("add", "sub", "mul", "div", "maximum", "less")},
    **{name: (operation(name), (0, 4)) for name in (*FUNCTIONS, "argsort")},
    **{name: (operation(name, -1), (0, 1)) for name in ("sum", "max")},
    "cumsum": (operation("cumsum", -1), (0, 4)),
    "argmax": (operation("argmax", -1), (0,)),
    "sum of no rows": (operation("sum", 0), (1, 4)),
    "where": (lambda ops, x: ops.where(ops.equal(x, x), x, x), (0, 4)),
    "times a row": (lambda ops, x: ops.mul(x, ops.ones((4,), ops.float_dtype)), (0, 4)),
    "plus a number": (lambda ops, x: ops.add(x, ops.scalar(1)), (0, 4)),
    "matmul": (lambda ops, x: ops.matmul(x, ops.ones((4, 3), ops.float_dtype)), (0, 3)),
    "reshape": (lambda ops, x: ops.reshape(x, (0, 2, 2)), (0, 2, 2)),
    "permute": (lambda ops, x: ops.permute(x, (1, 0)), (4, 0)),
    "broadcast_to": (lambda ops, x: ops.broadcast_to(x, (3, 0, 4)), (3, 0, 4)),
    "concat": (lambda ops, x: ops.concat((x, ops.ones((2, 4), ops.float_dtype), x), 0), (2, 4)),
    "split": (lambda ops, x: ops.split(x, (0, 0), 0)[1], (0, 4)),
    "split to nothing": (lambda ops, x: ops.split(x, (4, 0), 1)[1], (0, 0)),
    "take": (lambda ops, x: ops.take(ops.ones((5, 4), ops.float_dtype), ops.arange(0, "int64")), (0, 4)),
    "take of bytes": (lambda ops, x: ops.take(ops.ones((5, 4), "uint8"), ops.arange(0, "int32")), (0, 4)),
    "take_along": (lambda ops, x: ops.take_along(x, ops.zeros((0, 2), "int64")), (0, 2)),
    "cast": (lambda ops, x: ops.cast(x, "float16"), (0, 4)),
    "bitcast": (lambda ops, x: ops.bitcast(ops.zeros((0, 4), "uint8"), "float16"), (0, 2)),
    "asarray": (lambda ops, x: ops.asarray([], "int64"), (0,)),
    "softmax": (lambda ops, x: ops.softmax(x), (0, 4)),
    "logits": (lambda ops, x: ops.logits(x, Head(Norm(ops.ones((4,), ops.float_dtype), 1e-5), three(ops))), (0, 3)),
    "linear_add": (lambda ops, x: ops.linear_add(x, three(ops), ops.zeros((0, 3), ops.float_dtype)), (0, 3)),
}  # fmt: skip


def three(ops: TensorOps) -> Linear:
    return Linear(Dense(ops.ones((3, 4), "float32")), ops.ones((3,), ops.float_dtype))


@pytest.mark.clause("OPS-68")
@pytest.mark.parametrize("name", NO_ROWS)
def test_no_rows_are_rows_too(ops: TensorOps, name: str) -> None:
    """A chunk in the middle of a prompt needs no logits."""
    use, shape = NO_ROWS[name]
    result = use(ops, ops.zeros((0, 4), ops.float_dtype))
    assert tuple(result.shape) == shape
    assert host(ops, result).shape == shape


@pytest.mark.clause("OPS-68")
def test_nothing_is_put_nowhere(ops: TensorOps) -> None:
    x = ops.ones((3, 4), ops.float_dtype)
    ops.put(x, (ops.arange(0, "int64"),), ops.zeros((0, 4), ops.float_dtype))
    assert_same(host(ops, x), np.ones((3, 4)))
    assert_same(host(ops, ops.sum(ops.zeros((0, 4), ops.float_dtype), 0)), np.zeros((1, 4)))


# ---- a second call
@pytest.mark.clause("OPS-09")
@pytest.mark.parametrize("name", [*BY_HAND, *FUNCTIONS])
def test_a_second_call_leaves_the_first_result_alone(ops: TensorOps, name: str) -> None:
    dtype = "float32" if "float32" in NEEDED[name] else NEEDED[name][0]

    def result(x: Host) -> Tensor:
        if name in FUNCTIONS:
            return getattr(ops, name)(lay(ops, x, dtype=dtype))
        return call(ops, name, x.astype(dtype), Y.astype(dtype), dtype)

    first = result(X + 1)
    before = host(ops, first)
    result(X[:, ::-1] + 2)
    assert_same(host(ops, first), before)

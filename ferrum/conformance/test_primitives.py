"""Properties of the primitives that compute: arithmetic, comparison, reductions, order.

Owns: the promises OPS-01 to OPS-05, OPS-08 and OPS-10. Refuses to know: compositions.
Next: `ferrum.conformance.test_edges`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance import oracles
from ferrum.conformance.harness import check, check_same, host
from ferrum.conformance.strategies import Host, Layout, broadcastable, floats, integers, lay, layouts, shapes
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import NEEDED, PRIMITIVES

UNSIGNED = ("uint64", "uint8")


@pytest.mark.clause("OPS-01")
@pytest.mark.parametrize("name", PRIMITIVES)
def test_every_primitive_is_there(ops: TensorOps, name: str) -> None:
    # the method of a Protocol would be inherited silently and return None
    implementation = getattr(type(ops), name)
    assert callable(implementation)
    assert getattr(implementation, "__module__", "") != "ferrum.tensor.ops", f"{type(ops).__name__} lacks {name}"


@pytest.mark.clause("OPS-01")
def test_a_backend_says_who_it_is(ops: TensorOps) -> None:
    assert ops.name
    assert ops.float_dtype in ("float32", "float64")


# the domains avoid overflow: the special values below test it
UNARY = {
    "exp": (oracles.exp, -100, 85),
    "log": (oracles.log, 1e-30, 1e4),
    "rsqrt": (oracles.rsqrt, 1e-30, 1e4),
    "tanh": (oracles.tanh, -30, 30),
    "erf": (oracles.error_function, -6, 6),
    "cos": (oracles.cos, -1000, 1000),
    "sin": (oracles.sin, -1000, 1000),
}


@pytest.mark.clause("OPS-02")
@pytest.mark.clause("OPS-10")
@pytest.mark.parametrize("name", UNARY)
@given(data=st.data(), shape=shapes(0), layout=layouts)
def test_elementary_functions(ops: TensorOps, data: st.DataObject, name: str, shape: Any, layout: Layout) -> None:
    oracle, low, high = UNARY[name]
    x = data.draw(floats(shape, low, high)).astype(np.float64)
    check(ops, name, (lay(ops, x, layout),), oracle(x))


SPECIAL = {
    "exp": ([-np.inf, -2000, 0, 2000, np.inf, np.nan], [0, 0, 1, np.inf, np.inf, np.nan]),
    "log": ([0, 1, np.inf, -1, np.nan], [-np.inf, 0, np.inf, np.nan, np.nan]),
    "rsqrt": ([4, 0, np.inf, np.nan], [0.5, np.inf, 0, np.nan]),
    "tanh": ([-np.inf, -2000, 0, 2000, np.inf, np.nan], [-1, -1, 0, 1, 1, np.nan]),
    "erf": ([-np.inf, -2000, 0, 2000, np.inf, np.nan], [-1, -1, 0, 1, 1, np.nan]),
    "cos": ([0, np.nan], [1, np.nan]),
    "sin": ([0, np.nan], [0, np.nan]),
}


@pytest.mark.clause("OPS-02")
@pytest.mark.parametrize("name", SPECIAL)
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_elementary_functions_at_their_ends(ops: TensorOps, name: str) -> None:
    inputs, outputs = SPECIAL[name]
    x = np.tile(np.array(inputs, np.float64), 7)  # long enough for vectorised loops
    check(ops, name, (lay(ops, x),), np.tile(np.array(outputs, np.float64), 7))


BINARY = {
    "add": lambda x, y: oracles.Expected(x + y, abs(x) + abs(y)),
    "sub": lambda x, y: oracles.Expected(x - y, abs(x) + abs(y)),
    "mul": lambda x, y: oracles.exact(x * y),
    "div": lambda x, y: oracles.exact(x / y),
    "maximum": lambda x, y: oracles.exact(np.maximum(x, y)),
}


@pytest.mark.clause("OPS-02")
@pytest.mark.parametrize("name", BINARY)
@given(data=st.data(), together=broadcastable(2), layout=layouts)
def test_float_arithmetic_broadcasts(
    ops: TensorOps, data: st.DataObject, name: str, together: Any, layout: Any
) -> None:
    x, y = (data.draw(floats(shape)).astype(np.float64) for shape in together)
    if name == "div":
        y = np.where(np.abs(y) < 1e-6, 1.0, y)
    check(ops, name, (lay(ops, x, layout), lay(ops, y)), BINARY[name](x, y))


@pytest.mark.clause("OPS-02")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_nan_and_infinity_follow_ieee(ops: TensorOps) -> None:
    x, y = np.array([np.nan, 1, np.nan, -np.inf, 1, -1, 0]), np.array([1, np.nan, np.nan, 1, 0, 0, 0])
    check(ops, "maximum", (lay(ops, x), lay(ops, y)), np.array([np.nan, np.nan, np.nan, 1, 1, 0, 0]))
    with np.errstate(all="ignore"):
        check(ops, "div", (lay(ops, x), lay(ops, y)), x / y)
        check(ops, "sub", (lay(ops, x), lay(ops, x)), x - x)


INTEGER_BINARY: dict[str, tuple[Any, tuple[str, ...]]] = {
    "add": (lambda x, y: x + y, UNSIGNED),
    "sub": (lambda x, y: x - y, UNSIGNED),
    "mul": (lambda x, y: x * y, UNSIGNED),
    "bitwise_and": (lambda x, y: x & y, NEEDED["bitwise_and"]),
    "bitwise_xor": (lambda x, y: x ^ y, NEEDED["bitwise_xor"]),
}


def wrapped(exact: Any, dtype: str) -> Host:
    """Python's integers, which have no width, wrapped to the type's width."""
    values = np.asarray(exact, object)
    bits = 8 * np.dtype(dtype).itemsize
    return np.asarray(values % (1 << bits) if dtype in UNSIGNED else values, dtype)


@pytest.mark.clause("OPS-03")
@pytest.mark.parametrize("name", INTEGER_BINARY)
@given(data=st.data(), together=broadcastable(2), layout=layouts)
def test_integers_are_exact_and_unsigned_ones_wrap(
    ops: TensorOps, data: st.DataObject, name: str, together: Any, layout: Any
) -> None:
    function, dtypes = INTEGER_BINARY[name]
    dtype = data.draw(st.sampled_from(dtypes))
    x, y = (data.draw(integers(shape, dtype)) for shape in together)
    expected = wrapped(function(x.astype(object), y.astype(object)), dtype)
    check_same(ops, name, (lay(ops, x, layout, dtype), lay(ops, y, dtype=dtype)), expected, dtype)


@pytest.mark.clause("OPS-03")
@given(data=st.data(), together=broadcastable(2), dtype=st.sampled_from(["int64", "int32"]))
def test_signed_integers_that_do_not_overflow(ops: TensorOps, data: st.DataObject, together: Any, dtype: str) -> None:
    x, y = (data.draw(integers(shape, dtype, -30000, 30000)) for shape in together)
    for name, result in (("add", x + y), ("sub", x - y), ("mul", x * y), ("maximum", np.where(x < y, y, x))):
        check_same(ops, name, (lay(ops, x, dtype=dtype), lay(ops, y, dtype=dtype)), result, dtype)


@pytest.mark.clause("OPS-03")
@given(data=st.data(), together=broadcastable(2), dtype=st.sampled_from(NEEDED["floor_divide"]))
def test_floor_divide_rounds_down(ops: TensorOps, data: st.DataObject, together: Any, dtype: str) -> None:
    x = data.draw(integers(together[0], dtype))
    y = data.draw(integers(together[1], dtype, low=1))
    expected = wrapped(x.astype(object) // y.astype(object), dtype)
    check_same(ops, "floor_divide", (lay(ops, x, dtype=dtype), lay(ops, y, dtype=dtype)), expected, dtype)


@pytest.mark.clause("OPS-03")
@given(data=st.data(), shape=shapes(0), dtype=st.sampled_from(UNSIGNED), layout=layouts)
def test_right_shift_fills_with_zeros(ops: TensorOps, data: st.DataObject, shape: Any, dtype: str, layout: Any) -> None:
    x = data.draw(integers(shape, dtype))
    distance = data.draw(st.integers(0, 8 * x.itemsize - 1))
    arguments = lay(ops, x, layout, dtype), ops.full((), distance, dtype)
    check_same(ops, "right_shift", arguments, wrapped(x.astype(object) >> distance, dtype), dtype)


@pytest.mark.clause("OPS-04")
@given(data=st.data(), together=broadcastable(2), dtype=st.sampled_from(["float", "int64", "int32"]))
def test_comparisons(ops: TensorOps, data: st.DataObject, together: Any, dtype: str) -> None:
    x, y = (data.draw(integers(shape, "uint8", 0, 3)).astype(np.float64) for shape in together)
    if dtype == "float" and x.size:
        x.flat[0] = np.nan  # neither less than nor equal to anything
    name = ops.float_dtype if dtype == "float" else dtype
    arguments = lay(ops, x, dtype=name), lay(ops, y, dtype=name)
    check_same(ops, "less", arguments, x < y, "bool")
    check_same(ops, "equal", arguments, x == y, "bool")


@pytest.mark.clause("OPS-04")
@given(data=st.data(), together=broadcastable(3), layout=layouts)
def test_where_chooses_and_never_mixes(ops: TensorOps, data: st.DataObject, together: Any, layout: Any) -> None:
    condition = data.draw(integers(together[0], "bool"))
    x, y = (data.draw(floats(shape)).astype(np.float64) for shape in together[1:])
    x = np.where(np.round(x) == 1, np.nan, x)  # the operand that is not selected may be anything
    check(ops, "where", (lay(ops, condition, layout, "bool"), lay(ops, x), lay(ops, y)), np.where(condition, x, y))


@pytest.mark.clause("OPS-08")
@given(data=st.data(), batch=shapes(0, 2, 3), sides=st.tuples(*[st.integers(1, 40)] * 3), layout=layouts)
def test_matmul(ops: TensorOps, data: st.DataObject, batch: Any, sides: tuple[int, int, int], layout: Any) -> None:
    m, k, n = sides
    x = data.draw(floats((*batch, m, k))).astype(np.float64)
    y = data.draw(floats((*batch, k, n))).astype(np.float64)
    check(ops, "matmul", (lay(ops, x, layout), lay(ops, y, layout)), oracles.matmul(x, y))


REDUCTIONS = {
    "sum": oracles.total,
    "max": lambda x, axis: oracles.exact(x.max(axis, keepdims=True)),
    "cumsum": oracles.running_total,
    "mean": oracles.mean,
}


@pytest.mark.clause("OPS-04")
@pytest.mark.parametrize("name", REDUCTIONS)
@given(data=st.data(), shape=shapes(1, 3, 40), layout=layouts)
def test_reductions_keep_the_axis(ops: TensorOps, data: st.DataObject, name: str, shape: Any, layout: Any) -> None:
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    x = data.draw(floats(shape)).astype(np.float64)
    check(ops, name, (lay(ops, x, layout), axis), REDUCTIONS[name](x, axis))


@pytest.mark.clause("OPS-04")
@given(data=st.data(), shape=shapes(1, 3), dtype=st.sampled_from(["int64", "int32"]))
def test_integer_reductions_are_exact(ops: TensorOps, data: st.DataObject, shape: Any, dtype: str) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = data.draw(integers(shape, dtype, -1000, 1000))
    results = {"sum": x.sum(axis, keepdims=True), "max": x.max(axis, keepdims=True), "cumsum": np.cumsum(x, axis)}
    for name, result in results.items():
        check_same(ops, name, (lay(ops, x, dtype=dtype), axis), result.astype(dtype), dtype)


@st.composite
def rows_with_ties(draw: st.DrawFn, shape: Any) -> Any:
    """Few distinct values, both zeros among them, or any values."""
    if draw(st.booleans()):
        return draw(floats(shape)).astype(np.float64)
    palette = np.array([-np.inf, -1.0, -0.0, 0.0, 1.0])
    return palette[draw(integers(shape, "uint8", 0, 4))]


@pytest.mark.clause("OPS-05")
@given(data=st.data(), shape=shapes(1, 3, 40), layout=layouts)
def test_the_lowest_index_wins_a_tie(ops: TensorOps, data: st.DataObject, shape: Any, layout: Any) -> None:
    x = data.draw(rows_with_ties(shape))
    tensor = lay(ops, x, layout)
    order = oracles.argsort(x)
    check_same(ops, "argsort", (tensor,), order, "int64")
    check_same(ops, "argmax", (tensor, -1), order[..., 0], "int64")
    check_same(ops, "sort", (tensor,), np.take_along_axis(x, order, -1), ops.float_dtype)
    k = data.draw(st.integers(1, shape[-1]))
    values, indices = ops.top_k(tensor, k)
    assert_close(host(ops, values), np.take_along_axis(x, order, -1)[..., :k], ops.float_dtype)
    assert np.array_equal(host(ops, indices), order[..., :k])


@pytest.mark.clause("OPS-05")
@given(data=st.data(), shape=shapes(1, 3, 9))
def test_argmax_along_any_axis(ops: TensorOps, data: st.DataObject, shape: Any) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = data.draw(rows_with_ties(shape))
    first = oracles.argsort(np.moveaxis(x, axis, -1))[..., 0]
    check_same(ops, "argmax", (lay(ops, x), axis), first, "int64")

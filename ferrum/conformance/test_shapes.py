"""Properties of the primitives that make, move and convert values.

Owns: the promises OPS-06, OPS-07 and OPS-09. Refuses to know: arithmetic. Next: `ferrum.conformance.test_compositions`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance.harness import call_unchanged, check_same, host
from ferrum.conformance.strategies import Host, floats, integers, lay, layouts, shapes
from ferrum.conformance.tolerances import assert_same
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES, host_dtype
from ferrum.tensor.parts import GatedMlp
from ferrum.tensor.weights import Dense, Linear

FLOATS = ("float64", "float32", "float16", "bfloat16")


def values_of(data: st.DataObject, shape: Any, dtype: str) -> Host:
    if dtype in FLOATS:
        return data.draw(floats(shape)).astype(host_dtype(dtype))
    return data.draw(integers(shape, dtype))


@pytest.mark.clause("OPS-06")
@given(data=st.data(), shape=shapes(0), dtype=st.sampled_from(DTYPES), layout=layouts)
def test_a_tensor_remembers_what_it_was_made_of(
    ops: TensorOps, data: st.DataObject, shape: Any, dtype: str, layout: Any
) -> None:
    values = values_of(data, shape, dtype)
    tensor = lay(ops, values, layout, dtype)
    assert tuple(tensor.shape) == shape
    assert str(tensor.dtype) == dtype
    back = ops.to_numpy(tensor)
    assert isinstance(back, np.ndarray)
    assert back.dtype == values.dtype
    assert_same(back, values)


@pytest.mark.clause("OPS-06")
@pytest.mark.parametrize("dtype", DTYPES)
def test_factories(ops: TensorOps, dtype: str) -> None:
    assert tuple(ops.empty((2, 0, 3), dtype).shape) == (2, 0, 3)
    assert str(ops.empty((2,), dtype).dtype) == dtype
    for shape in ((), (3,), (2, 3)):
        for tensor, value in (
            (ops.full(shape, 1, dtype), 1),
            (ops.zeros(shape, dtype), 0),
            (ops.ones(shape, dtype), 1),
        ):
            assert str(tensor.dtype) == dtype
            assert_same(host(ops, tensor), np.full(shape, value, host_dtype(dtype)))
    assert_same(host(ops, ops.asarray([[0, 1], [1, 0]], dtype)), np.array([[0, 1], [1, 0]], host_dtype(dtype)))


@pytest.mark.clause("OPS-06")
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64", "float32", "float64"])
@pytest.mark.parametrize("count", [0, 1, 7])
def test_arange_counts_from_zero(ops: TensorOps, dtype: str, count: int) -> None:
    check_same(ops, "arange", (count, dtype), np.array(range(count), dtype), dtype)


NUMBERS: dict[str, list[float]] = {
    "float64": [0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 0.1, 2.0**-1074],
    "float32": [0.0, -0.0, 1.0, math.nan, math.inf, -math.inf, 2.0**-149],
    "int64": [0, 1, -1, 2**53 + 1, 2**53, -(2**63)],
    "int32": [0, 1, -1, 2**31 - 1],
    "uint64": [0, 1, 2**64 - 1, 2**63, 0xD2511F53],
    "uint8": [0, 1, 255],
    "bool": [0, 1],
}


@pytest.mark.clause("OPS-65")
def test_a_constant_is_the_number_that_was_asked_for(ops: TensorOps) -> None:
    for _ in range(2):  # made, then found
        for dtype, values in NUMBERS.items():
            for value in values:
                check_same(ops, "constant", (value, dtype), np.array(value, host_dtype(dtype)), dtype)
        for zero in (0.0, -0.0):
            assert math.copysign(1, host(ops, ops.scalar(zero))) == math.copysign(1, zero)


@pytest.mark.clause("OPS-65")
def test_no_operation_writes_a_constant(ops: TensorOps) -> None:
    one, x = ops.scalar(1), ops.zeros((2, 2), ops.float_dtype)
    for y in (ops.add(x, one), ops.mul(one, one), ops.maximum(one, one), ops.where(ops.less(x, one), x, one)):
        if y.shape:
            ops.put(y, (ops.zeros((1,), "int64"),), ops.full((1, 2), 7, ops.float_dtype))
    ops.put(x, (ops.zeros((1,), "int64"),), ops.reshape(one, (1, 1)))
    ops.put(x, (ops.zeros((1,), "int64"),), ops.full((1, 2), 7, ops.float_dtype))
    assert host(ops, one) == host(ops, ops.scalar(1)) == 1


def test_scalar_has_the_float_type(ops: TensorOps) -> None:
    check_same(ops, "scalar", (0.5,), np.array(0.5), ops.float_dtype)


@pytest.mark.clause("OPS-07")
@given(data=st.data(), shape=shapes(0), to=st.sampled_from(FLOATS), layout=layouts)
def test_cast_rounds_to_nearest_even(ops: TensorOps, data: st.DataObject, shape: Any, to: str, layout: Any) -> None:
    x = data.draw(floats(shape))
    expected = round_to(x, to)
    check_same(ops, "cast", (lay(ops, x, layout, "float32"), to), expected, to)


def round_to(x: Host, dtype: str) -> Host:
    """float32 -> dtype; bfloat16 by integer arithmetic on the bits: round half to even, then drop the lower half."""
    if dtype != "bfloat16":
        return x.astype(dtype)
    bits = np.ascontiguousarray(x).view(np.uint32).astype(np.uint64)
    rounded_bits = (bits + 0x7FFF + ((bits >> np.uint64(16)) & np.uint64(1))) >> np.uint64(16)
    return rounded_bits.astype(np.uint16).view(host_dtype("bfloat16")).reshape(x.shape)


HALFWAY = np.array([1 + 2**-8, 1 + 3 * 2**-8, 1 + 2**-11, 1 + 3 * 2**-11, -1 - 2**-8, 65504.0, 2.0**-24, 3 * 2.0**-25])


@pytest.mark.clause("OPS-07")
@pytest.mark.parametrize("to", FLOATS)
def test_cast_halfway_cases(ops: TensorOps, to: str) -> None:
    x = np.tile(HALFWAY, 5).astype(np.float32)
    special = np.array([np.inf, -np.inf, np.nan], np.float32)
    check_same(ops, "cast", (lay(ops, x, dtype="float32"), to), round_to(x, to), to)
    check_same(ops, "cast", (lay(ops, special, dtype="float32"), to), special, to)


@pytest.mark.clause("OPS-07")
@given(data=st.data(), shape=shapes(0), source=st.sampled_from(DTYPES), to=st.sampled_from(DTYPES))
def test_cast_of_what_both_types_hold(ops: TensorOps, data: st.DataObject, shape: Any, source: str, to: str) -> None:
    top = 1 if "bool" in (source, to) else 100
    values = data.draw(integers(shape, "uint8", 0, top))
    x = lay(ops, values, dtype=source)
    check_same(ops, "cast", (x, to), values.astype(host_dtype(to)), to)


@pytest.mark.clause("OPS-07")
@given(data=st.data(), lead=shapes(0, 2), count=st.integers(1, 9), layout=layouts)
@pytest.mark.parametrize("to", ["float16", "bfloat16", "int8", "float32", "uint32"])
def test_bitcast_keeps_the_bytes(
    ops: TensorOps, data: st.DataObject, lead: Any, count: int, layout: Any, to: str
) -> None:
    raw = data.draw(integers((*lead, count * host_dtype(to).itemsize), "uint8", 0, 100))  # no NaN: 100 < 0x7F
    expected = np.frombuffer(raw.tobytes(), host_dtype(to)).reshape(*lead, count)
    check_same(ops, "bitcast", (lay(ops, raw, layout, "uint8"), to), expected, to)


@pytest.mark.clause("OPS-06")
@given(data=st.data(), shape=shapes(1, 4), dtype=st.sampled_from(DTYPES), layout=layouts)
def test_shape_operations_move_values(ops: TensorOps, data: st.DataObject, shape: Any, dtype: str, layout: Any) -> None:
    x = values_of(data, shape, dtype)
    tensor = lay(ops, x, layout, dtype)
    axes = data.draw(st.permutations(range(len(shape))))
    axis = data.draw(st.integers(-len(shape), len(shape) - 1))
    wide = (data.draw(st.integers(1, 3)), *shape)
    for name, arguments, expected in (
        ("permute", (axes,), np.transpose(x, axes)),
        ("reshape", ((x.size,),), np.array(list(x.flat))),
        ("reshape", ((shape[0], -1),), x.reshape(shape[0], -1)),
        ("reshape", ((*shape, 1),), x[..., None]),
        ("broadcast_to", (wide,), np.stack([x] * wide[0])),
    ):
        check_same(ops, name, (tensor, *arguments), expected, dtype)
    if len(shape) > 1:
        check_same(ops, "transpose", (tensor,), np.swapaxes(x, -1, -2), dtype)
    sizes = data.draw(pieces(shape[axis]))
    parts = call_unchanged(ops, ops.split, (tensor, sizes, axis))
    ends = np.cumsum(sizes)
    for part, size, end in zip(parts, sizes, ends, strict=True):
        assert_same(host(ops, part), x.take(range(end - size, end), axis))
    check_same(ops, "concat", (parts, axis), x, dtype)


@st.composite
def pieces(draw: st.DrawFn, total: int) -> list[int]:
    """Sizes that add up to total; some may be zero."""
    cuts = sorted(draw(st.lists(st.integers(0, total), max_size=3)))
    return [end - start for start, end in zip([0, *cuts], [*cuts, total], strict=True)]


@pytest.mark.clause("OPS-06")
@given(data=st.data(), shape=shapes(1, 3), indices=shapes(0, 2), layout=layouts)
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "int32", "uint8"])
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_take_replaces_an_axis(
    ops: TensorOps, data: st.DataObject, shape: Any, indices: Any, layout: Any, dtype: str, index_dtype: str
) -> None:
    axis = data.draw(st.integers(0, len(shape) - 1))
    x = values_of(data, shape, dtype)
    places = data.draw(integers(indices, index_dtype, 0, shape[axis] - 1))
    moved = np.moveaxis(x, axis, 0)
    picked = np.array([moved[i] for i in places.flat]).reshape((*indices, *moved.shape[1:]))
    expected = np.moveaxis(picked, range(len(indices)), range(axis, axis + len(indices)))
    arguments = lay(ops, x, layout, dtype), lay(ops, places, dtype=index_dtype), axis
    check_same(ops, "take", arguments, expected, dtype)


@pytest.mark.clause("OPS-06")
@given(data=st.data(), shape=shapes(1, 3), count=st.integers(1, 9), layout=layouts)
def test_take_along_picks_in_each_row(ops: TensorOps, data: st.DataObject, shape: Any, count: int, layout: Any) -> None:
    x = data.draw(floats(shape)).astype(np.float64)
    places = data.draw(integers((*shape[:-1], count), "int64", 0, shape[-1] - 1))
    pairs = zip(x.reshape(-1, shape[-1]), places.reshape(-1, count), strict=True)
    expected = np.array([[row[i] for i in columns] for row, columns in pairs]).reshape(places.shape)
    arguments = lay(ops, x, layout), lay(ops, places, layout, "int64")
    check_same(ops, "take_along", arguments, expected, ops.float_dtype)


@pytest.mark.clause("OPS-06")
@given(data=st.data(), shape=shapes(1, 3), dtype=st.sampled_from(DTYPES))
@pytest.mark.parametrize("index_dtype", ["int32", "int64"])
def test_put_writes_whole_rows(ops: TensorOps, data: st.DataObject, shape: Any, dtype: str, index_dtype: str) -> None:
    rows = data.draw(st.lists(st.integers(0, shape[0] - 1), unique=True))
    values, expected = values_of(data, (len(rows), *shape[1:]), dtype), values_of(data, shape, dtype)
    target = lay(ops, expected, dtype=dtype)
    ops.put(target, (lay(ops, np.array(rows, index_dtype), dtype=index_dtype),), lay(ops, values, dtype=dtype))
    expected = expected.copy()
    expected[rows] = values
    assert_same(host(ops, target), expected)


@pytest.mark.clause("OPS-06")
@given(data=st.data(), shape=shapes(2, 4), dtype=st.sampled_from(["float32", "bfloat16", "int32"]))
def test_put_writes_through_views(ops: TensorOps, data: st.DataObject, shape: Any, dtype: str) -> None:
    flat = data.draw(st.lists(st.integers(0, shape[0] * shape[1] - 1), unique=True))
    first, second = np.array([divmod(i, shape[1]) for i in flat], np.int64).reshape(-1, 2).T
    values = values_of(data, (len(flat), *shape[2:]), dtype)
    expected = np.zeros(shape, host_dtype(dtype))
    for i, j, value in zip(first, second, values, strict=True):
        expected[i, j] = value
    # written through a permuted view: the tensor it views must change
    base = ops.zeros((*shape[1:], shape[0]), dtype)
    last = len(shape) - 1
    view = ops.permute(base, (last, *range(last)))
    indices = lay(ops, first, dtype="int64"), lay(ops, second, dtype="int64")
    ops.put(view, indices, lay(ops, values, dtype=dtype))
    assert_same(host(ops, base), np.moveaxis(expected, 0, -1))


NEW_RESULTS: dict[str, Callable[[TensorOps, Any], Any]] = {
    "add": lambda ops, x: ops.add(x, ops.scalar(0)),
    "mul": lambda ops, x: ops.mul(x, ops.scalar(1)),
    "maximum": lambda ops, x: ops.maximum(x, x),
    "where": lambda ops, x: ops.where(ops.full((), True, "bool"), x, x),
    "sum": lambda ops, x: ops.sum(x, 0),
    "max": lambda ops, x: ops.max(x, 0),
    "cumsum": lambda ops, x: ops.cumsum(x, 0),
    "concat": lambda ops, x: ops.concat((x,), 0),
    "take": lambda ops, x: ops.take(x, ops.arange(1, "int64")),
    "take_along": lambda ops, x: ops.take_along(x, ops.zeros((1, 1), "int64")),
    "relu": lambda ops, x: ops.relu(x),
    "silu": lambda ops, x: ops.silu(x),
    "gated": lambda ops, x: ops.gated(x, x, GatedMlp(Linear(Dense(x)), Linear(Dense(x)), Linear(Dense(x)))),
    "residual_add": lambda ops, x: ops.residual_add(ops.zeros((1, 1), ops.float_dtype), x),
    "softmax": lambda ops, x: ops.softmax(x),
    "log_softmax": lambda ops, x: ops.log_softmax(x),
    "sort": lambda ops, x: ops.sort(x),
    "top_k": lambda ops, x: ops.top_k(x, 1)[0],
    "rms_norm": lambda ops, x: ops.rms_norm(x, ops.ones((1,), ops.float_dtype), 0.0),
}


@pytest.mark.clause("OPS-09")
@pytest.mark.parametrize("name", NEW_RESULTS)
def test_a_result_is_a_new_tensor(ops: TensorOps, name: str) -> None:
    x = ops.ones((1, 1), ops.float_dtype)  # the same shape, for which nothing is moved
    result = NEW_RESULTS[name](ops, x)
    ops.put(result, (ops.zeros((1,), "int64"),), ops.full((1, 1), 7, ops.float_dtype))
    assert_same(host(ops, x), np.ones((1, 1)))
    ops.put(x, (ops.zeros((1,), "int64"),), ops.full((1, 1), 5, ops.float_dtype))
    assert_same(host(ops, result), np.full((1, 1), 7.0))

"""Properties of memory: results last, share nothing with operands, and what a backend remembers is never out of date.

Owns: the promises OPS-09 and OPS-79. Refuses to know: which results are right, but where a stale one would be wrong.
Next: `specs/OPS.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace

import numpy as np
import pytest

from ferrum.conformance import oracles, parts
from ferrum.conformance.calls import CALLS, PLAIN, of_weights, results
from ferrum.conformance.harness import check, host, tensors_in
from ferrum.conformance.large import large_linear, large_weight, normal
from ferrum.conformance.oracles import Expected, exact
from ferrum.conformance.paged import Rotation, placed_case
from ferrum.conformance.strategies import KINDS, Layout, lay
from ferrum.conformance.test_attention import check_attention
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Head, Norm
from ferrum.tensor.weights import Linear

ROUNDS = 6
"""Calls of one operation: a backend may have a ring of buffers."""


@pytest.mark.clause("OPS-09")
@pytest.mark.parametrize("name", CALLS)
def test_results_outlast_later_calls(ops: TensorOps, name: str) -> None:
    records = []
    for seed in range(ROUNDS):
        outputs = results(ops, name, CALLS[name][1](ops, seed))
        records.append((outputs, [host(ops, each) for each in outputs]))
    for outputs, before in records:
        for each, copy in zip(outputs, before, strict=True):
            assert_same(host(ops, each), copy)


@pytest.mark.clause("OPS-09")
def test_results_outlast_calls_of_other_operations(ops: TensorOps) -> None:
    records = []
    for seed in range(2):
        for name, (_, arguments) in {**PLAIN, **of_weights("q8_0")}.items():
            outputs = results(ops, name, arguments(ops, seed))
            records += [(name, each, host(ops, each)) for each in outputs]
    for name, each, before in records:
        assert np.array_equal(host(ops, each), before, equal_nan=True), f"the result of {name} has changed"


@pytest.mark.clause("OPS-09")
@pytest.mark.parametrize("name", [name for name in CALLS if name not in ("bitcast", "dequantize, float32")])
def test_results_share_no_memory_with_operands(ops: TensorOps, name: str) -> None:
    """`bitcast`, and `dequantize` of a dense weight in the backend's own type, are left out: they may return views."""
    arguments = CALLS[name][1](ops, 0)
    outputs = results(ops, name, arguments)
    inputs = list(tensors_in(arguments))
    before = [host(ops, each) for each in inputs]
    for number, each in enumerate(outputs):
        copies = [host(ops, later) for later in outputs[number + 1 :]]
        overwrite(ops, each)
        for later, copy in zip(outputs[number + 1 :], copies, strict=True):
            assert_same(host(ops, later), copy)
    for each, copy in zip(inputs, before, strict=True):
        assert_same(host(ops, each), copy)
    after = [host(ops, each) for each in outputs]
    for each in inputs:
        overwrite(ops, each)
    for each, copy in zip(outputs, after, strict=True):
        assert_same(host(ops, each), copy)


def overwrite(ops: TensorOps, x: Tensor) -> None:
    shape = tuple(x.shape)
    if shape and shape[0]:
        ops.put(x, (ops.arange(shape[0], "int64"),), ops.ones(shape, str(x.dtype)))


@pytest.mark.clause("OPS-66")
@pytest.mark.parametrize("shape", [(5, 7), (33, 2100)])
def test_what_was_read_outlasts_later_reads(ops: TensorOps, shape: tuple[int, ...]) -> None:
    values = [normal(*shape, seed=seed) for seed in range(ROUNDS)]
    arrays = [ops.to_numpy(ops.add(lay(ops, each), ops.scalar(0))) for each in values]
    for array, each in zip(arrays, values, strict=True):
        assert_close(array, each, ops.float_dtype)


@pytest.mark.clause("OPS-09", "OPS-18")
def test_one_tensor_may_be_every_operand(ops: TensorOps) -> None:
    x, square = normal(5, 64), large_linear("q8_0", 64, 64)
    tensor = lay(ops, x)
    check(ops, "add", (tensor, tensor), exact(2 * x))
    check(ops, "sub", (tensor, tensor), Expected(0 * x, 2 * abs(x)))
    check(ops, "mul", (tensor, tensor), exact(x * x))
    check(ops, "maximum", (tensor, tensor), x)
    check(ops, "where", (ops.less(tensor, tensor), tensor, tensor), x)
    check(ops, "concat", ((tensor, tensor), 0), np.concatenate((x, x)))
    check(ops, "matmul", (tensor, ops.transpose(tensor)), oracles.matmul(x, x.T))
    check(ops, "residual_add", (tensor, tensor), exact(2 * x))
    check(ops, "linear_add", (tensor, square.place(ops), tensor), parts.linear_of(exact(x), square).plus(x))
    mlp = parts.GatedCase(square, square, square, "silu", None, 0.0)
    check(ops, "gated", (tensor, tensor, mlp.place(ops)), mlp.expect_gated(exact(x), exact(x)))
    placed = square.place(ops)
    check(ops, "norm_linears", (tensor, None, [placed, placed]), *[parts.linear_of(exact(x), square)] * 2)


# ---- what a backend may remember
@pytest.mark.clause("OPS-79")
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_at_the_place_of_another_is_another(ops: TensorOps, kind: str) -> None:
    """Python may give a new object the address, and so the id, of one that was freed; a device may do so with
    memory."""
    x = normal(2, 256)
    addresses: set[int] = set()
    for seed in range(64):  # until an address has come again
        case = large_linear(kind, 40, 256, seed)
        placed = case.place(ops)
        check(ops, "linear", (lay(ops, x), placed), parts.linear_of(exact(x), case))
        address = id(placed.weight)
        del placed  # gives the address back
        table = large_weight(kind, 40, 256, seed)
        expected = Expected(table.values[[3, 39]], table.sizes[[3, 39]])
        check(ops, "embed", (table.place(ops), lay(ops, np.array([3, 39]), dtype="int32")), expected)
        if address in addresses and seed >= 7:
            break
        addresses.add(address)


@pytest.mark.clause("OPS-79")
@pytest.mark.parametrize("kind", KINDS)
def test_a_weight_is_what_its_bytes_are_now(ops: TensorOps, kind: str) -> None:
    """The same object, whose data, bias and norm are overwritten between two calls."""
    x, ids = normal(3, 256), np.array([39, 0, 7])
    placed = large_linear(kind, 40, 256).place(ops)
    norm = Norm(lay(ops, normal(256)), 1e-5)
    for seed in range(3):
        case = replace(large_linear(kind, 40, 256, seed), bias=normal(40, seed=seed).astype(np.float32))
        weight = normal(256, seed=seed)
        rewrite(ops, placed.weight.data, lay(ops, case.weight.data, dtype=case.weight.data.dtype.name))
        rewrite(ops, placed.bias, lay(ops, normal(40, seed=seed)))
        rewrite(ops, norm.weight, lay(ops, weight))
        check(ops, "linear", (lay(ops, x), placed), parts.linear_of(exact(x), case))
        normed = parts.NormCase(weight, None, 1e-5, False).expect(exact(x))
        expected = parts.linear_of(normed, case)
        check(ops, "norm_linears", (lay(ops, x), norm, [placed]), expected)
        check(ops, "logits", (lay(ops, x), Head(norm, placed)), expected)
        rows = Expected(case.weight.values[ids], case.weight.sizes[ids])
        check(ops, "embed", (placed.weight, lay(ops, ids, dtype="int32")), rows)
        plain = oracles.linear(x, case.weight.values, case.weight.sizes, None)
        check(ops, "linear", (lay(ops, x), Linear(placed.weight)), plain)


def rewrite(ops: TensorOps, x: Tensor, values: Tensor) -> None:
    ops.put(x, (ops.arange(int(x.shape[0]), "int64"),), values)


@pytest.mark.clause("OPS-79")
def test_a_batch_at_the_place_of_another_is_another(ops: TensorOps) -> None:
    for offset in range(8):
        case = placed_case((30 + offset, 17), (1, 1 + offset % 2), kv_heads=2, group=2, head_dim=32)
        check_attention(ops, case, Layout.CONTIGUOUS)


@pytest.mark.clause("OPS-79")
def test_rotary_tables_are_what_they_are_now(ops: TensorOps) -> None:
    x, positions = normal(3, 2, 32), np.array([0, 5, 9])
    tables = Rotation(normal(10, 16), normal(10, 16)).place(ops)
    for seed in range(3):
        cosines, sines = normal(10, 16, seed=seed), normal(10, 16, seed=seed + 9)
        rewrite(ops, tables.cos, lay(ops, cosines))
        rewrite(ops, tables.sin, lay(ops, sines))
        expected = oracles.rope(x, cosines[positions], sines[positions])
        check(ops, "rope", (lay(ops, x), tables, lay(ops, positions, dtype="int32")), expected)


# ---- views and threads
@pytest.mark.clause("OPS-06", "OPS-09")
@pytest.mark.parametrize("dtype", ["float32", "bfloat16", "uint8"])
@pytest.mark.parametrize("shape", [(5,), (3, 400)])
def test_what_is_made_twice_is_two(ops: TensorOps, shape: tuple[int, ...], dtype: str) -> None:
    makers: tuple[Callable[[], Tensor], ...] = (
        lambda: ops.empty(shape, dtype), lambda: ops.full(shape, 2, dtype), lambda: ops.zeros(shape, dtype),
        lambda: ops.ones(shape, dtype), lambda: ops.asarray(np.full(shape, 2), dtype),
    )  # fmt: skip
    for make in makers:
        first, second = make(), make()
        rewrite(ops, first, ops.full(shape, 1, dtype))
        rewrite(ops, second, ops.full(shape, 3, dtype))
        assert_same(host(ops, first).astype(np.float64), np.ones(shape))


@pytest.mark.clause("OPS-76", "OPS-77")
def test_blocks_of_real_size_are_stored_in_any_order(ops: TensorOps) -> None:
    order = np.random.default_rng(3).permutation(40)
    x = normal(40, 3, 1031)
    places = ops.host_array((40, 3, 1031), ops.float_dtype)
    ops.store(lay(ops, x), places, [int(row) for row in order])
    actual = host(ops, ops.fetch(places, list(range(40)), ops.float_dtype))
    assert_same(actual[order], x.astype(ops.float_dtype))


@pytest.mark.clause("OPS-06")
@pytest.mark.parametrize("dtype", ["float32", "float16", "bfloat16", "uint8"])
def test_a_view_of_a_view_is_written_through(ops: TensorOps, dtype: str) -> None:
    base = ops.zeros((2, 3, 4), dtype)
    view = ops.permute(ops.transpose(base), (1, 0, 2))  # [4, 2, 3]
    places = tuple(lay(ops, np.array(place), dtype="int32") for place in ([3, 0], [1, 0], [2, 1]))
    ops.put(view, places, lay(ops, np.array([5, 6]), dtype=dtype))
    expected = np.zeros((2, 3, 4))
    expected[1, 2, 3], expected[0, 1, 0] = 5, 6
    assert_same(host(ops, base).astype(np.float64), expected)
    assert_same(host(ops, view).astype(np.float64), expected.transpose(2, 0, 1))


@pytest.mark.clause("OPS-66")
def test_another_thread_may_call(ops: TensorOps) -> None:
    x, linear = normal(3, 256), large_linear("q4_1", 40, 256)
    tensor, placed = lay(ops, x), linear.place(ops)
    with ThreadPoolExecutor(1) as executor:
        expected = parts.linear_of(exact(x), linear)
        executor.submit(check, ops, "linear", (tensor, placed), expected).result()
        result = executor.submit(ops.softmax, tensor).result()
    assert_close(host(ops, result), oracles.softmax(x), ops.float_dtype)
    check(ops, "linear", (tensor, placed), expected)

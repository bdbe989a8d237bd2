"""Properties of rare inputs: axes of length 0 wherever they are allowed, and NaN, which must neither vanish nor spread.

Owns: the promises OPS-68 and OPS-80. Refuses to know: ordinary values. Next: `ferrum.conformance.test_refusals`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest

from ferrum.conformance import calls
from ferrum.conformance.calls import CALLS
from ferrum.conformance.harness import check_same, host
from ferrum.conformance.large import normal
from ferrum.conformance.paged import placed_case
from ferrum.conformance.strategies import KINDS, Host, lay
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES, Tensor, host_dtype
from ferrum.tensor.parts import Embedding, Head

# ---- axes of length 0
EMPTY = ((0,), (0, 3), (3, 0), (2, 0, 3), (2, 3, 0), (0, 0))

MOVES: dict[str, tuple[Callable[[TensorOps, Tensor], Tensor], Callable[[Host], Host]]] = {
    "cast": (lambda ops, x: ops.cast(x, "float32"), lambda x: x.astype(np.float32)),
    "reshape": (lambda ops, x: ops.reshape(x, (0, 7)), lambda x: x.reshape(0, 7)),
    "permute": (lambda ops, x: ops.permute(x, tuple(reversed(range(len(x.shape))))), np.transpose),
    "broadcast_to": (lambda ops, x: ops.broadcast_to(x, (2, *x.shape)), lambda x: np.stack((x, x))),
    "concat": (lambda ops, x: ops.concat((x, x), 0), lambda x: np.concatenate((x, x))),
    "concat at the end": (lambda ops, x: ops.concat((x, x, x), -1), lambda x: np.concatenate((x, x, x), -1)),
    "split": (lambda ops, x: ops.split(x, (0, x.shape[-1]), -1)[1], lambda x: x),
    "take": (lambda ops, x: ops.take(x, ops.zeros((0,), "int32"), 0), lambda x: x[:0]),
}


@pytest.mark.clause("OPS-68")
@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("shape", EMPTY)
def test_nothing_of_any_type_is_moved(ops: TensorOps, shape: tuple[int, ...], dtype: str) -> None:
    x = np.zeros(shape, host_dtype(dtype))
    for name, (move, expected) in MOVES.items():
        actual = move(ops, lay(ops, x, dtype=dtype))
        reference = expected(x)
        assert (name, tuple(actual.shape), str(actual.dtype)) == (name, reference.shape, reference.dtype.name)
        assert host(ops, actual).shape == reference.shape


ELEMENTWISE = {
    "add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum, "less": np.less,
    "equal": np.equal,
}  # fmt: skip


@pytest.mark.clause("OPS-68")
@pytest.mark.parametrize("shape", EMPTY)
def test_nothing_is_computed(ops: TensorOps, shape: tuple[int, ...]) -> None:
    x = np.zeros(shape)
    tensor, one = lay(ops, x), ops.scalar(1)
    for name, function in ELEMENTWISE.items():
        reference = function(x, 1.0)
        dtype = "bool" if reference.dtype == bool else ops.float_dtype
        check_same(ops, name, (tensor, one), reference, dtype)
        check_same(ops, name, (one, tensor), reference, dtype)
    for name in ("exp", "log", "rsqrt", "tanh", "erf", "cos", "sin"):
        check_same(ops, name, (tensor,), x, ops.float_dtype)
    check_same(ops, "where", (ops.equal(tensor, tensor), tensor, one), x, ops.float_dtype)
    for axis in range(len(shape)):
        check_same(ops, "sum", (tensor, axis), x.sum(axis, keepdims=True), ops.float_dtype)
        check_same(ops, "cumsum", (tensor, axis), x, ops.float_dtype)
        if shape[axis]:
            check_same(ops, "max", (tensor, axis), x.max(axis, keepdims=True), ops.float_dtype)
            check_same(ops, "argmax", (tensor, axis), x.argmax(axis), "int64")
    if shape[-1]:
        check_same(ops, "argsort", (tensor,), x.astype(np.int64), "int64")


@pytest.mark.clause("OPS-68")
@pytest.mark.parametrize(("first", "second"), [((0, 3), (3, 4)), ((2, 3), (3, 0)), ((0, 2, 3), (0, 3, 4))])
def test_no_rows_no_columns_and_no_matrices_are_multiplied(ops: TensorOps, first: Any, second: Any) -> None:
    x, y = np.zeros(first), np.zeros(second)
    check_same(ops, "matmul", (lay(ops, x), lay(ops, y)), x @ y, ops.float_dtype)


ROW_WISE = (
    "relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "sigmoid", "activated", "minimum", "softcapped", "softmax",
    "log_softmax", "rms_norm", "normed", "normed, centred", "top_k", "sort", "mean", "norm_activated",
    *(f"{name}, {kind}" for name in ("linear", "norm_linears", "norm_gated", "logits") for kind in KINDS),
)  # fmt: skip


@pytest.mark.clause("OPS-68")
@pytest.mark.parametrize("name", ROW_WISE)
def test_a_step_that_wants_no_rows_computes_none(ops: TensorOps, name: str) -> None:
    """The last operations of a chunk in the middle of a prompt, or those of an expert without tokens."""
    operation, arguments = CALLS[name]
    inputs = arguments(ops, 0)
    empty_inputs = (ops.zeros((0, calls.WIDTH), ops.float_dtype), *inputs[1:])
    full, empty = (getattr(ops, operation)(*each) for each in (inputs, empty_inputs))
    pairs = zip(full, empty, strict=True) if isinstance(full, tuple) else [(full, empty)]
    for result, empty_result in pairs:
        assert (tuple(empty_result.shape), str(empty_result.dtype)) == ((0, *result.shape[1:]), str(result.dtype))
        assert host(ops, empty_result).shape == (0, *result.shape[1:])


# ---- NaN
Use = Callable[[TensorOps, Tensor], Tensor]


def of(name: str, *arguments: Any) -> Use:
    return lambda ops, x: getattr(ops, name)(x, *arguments)


def linear_of(kind: str) -> Use:
    return lambda ops, x: ops.linear(x, calls.linear(ops, 1, kind))


def gated_of(kind: str) -> Use:
    return lambda ops, x: ops.norm_gated(x, calls.norm(ops, 1), calls.mlp(ops, 1, kind))


SPREADS: dict[str, Use] = {
    "softmax": of("softmax"), "log_softmax": of("log_softmax"), "sum": of("sum", -1), "max": of("max", -1),
    "mean": of("mean", -1),
    "normed": lambda ops, x: ops.normed(x, calls.norm(ops, 1)),
    "normed, centred": lambda ops, x: ops.normed(x, calls.norm(ops, 1, centred=True)),
    "matmul": lambda ops, x: ops.matmul(x, calls.x(ops, 1, calls.WIDTH, 33)),
    "logits": lambda ops, x: ops.logits(x, Head(calls.norm(ops, 1), calls.linear(ops, 1), 2.0, 30.0)),
    **{f"linear, {kind}": linear_of(kind) for kind in KINDS},
    **{f"norm_gated, {kind}": gated_of(kind) for kind in KINDS},
}  # fmt: skip
"""[rows, width] -> [rows, …], of which every element depends on all of its row."""

STAYS: dict[str, Use] = {
    **{name: of(name) for name in ("relu", "gelu", "gelu_tanh", "quick_gelu", "silu", "sigmoid")},
    **{name: of(name) for name in ("exp", "log", "rsqrt", "tanh", "erf", "cos", "sin")},
    "softcapped": of("softcapped", 2.0),
    "minimum": of("minimum", 0.5),
    "residual_add": lambda ops, x: ops.residual_add(x, ops.ones(tuple(x.shape), ops.float_dtype)),
    "gated": lambda ops, x: ops.gated(ops.ones(tuple(x.shape), ops.float_dtype), x, calls.mlp(ops, 1)),
    "gate": lambda ops, x: ops.gated(x, ops.ones(tuple(x.shape), ops.float_dtype), calls.mlp(ops, 1)),
    "cast": of("cast", "float16"),
}
"""[rows, width] -> same shape, elementwise."""


def with_a_nan(rows: int, place: tuple[int, int]) -> Host:
    x = np.abs(normal(rows, calls.WIDTH)) + 0.1
    x[place] = np.nan
    return x


@pytest.mark.clause("OPS-80")
@pytest.mark.parametrize("rows", [1, 5, 70])
@pytest.mark.parametrize("name", [*SPREADS, *STAYS])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_nan_is_seen_in_its_own_row_and_no_other(ops: TensorOps, name: str, rows: int) -> None:
    """A NaN that vanishes hides its cause; a NaN that spreads destroys other requests' answers."""
    for place in ((0, 0), (rows - 1, calls.WIDTH - 1), (rows // 2, 37)):
        actual = np.isnan(host(ops, {**SPREADS, **STAYS}[name](ops, lay(ops, with_a_nan(rows, place)))))
        expected = np.zeros(actual.shape, bool)
        expected[place[0] if name in SPREADS else place] = True
        np.testing.assert_array_equal(actual, expected)


@pytest.mark.clause("OPS-80")
@pytest.mark.parametrize("where", ["query", "key", "value"])
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_a_nan_in_one_sequence_is_not_in_another(ops: TensorOps, where: str) -> None:
    """Two texts in one step. The first is damaged, in a query or in the key or value of its second position."""
    case = placed_case((20, 33), (5, 7), kv_heads=2, group=2, head_dim=32, block_size=16)
    query, (keys, values) = case.query(), case.pool(ops, with_new=True)
    block, offset = divmod(case.slot(0, 1), case.block_size)
    if where == "query":
        query[0, 1, 3] = np.nan
    elif where == "key":
        keys[block, 0, 3, offset] = np.nan
    else:
        values[block, 0, offset, 3] = np.nan
    layer = type(case.layer(ops, True))(lay(ops, keys), lay(ops, values))
    actual = np.isnan(host(ops, ops.paged_attention(lay(ops, query), case.attention(ops), layer, case.batch(ops))))
    expected = np.zeros(actual.shape, bool)
    if where == "query":
        expected[0, 1] = True
    elif where == "key":
        expected[:5, :2] = True  # every query of the first text attends to it, in the two heads that read this one
    else:
        expected[:5, :2, 3] = True
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.clause("OPS-80")
def test_a_nan_in_a_table_is_in_its_row(ops: TensorOps) -> None:
    table = normal(40, 64)
    table[7, 5] = np.nan
    embedding = Embedding(type(calls.linear(ops, 1).weight)(lay(ops, table, dtype="float32")), 2.0)
    ids = lay(ops, np.array([6, 7, 8]), dtype="int32")
    for actual in (ops.embed(embedding.table, ids), ops.mul(ops.embed(embedding.table, ids), ops.scalar(2))):
        expected = np.zeros((3, 64), bool)
        expected[1, 5] = True
        np.testing.assert_array_equal(np.isnan(host(ops, actual)), expected)

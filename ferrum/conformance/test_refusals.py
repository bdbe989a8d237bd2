"""Properties of invalid calls: an exception, never a wrong result, and unchanged operands.

Owns: the promise OPS-81. Refuses to know: which exception, and the content of a tensor that was to be written.
Next: `specs/OPS.md`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ferrum.conformance import calls
from ferrum.conformance.calls import CALLS
from ferrum.conformance.harness import host, tensors_in
from ferrum.conformance.large import normal
from ferrum.conformance.named import load_named
from ferrum.conformance.paged import placed_case
from ferrum.conformance.strategies import KINDS, lay
from ferrum.conformance.tolerances import assert_same
from ferrum.errors import FerrumError
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Head, PlainMlp


def check_refused(ops: TensorOps, name: str, *arguments: Any) -> None:
    """The call raises, and its operands are unchanged, except one that it was to write."""
    inputs = list(tensors_in(arguments[1:] if name in ("put", "kv_write") else arguments))
    before = [host(ops, each) for each in inputs]
    with pytest.raises(Exception):  # noqa: B017 - whatever the backend's library raises
        result = getattr(ops, name)(*arguments)
        for each in result if isinstance(result, tuple) else (result,):
            ops.to_numpy(each)  # a device may report it late
    for each, copy in zip(inputs, before, strict=True):
        assert_same(host(ops, each), copy)


@pytest.mark.clause("OPS-81")
@pytest.mark.parametrize("dtype", ["float8", "quaternion", ""])
def test_an_unknown_type_is_refused(ops: TensorOps, dtype: str) -> None:
    x = calls.x(ops, 0, 2, 4)
    for name, arguments in {
        "asarray": ([1.0, 2.0], dtype), "empty": ((2,), dtype), "full": ((2,), 1, dtype), "zeros": ((2,), dtype),
        "arange": (3, dtype), "cast": (x, dtype), "bitcast": (ops.zeros((2, 8), "uint8"), dtype),
    }.items():  # fmt: skip
        check_refused(ops, name, *arguments)


@pytest.mark.clause("OPS-81")
@pytest.mark.parametrize("name", ["add", "sub", "mul", "div", "maximum", "less", "equal"])
@pytest.mark.parametrize("other", [(5, 6), (4, 7), (2, 7), (3, 5, 7)])
def test_shapes_that_do_not_broadcast_are_refused(ops: TensorOps, name: str, other: tuple[int, ...]) -> None:
    if other == (3, 5, 7):
        check_refused(ops, name, calls.x(ops, 0, 2, 5, 7), calls.x(ops, 1, *other))
    else:
        check_refused(ops, name, calls.x(ops, 0, 5, 7), calls.x(ops, 1, *other))


def three(ops: TensorOps, *shape: int) -> Tensor:
    return calls.x(ops, 3, *shape)


MISFITS: dict[str, tuple[str, Callable[[TensorOps], tuple[Any, ...]]]] = {
    "matmul": ("matmul", lambda ops: (three(ops, 3, 4), three(ops, 5, 3))),
    "where": ("where", lambda ops: (ops.equal(three(ops, 2, 3), three(ops, 2, 3)), three(ops, 2, 4), three(ops, 2, 4))),
    "concat": ("concat", lambda ops: ((three(ops, 2, 3), three(ops, 2, 4)), 0)),
    "reshape": ("reshape", lambda ops: (three(ops, 2, 3), (4, 2))),
    "broadcast_to": ("broadcast_to", lambda ops: (three(ops, 2, 3), (2, 4))),
    "rms_norm": ("rms_norm", lambda ops: (three(ops, 3, 64), three(ops, 63), 1e-5)),
    "layer_norm": ("layer_norm", lambda ops: (three(ops, 3, 64), three(ops, 64), three(ops, 65), 1e-5)),
    "normed": ("normed", lambda ops: (three(ops, 3, 64), calls.norm(ops, 0, 32))),
    "residual_add": ("residual_add", lambda ops: (three(ops, 3, 64), three(ops, 3, 63))),
    "residual_add of rows": ("residual_add", lambda ops: (three(ops, 3, 64), three(ops, 2, 64))),
    "gated": ("gated", lambda ops: (three(ops, 3, 64), three(ops, 3, 63), calls.mlp(ops, 0))),
    "linear_add": (
        "linear_add", lambda ops: (three(ops, 3, 256), calls.linear(ops, 0), three(ops, 2, 64))
    ),
    "norm_linears": (
        "norm_linears", lambda ops: (three(ops, 3, 64), calls.norm(ops, 0, 96), [calls.linear(ops, 0, columns=64)])
    ),
    "norm_activated": (
        "norm_activated", lambda ops: (three(ops, 3, 96), None, PlainMlp(calls.linear(ops, 0), calls.linear(ops, 0)))
    ),
    "norm_experts": ("norm_experts", lambda ops: (three(ops, 3, 96), None, calls.experts(ops, 0))),
}  # fmt: skip


@pytest.mark.clause("OPS-81")
@pytest.mark.parametrize("name", MISFITS)
def test_operands_that_do_not_fit_are_refused(ops: TensorOps, name: str) -> None:
    operation, arguments = MISFITS[name]
    check_refused(ops, operation, *arguments(ops))


@pytest.mark.clause("OPS-43", "OPS-81")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("tokens", [1, 5, 70])
@pytest.mark.parametrize("width", [224, 288, 512])
def test_a_row_of_another_width_than_the_weight_is_refused(ops: TensorOps, kind: str, tokens: int, width: int) -> None:
    """A kernel would read past one of them."""
    x, linear = calls.x(ops, 0, tokens, width), calls.linear(ops, 0, kind)
    check_refused(ops, "linear", x, linear)
    check_refused(ops, "linear_add", x, linear, calls.x(ops, 0, tokens, 64))
    check_refused(ops, "norm_linears", x, None, [linear])
    check_refused(ops, "norm_gated", x, calls.norm(ops, 0, width), calls.mlp(ops, 0, kind))
    check_refused(ops, "logits", x, Head(calls.norm(ops, 0, width), linear))


@pytest.mark.clause("OPS-81")
def test_an_unknown_activation_is_refused(ops: TensorOps) -> None:
    x, mlp = calls.x(ops, 0), replace(calls.mlp(ops, 0), activation="swish")
    check_refused(ops, "activated", x, "swish")
    check_refused(ops, "gated", x, x, mlp)
    check_refused(ops, "norm_gated", x, calls.norm(ops, 0), mlp)
    plain = PlainMlp(calls.linear(ops, 0), calls.linear(ops, 0), "swish")
    check_refused(ops, "norm_activated", x, calls.norm(ops, 0), plain)
    experts = calls.experts(ops, 0)
    check_refused(ops, "norm_experts", x, None, replace(experts, experts=(mlp,) * 4))


@pytest.mark.clause("OPS-81")
@pytest.mark.parametrize("shape", [(4, 3, 32), (4, 2, 16), (4, 2, 33), (3, 2, 32)])
def test_keys_that_do_not_fit_are_refused(ops: TensorOps, shape: tuple[int, ...]) -> None:
    """Too many heads, another width, or fewer tokens than slots."""
    case = placed_case((20, 9), (3, 1), kv_heads=2, head_dim=32)
    layer, slots = case.layer(ops, with_new=False), case.batch(ops).slots
    key, value = calls.x(ops, 0, *shape), calls.x(ops, 1, *shape)
    check_refused(ops, "kv_write", layer, key, value, slots)
    flat = tuple(ops.reshape(each, (shape[0], shape[1] * shape[2])) for each in (key, value))
    if shape != (4, 2, 16):  # whose flat rows are one head for all
        with pytest.raises(Exception):  # noqa: B017
            projections = calls.x(ops, 2, 4, 64), *flat
            host(ops, ops.rope_attention(projections, case.attention(ops), None, layer, case.batch(ops)))


@pytest.mark.clause("OPS-81")
def test_rows_that_do_not_fit_are_refused(ops: TensorOps) -> None:
    x = calls.x(ops, 0, 5, 4)
    check_refused(ops, "put", x, (lay(ops, np.array([1, 2]), dtype="int64"),), calls.x(ops, 1, 2, 3))
    check_refused(ops, "put", x, (lay(ops, np.array([1, 2]), dtype="int64"),), calls.x(ops, 1, 3, 4))


@pytest.mark.clause("OPS-81")
def test_after_a_refusal_everything_is_as_before(ops: TensorOps) -> None:
    """The next call is not affected by work that the refused call had begun."""
    for name in ("linear, q8_0", "norm_gated, float32", "rope_attention"):
        operation, arguments = CALLS[name]
        expected = host(ops, first(getattr(ops, operation)(*arguments(ops, 0))))
        check_refused(ops, "linear", calls.x(ops, 0, 3, 96), calls.linear(ops, 0))
        check_refused(ops, "matmul", three(ops, 3, 4), three(ops, 5, 3))
        actual = host(ops, first(getattr(ops, operation)(*arguments(ops, 0))))
        np.testing.assert_allclose(actual, expected, rtol=1e-4, atol=1e-4)


def first(result: Any) -> Tensor:
    return result[0] if isinstance(result, tuple) else result


@pytest.mark.clause("OPS-81")
@pytest.mark.parametrize("options", [{"no_such_option": 1}, {"float_dtype": "float16"}, {"compute": "int3"}])
def test_an_option_without_a_meaning_is_refused(backend: str, options: dict[str, Any]) -> None:
    with pytest.raises(FerrumError):
        load_named(backend.partition("@")[0], **options)


def test_normal_operands_are_not_refused(ops: TensorOps) -> None:
    """Valid operands, made in the same way as those above."""
    x = lay(ops, normal(3, 256))
    assert tuple(ops.linear(x, calls.linear(ops, 0)).shape) == (3, 64)

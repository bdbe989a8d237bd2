"""Properties of the compositions: activations, normalisation, weights, and the fused pieces of a decoder layer.

Owns: the promises OPS-10 to OPS-18 but for attention. Refuses to know: how a kernel fuses them.
Papers: GELU 1606.08415, SwiGLU 2002.05202, RMSNorm 1910.07467. Next: `ferrum.conformance.test_attention`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance import oracles
from ferrum.conformance.harness import check, host
from ferrum.conformance.oracles import Array, Expected
from ferrum.conformance.strategies import (
    KINDS,
    Host,
    LinearCase,
    WeightCase,
    columns,
    floats,
    integers,
    lay,
    layouts,
    linears,
    rows,
    shapes,
    siblings,
    weights,
)
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.compositions import TensorOps

ACTIVATIONS = {
    "relu": oracles.relu,
    "gelu": oracles.gelu,
    "gelu_tanh": oracles.gelu_tanh,
    "sigmoid": oracles.sigmoid,
    "silu": oracles.silu,
}
EPSILONS = st.sampled_from([1e-6, 1e-5, 1e-3])


@pytest.mark.clause("OPS-13")
@pytest.mark.parametrize("name", ACTIVATIONS)
@given(data=st.data(), shape=shapes(0, 3, 40), layout=layouts)
def test_activations(ops: TensorOps, data: st.DataObject, name: str, shape: Any, layout: Any) -> None:
    x = data.draw(floats(shape, -1000, 1000)).astype(np.float64)
    check(ops, name, (lay(ops, x, layout),), ACTIVATIONS[name](x))


@pytest.mark.clause("OPS-13")
@given(data=st.data(), shape=shapes(1, 3, 40), layout=layouts)
def test_swiglu_gates_with_its_first_argument(ops: TensorOps, data: st.DataObject, shape: Any, layout: Any) -> None:
    gate, up = (data.draw(floats(shape, -200, 200)).astype(np.float64) for _ in range(2))
    check(ops, "swiglu", (lay(ops, gate, layout), lay(ops, up)), oracles.swiglu(gate, up))


@st.composite
def masked_rows(draw: st.DrawFn, shape: Any) -> Array:
    """Scores, some of them masked with -inf, at least one per row not."""
    x = draw(floats(shape, -300, 300)).astype(np.float64)
    masked = draw(integers(shape, "bool"))
    masked[..., draw(st.integers(0, shape[-1] - 1))] = False
    return np.where(masked, -np.inf, x) if draw(st.booleans()) else x


@pytest.mark.clause("OPS-14")
@given(data=st.data(), shape=shapes(1, 3, 40), layout=layouts)
def test_softmax_of_any_row_with_a_survivor(ops: TensorOps, data: st.DataObject, shape: Any, layout: Any) -> None:
    x = data.draw(masked_rows(shape))
    check(ops, "softmax", (lay(ops, x, layout),), oracles.softmax(x))
    check(ops, "log_softmax", (lay(ops, x, layout),), oracles.log_softmax(x))


@pytest.mark.clause("OPS-14")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
def test_softmax_of_an_empty_choice_is_nan(ops: TensorOps) -> None:
    x = np.array([[-np.inf, -np.inf], [0.0, -np.inf]])
    check(ops, "softmax", (lay(ops, x),), np.array([[np.nan, np.nan], [1.0, 0.0]]))


@pytest.mark.clause("OPS-15")
@given(data=st.data(), lead=shapes(0, 2, 6), width=columns, epsilon=EPSILONS, layout=layouts)
def test_norms_add_epsilon_under_the_root(
    ops: TensorOps, data: st.DataObject, lead: Any, width: int, epsilon: float, layout: Any
) -> None:
    x = data.draw(floats((*lead, width), -100, 100)).astype(np.float64)
    x *= 2.0 ** -data.draw(st.sampled_from([0, 10, 20]))  # small rows, where epsilon is all there is; exact in float32
    weight, bias = (data.draw(floats((width,), -3, 3)).astype(np.float64) for _ in range(2))
    placed = lay(ops, x, layout), lay(ops, weight, layout)
    check(ops, "rms_norm", (*placed, epsilon), oracles.rms_norm(x, weight, epsilon))
    check(ops, "layer_norm", (*placed, lay(ops, bias), epsilon), oracles.layer_norm(x, weight, bias, epsilon))


@pytest.mark.clause("OPS-17")
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data())
def test_dequantize_reads_the_bytes(ops: TensorOps, data: st.DataObject, kind: str) -> None:
    weight = data.draw(weights(kind=kind))
    placed = weight.place(ops)
    assert placed.shape == weight.values.shape
    check(ops, "dequantize", (placed,), Expected(weight.values, weight.sizes))


@pytest.mark.clause("OPS-17")
@given(data=st.data(), table=weights(), tokens=rows)
def test_embed_looks_rows_up(ops: TensorOps, data: st.DataObject, table: WeightCase, tokens: int) -> None:
    ids = data.draw(integers((tokens,), "int32", 0, table.values.shape[0] - 1))
    expected = Expected(table.values[ids], table.sizes[ids])
    check(ops, "embed", (table.place(ops), lay(ops, ids, dtype="int32")), expected)


def expect_linear(x: Array, linear: LinearCase) -> Expected:
    return oracles.linear(x, linear.weight.values, linear.weight.sizes, linear.host_bias)


def draw_input(data: st.DataObject, tokens: int, width: int) -> Array:
    return data.draw(floats((tokens, width), -100, 100)).astype(np.float64)


@pytest.mark.clause("OPS-16")
@pytest.mark.parametrize("kind", KINDS)
@given(data=st.data(), tokens=rows, layout=layouts)
def test_linear_with_every_kind_of_weight(
    ops: TensorOps, data: st.DataObject, kind: str, tokens: int, layout: Any
) -> None:
    linear = data.draw(linears(kind=kind))
    x = draw_input(data, tokens, linear.weight.values.shape[1])
    check(ops, "linear", (lay(ops, x, layout), linear.place(ops)), expect_linear(x, linear))


@pytest.mark.clause("OPS-18")
@given(data=st.data(), linear=linears(), tokens=rows, layout=layouts)
def test_linear_add_is_linear_then_add(
    ops: TensorOps, data: st.DataObject, linear: LinearCase, tokens: int, layout: Any
) -> None:
    out, width = linear.weight.values.shape
    x, residual = draw_input(data, tokens, width), draw_input(data, tokens, out)
    arguments = lay(ops, x, layout), linear.place(ops), lay(ops, residual, layout)
    check(ops, "linear_add", arguments, expect_linear(x, linear).plus(residual))


def expect_norm_linear(x: Array, norm: Array, epsilon: float, linear: LinearCase) -> Expected:
    case = linear.weight
    return oracles.norm_linear(x, norm, epsilon, case.values, case.sizes, linear.host_bias)


@pytest.mark.clause("OPS-18")
@given(data=st.data(), width=columns, count=st.integers(1, 3), tokens=rows, epsilon=EPSILONS, layout=layouts)
def test_norm_linears_is_each_linear_of_the_norm(
    ops: TensorOps, data: st.DataObject, width: int, count: int, tokens: int, epsilon: float, layout: Any
) -> None:
    x = draw_input(data, tokens, width)
    norm = data.draw(floats((width,), -3, 3)).astype(np.float64)
    cases = data.draw(siblings(count, width))
    arguments = lay(ops, x, layout), lay(ops, norm, layout), epsilon, [case.place(ops) for case in cases]
    check(ops, "norm_linears", arguments, *(expect_norm_linear(x, norm, epsilon, case) for case in cases))


@pytest.mark.clause("OPS-18")
@given(data=st.data(), width=columns, out=st.integers(1, 70), tokens=rows, epsilon=EPSILONS, layout=layouts)
def test_norm_swiglu_is_swiglu_of_two_linears_of_the_norm(
    ops: TensorOps, data: st.DataObject, width: int, out: int, tokens: int, epsilon: float, layout: Any
) -> None:
    x = draw_input(data, tokens, width)
    norm = data.draw(floats((width,), -1, 1)).astype(np.float64)
    gate, up = data.draw(siblings(2, width, [out, out]))
    expected = oracles.gated(*(expect_norm_linear(x, norm, epsilon, case) for case in (gate, up)))
    arguments = lay(ops, x, layout), lay(ops, norm, layout), epsilon, gate.place(ops), up.place(ops)
    check(ops, "norm_swiglu", arguments, expected)


@pytest.mark.clause("OPS-12")
@given(data=st.data(), width=columns, tokens=st.integers(2, 40))
def test_a_row_of_a_batch_is_the_row_alone(ops: TensorOps, data: st.DataObject, width: int, tokens: int) -> None:
    x = draw_input(data, tokens, width)
    norm = data.draw(floats((width,), -1, 1)).astype(np.float64)
    case = data.draw(linears(columns=width))
    linear, place = case.place(ops), lay(ops, norm)
    row = data.draw(st.integers(0, tokens - 1))
    own = slice(row, row + 1)
    fused = expect_norm_linear(x[own], norm, 1e-5, case)
    expectations: list[tuple[str, tuple[Any, ...], Expected]] = [
        ("rms_norm", (place, 1e-5), oracles.rms_norm(x[own], norm, 1e-5)),
        ("linear", (linear,), expect_linear(x[own], case)),
        ("norm_linears", (place, 1e-5, [linear]), fused),
        ("norm_swiglu", (place, 1e-5, linear, linear), oracles.gated(fused, fused)),
    ]
    for name, rest, expected in expectations:
        together, alone = (first_result(ops, name, lay(ops, part), *rest) for part in (x, x[own]))
        # two roundings of one value: each is within the tolerance of the truth
        twice = Expected(alone.astype(np.float64), 2 * expected.magnitude, expected.terms)
        assert_close(together[own], twice, ops.float_dtype)


def first_result(ops: TensorOps, name: str, *arguments: Any) -> Host:
    result = getattr(ops, name)(*arguments)
    return host(ops, result[0] if isinstance(result, tuple) else result)

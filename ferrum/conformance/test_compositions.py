"""Properties of the plain compositions: activations, normalisation, products with stored weights.

Owns: the promises OPS-10 to OPS-17. Refuses to know: how a kernel computes them.
Papers: GELU 1606.08415, SwiGLU 2002.05202, RMSNorm 1910.07467. Next: `ferrum.conformance.test_parts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance import oracles
from ferrum.conformance.harness import check
from ferrum.conformance.oracles import Array, Expected
from ferrum.conformance.strategies import (
    KINDS,
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
    weights,
)
from ferrum.tensor import parts
from ferrum.tensor.compositions import TensorOps

ACTIVATIONS = {**oracles.ACTIVATIONS, "sigmoid": oracles.sigmoid}
EPSILONS = st.sampled_from([1e-6, 1e-5, 1e-3])


@pytest.mark.clause("OPS-13")
@pytest.mark.parametrize("name", ACTIVATIONS)
@given(data=st.data(), shape=shapes(0, 3, 40), layout=layouts)
def test_activations(ops: TensorOps, data: st.DataObject, name: str, shape: Any, layout: Any) -> None:
    x = data.draw(floats(shape, -1000, 1000)).astype(np.float64)
    check(ops, name, (lay(ops, x, layout),), ACTIVATIONS[name](x))
    if name in parts.ACTIVATIONS:
        check(ops, "activated", (lay(ops, x, layout), name), ACTIVATIONS[name](x))


@st.composite
def masked_rows(draw: st.DrawFn, shape: Any) -> Array:
    """Scores, some of them masked with -inf; at least one in each row is not."""
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
    x *= 2.0 ** -data.draw(st.sampled_from([0, 10, 20]))  # rows much smaller than epsilon; exact in float32
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

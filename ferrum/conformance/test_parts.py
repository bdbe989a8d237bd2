"""Properties of a decoder's operations on its parts, with any value in every field of every part.

Owns: the promises OPS-18 and OPS-37 to OPS-39, without attention. A backend that ignores a field fails here. Refuses to
know: how a kernel fuses them. Next: `ferrum.conformance.test_attention`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ferrum.conformance import oracles, parts
from ferrum.conformance.harness import check, host
from ferrum.conformance.oracles import Array, Expected, exact
from ferrum.conformance.strategies import (
    LinearCase,
    columns,
    floats,
    integers,
    lay,
    layouts,
    linears,
    rows,
    siblings,
    weights,
)
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Embedding, Head

few = st.integers(1, 9)
crowds = st.one_of(few, few, few, st.just(70))  # sometimes as many as a kernel groups
scales = st.sampled_from([1.0, 1.0, 0.22, -3.0])


def draw_input(data: st.DataObject, *shape: int) -> Array:
    return data.draw(floats(shape, -100, 100)).astype(np.float64)


@pytest.mark.clause("OPS-15", "OPS-37")
@given(data=st.data(), width=columns, tokens=rows, layout=layouts)
def test_normed_is_the_norm_that_a_model_has(
    ops: TensorOps, data: st.DataObject, width: int, tokens: int, layout: Any
) -> None:
    x = draw_input(data, tokens, width) * 2.0 ** -data.draw(st.sampled_from([0, 10, 20]))
    norm = data.draw(parts.optional(parts.norms(width)))
    check(ops, "normed", (lay(ops, x, layout), parts.place(ops, norm)), parts.normed(exact(x), norm))


@pytest.mark.clause("OPS-37")
@given(
    data=st.data(),
    head_dim=st.sampled_from([2, 6, 16, 20, 32, 48, 64, 80]),
    heads=st.integers(1, 4),
    tokens=rows,
    layout=layouts,
)
def test_a_norm_of_heads_is_one_for_each_or_one_for_all_together(
    ops: TensorOps, data: st.DataObject, head_dim: int, heads: int, tokens: int, layout: Any
) -> None:
    x = draw_input(data, tokens, heads * head_dim)
    shape = data.draw(st.sampled_from([(head_dim,), (heads, head_dim), (heads * head_dim,)]))
    norm = data.draw(parts.optional(parts.norms(*shape)))
    split = exact(x if shape == (heads * head_dim,) else x.reshape(tokens, heads, head_dim))
    expected = parts.normed(split, norm).reshape(tokens, heads * head_dim)
    check(ops, "head_norm", (lay(ops, x, layout), parts.place(ops, norm), head_dim), expected)


@pytest.mark.clause("OPS-37")
@pytest.mark.parametrize("centred", [True, False])
@pytest.mark.parametrize("head_dim", [6, 32, 80])
def test_each_head_is_normed_by_its_own_numbers(ops: TensorOps, head_dim: int, centred: bool) -> None:
    random = np.random.default_rng(head_dim)
    x, weight, bias = (random.standard_normal(shape) for shape in ((4, 3 * head_dim), (3, head_dim), (3, head_dim)))
    norm = parts.NormCase(weight, bias, 1e-5, centred)
    expected = norm.expect(exact(x.reshape(4, 3, head_dim))).reshape(4, 3 * head_dim)
    check(ops, "head_norm", (lay(ops, x), norm.place(ops), head_dim), expected)


@pytest.mark.clause("OPS-18", "OPS-37")
@given(data=st.data(), width=columns, count=st.integers(1, 3), tokens=rows, layout=layouts)
def test_norm_linears_is_each_linear_of_the_norm(
    ops: TensorOps, data: st.DataObject, width: int, count: int, tokens: int, layout: Any
) -> None:
    x = draw_input(data, tokens, width)
    norm = data.draw(parts.optional(parts.norms(width)))
    cases = data.draw(siblings(count, width))
    arguments = lay(ops, x, layout), parts.place(ops, norm), [case.place(ops) for case in cases]
    normed = parts.normed(exact(x), norm)
    check(ops, "norm_linears", arguments, *(parts.linear_of(normed, case) for case in cases))


def joined(y: Expected, residual: Array, after: parts.NormCase | None, scale: float) -> Expected:
    """residual + scale · after(y)"""
    y = parts.normed(y, after)
    return Expected(scale * y.value, abs(scale) * y.magnitude, y.terms).plus(residual)


@pytest.mark.clause("OPS-18", "OPS-38")
@given(data=st.data(), linear=linears(), tokens=rows, scale=scales, layout=layouts)
def test_linear_add_is_linear_then_norm_then_add(
    ops: TensorOps, data: st.DataObject, linear: LinearCase, tokens: int, scale: float, layout: Any
) -> None:
    out, width = linear.weight.values.shape
    x, residual = draw_input(data, tokens, width), draw_input(data, tokens, out)
    after = data.draw(parts.optional(parts.norms(out)))
    arguments = lay(ops, x, layout), linear.place(ops), lay(ops, residual, layout), parts.place(ops, after), scale
    expected = joined(parts.linear_of(exact(x), linear), residual, after, scale)
    check(ops, "linear_add", arguments, expected)


@pytest.mark.clause("OPS-38")
@given(data=st.data(), width=columns, tokens=rows, scale=scales, layout=layouts)
def test_residual_add_scales_what_is_added(
    ops: TensorOps, data: st.DataObject, width: int, tokens: int, scale: float, layout: Any
) -> None:
    y, residual = (draw_input(data, tokens, width) for _ in range(2))
    after = data.draw(parts.optional(parts.norms(width)))
    arguments = lay(ops, y, layout), lay(ops, residual, layout), parts.place(ops, after), scale
    check(ops, "residual_add", arguments, joined(exact(y), residual, after, scale))


@pytest.mark.clause("OPS-13", "OPS-37")
@given(data=st.data(), middle=st.integers(1, 70), tokens=rows, layout=layouts)
def test_gated_gates_with_its_first_argument(
    ops: TensorOps, data: st.DataObject, middle: int, tokens: int, layout: Any
) -> None:
    gate, up = draw_input(data, tokens, middle), draw_input(data, tokens, middle)
    mlp = data.draw(parts.gated_mlps(8, middle))
    check(
        ops,
        "gated",
        (lay(ops, gate, layout), lay(ops, up), mlp.place(ops)),
        mlp.expect_gated(exact(gate), exact(up)),
    )


def check_inner(
    ops: TensorOps,
    name: str,
    data: st.DataObject,
    width: int,
    mlp: parts.GatedCase | parts.PlainCase,
    tokens: int,
    layout: Any,
) -> None:
    x, norm = draw_input(data, tokens, width), data.draw(parts.optional(parts.norms(width)))
    expected = mlp.expect_inner(parts.normed(exact(x), norm))
    check(ops, name, (lay(ops, x, layout), parts.place(ops, norm), mlp.place(ops)), expected)


@pytest.mark.clause("OPS-18", "OPS-37")
@given(data=st.data(), width=columns, middle=st.integers(1, 70), tokens=rows, layout=layouts)
def test_norm_gated_is_all_but_the_last_linear(
    ops: TensorOps, data: st.DataObject, width: int, middle: int, tokens: int, layout: Any
) -> None:
    check_inner(ops, "norm_gated", data, width, data.draw(parts.gated_mlps(width, middle)), tokens, layout)


@pytest.mark.clause("OPS-18", "OPS-37")
@given(data=st.data(), width=columns, middle=st.integers(1, 70), tokens=rows, layout=layouts)
def test_norm_activated_is_all_but_the_last_linear(
    ops: TensorOps, data: st.DataObject, width: int, middle: int, tokens: int, layout: Any
) -> None:
    check_inner(ops, "norm_activated", data, width, data.draw(parts.plain_mlps(width, middle)), tokens, layout)


@pytest.mark.clause("OPS-39")
@given(
    data=st.data(),
    width=st.sampled_from([12, 32, 64]),
    middle=st.sampled_from([5, 16, 32]),
    tokens=crowds,
    layout=layouts,
)
def test_a_token_is_computed_by_the_experts_that_its_router_chooses(
    ops: TensorOps, data: st.DataObject, width: int, middle: int, tokens: int, layout: Any
) -> None:
    x, norm = draw_input(data, tokens, width), data.draw(parts.optional(parts.norms(width)))
    case = data.draw(parts.experts(width, middle))
    normed = parts.normed(exact(x), norm)
    assume(case.is_clear(normed))
    expected = case.expect(normed)
    check(ops, "norm_experts", (lay(ops, x, layout), parts.place(ops, norm), case.place(ops)), expected)


@pytest.mark.clause("OPS-37")
@given(data=st.data(), width=columns, tokens=few, scale=scales, learned=st.booleans(), common=st.booleans())
def test_embedded_scales_rows_adds_to_them_and_normalises_the_sum(
    ops: TensorOps, data: st.DataObject, width: int, tokens: int, scale: float, learned: bool, common: bool
) -> None:
    table, places = data.draw(weights(columns=width)), data.draw(weights(columns=width))
    ids = data.draw(integers((tokens,), "int32", 0, table.values.shape[0] - 1))
    positions = data.draw(integers((tokens,), "int32", 0, places.values.shape[0] - 1))
    expected = Expected(scale * table.values[ids], abs(scale) * table.sizes[ids])
    if learned:
        expected = Expected(expected.value + places.values[positions], expected.magnitude + places.sizes[positions])
    always = draw_input(data, width) if common else np.zeros(width)
    expected = Expected(expected.value + always, expected.magnitude + np.abs(always))
    norm = data.draw(parts.optional(parts.norms(width)))
    embedding = Embedding(
        table.place(ops),
        scale,
        places.place(ops) if learned else None,
        lay(ops, always) if common else None,
        parts.place(ops, norm),
    )
    zero = np.zeros((1, 1), np.int32)
    fields = (ids, positions, ids, zero[0], zero[0], zero, zero[0])
    tensors = (ops.asarray(np.ascontiguousarray(field, np.int32), "int32") for field in fields)
    batch = StepBatch(*tensors, starts=[0], contexts=[0])
    check(ops, "embedded", (embedding, batch), parts.normed(expected, norm))


@pytest.mark.clause("OPS-37")
@given(
    data=st.data(),
    width=columns,
    linear=st.data(),
    tokens=few,
    scale=scales,
    softcap=st.sampled_from([None, 30.0, 0.5]),
    layout=layouts,
)
def test_logits_are_scaled_and_then_capped(
    ops: TensorOps,
    data: st.DataObject,
    width: int,
    linear: st.DataObject,
    tokens: int,
    scale: float,
    softcap: float | None,
    layout: Any,
) -> None:
    x, norm = draw_input(data, tokens, width), data.draw(parts.norms(width))
    case = linear.draw(linears(columns=width))
    plain = parts.linear_of(norm.expect(exact(x)), case)
    expected = Expected(scale * plain.value, abs(scale) * plain.magnitude, plain.terms)
    if softcap is not None:
        capped = oracles.softcapped(expected.value, softcap)
        expected = Expected(capped.value, expected.magnitude + capped.magnitude, expected.terms)
    head = Head(norm.place(ops), case.place(ops), scale, softcap)
    check(ops, "logits", (lay(ops, x, layout), head), expected)


@pytest.mark.clause("OPS-13")
@given(data=st.data(), width=st.integers(1, 70), tokens=rows, cap=st.sampled_from([0.5, 30.0]), layout=layouts)
def test_softcapped_never_passes_the_cap(
    ops: TensorOps, data: st.DataObject, width: int, tokens: int, cap: float, layout: Any
) -> None:
    x = draw_input(data, tokens, width)
    check(ops, "softcapped", (lay(ops, x, layout), cap), oracles.softcapped(x, cap))


@pytest.mark.clause("OPS-12")
@given(data=st.data(), width=columns, tokens=st.integers(2, 40))
def test_a_row_of_a_batch_is_the_row_alone(ops: TensorOps, data: st.DataObject, width: int, tokens: int) -> None:
    x, norm = draw_input(data, tokens, width), data.draw(parts.norms(width))
    case, mlp = data.draw(linears(columns=width)), data.draw(parts.gated_mlps(width, 32))
    row = data.draw(st.integers(0, tokens - 1))
    place = slice(row, row + 1)
    normed = norm.expect(exact(x[place]))
    expectations: list[tuple[str, tuple[Any, ...], Expected]] = [
        ("normed", (norm.place(ops),), normed),
        ("linear", (case.place(ops),), parts.linear_of(exact(x[place]), case)),
        ("norm_linears", (norm.place(ops), [case.place(ops)]), parts.linear_of(normed, case)),
        ("norm_gated", (norm.place(ops), mlp.place(ops)), mlp.expect_inner(normed)),
    ]
    for name, arguments, expected in expectations:
        together, alone = (first_result(ops, name, lay(ops, part), *arguments) for part in (x, x[place]))
        # two roundings of one value: each is within the tolerance of the exact one
        twice = Expected(alone.astype(np.float64), 2 * expected.magnitude, expected.terms)
        assert_close(together[place], twice, ops.float_dtype)


def first_result(ops: TensorOps, name: str, *arguments: Any) -> Any:
    result = getattr(ops, name)(*arguments)
    return host(ops, result[0] if isinstance(result, tuple) else result)

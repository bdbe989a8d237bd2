"""Properties of deterministic mode, for every backend with the option: a row has the bits that it has alone.

Owns: the promises OPS-45 and OPS-46, operation by operation. Refuses to know: models, and the order in which a backend
adds up. Next: `ferrum.conformance.test_int8`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ferrum.conformance import calls, oracles, parts
from ferrum.conformance.calls import CALLS, results
from ferrum.conformance.harness import check, host
from ferrum.conformance.large import large_linear, normal
from ferrum.conformance.oracles import exact
from ferrum.conformance.paged import PagedCase, Rotation, placed_case
from ferrum.conformance.strategies import KINDS, Host, Layout, lay
from ferrum.conformance.test_attention import check_attention
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Head, PlainMlp

Variant = Callable[..., TensorOps]
"""The backend under test with options; the property is skipped where it does not take them."""


def assert_bits(actual: Host, expected: Host) -> None:
    assert actual.shape == expected.shape
    assert np.array_equal(actual, expected, equal_nan=True), f"{np.mean(actual != expected):.0%} have other bits"


@pytest.mark.clause("OPS-45", "OPS-46")
@pytest.mark.parametrize("name", CALLS)
def test_a_second_call_gives_the_same_bits(variant: Variant, name: str) -> None:
    ops = variant(deterministic=True)
    assert ops.deterministic
    first = [host(ops, each) for each in results(ops, name, CALLS[name][1](ops, 0))]
    for _ in range(3):
        repeated = [host(ops, each) for each in results(ops, name, CALLS[name][1](ops, 0))]
        for actual, expected in zip(repeated, first, strict=True):
            assert_bits(actual, expected)


# ---- a row among other rows
RowWise = Callable[[TensorOps, Tensor], Tensor]
"""[rows, width] -> [rows, ...], a row for each row"""

ROWS = 70
COMPANIES = (slice(0, 1), slice(69, 70), slice(5, 7), slice(8, 17), slice(0, 64), slice(3, 70))
FUNCTIONS = ("exp", "tanh", "erf", "cos", "sin", "sigmoid", "softmax", "log_softmax", *oracles.ACTIVATIONS)


def plain(name: str, *arguments: Any) -> RowWise:
    return lambda ops, x: getattr(ops, name)(x, *arguments)


def of_any_width() -> dict[str, RowWise]:
    """Operations without weights, or with weights of the given width."""
    return {
        **{name: plain(name) for name in FUNCTIONS},
        **{name: plain(name, -1) for name in ("sum", "max", "mean", "cumsum")},
        "log": lambda ops, x: ops.log(ops.mul(x, x)),
        "rsqrt": lambda ops, x: ops.rsqrt(ops.mul(x, x)),
        "matmul": lambda ops, x: ops.matmul(x, calls.x(ops, 1, x.shape[1], 33)),
        "matmul of a view": lambda ops, x: ops.matmul(x, ops.transpose(calls.x(ops, 1, 33, x.shape[1]))),
        "matmul of stacks": lambda ops, x: ops.reshape(
            ops.matmul(ops.reshape(x, (x.shape[0], 1, -1)), ops.ones((x.shape[0], x.shape[1], 5), ops.float_dtype)),
            (x.shape[0], 5),
        ),
        "softcapped": lambda ops, x: ops.softcapped(x, 2.0),
        "rms_norm": lambda ops, x: ops.rms_norm(x, calls.x(ops, 1, x.shape[1]), 1e-5),
        "normed": lambda ops, x: ops.normed(x, calls.norm(ops, 1, x.shape[1])),
        "normed, centred": lambda ops, x: ops.normed(x, calls.norm(ops, 1, x.shape[1], centred=True)),
        "head_norm": lambda ops, x: ops.head_norm(x, calls.norm(ops, 1, x.shape[1] // 2), x.shape[1] // 2),
        "residual_add": lambda ops, x: ops.residual_add(x, x, calls.norm(ops, 1, x.shape[1]), 0.5),
        "gated": lambda ops, x: ops.gated(x, x, calls.mlp(ops, 1)),
    }


def of_blocks(kind: str) -> dict[str, RowWise]:
    """Operations that read weights, [rows, 256] -> …"""
    width = calls.WIDTH
    return {
        "linear": lambda ops, x: ops.linear(x, calls.linear(ops, 1, kind)),
        "linear_add": lambda ops, x: ops.linear_add(x, calls.linear(ops, 1, kind, width), x),
        "norm_linears": lambda ops, x: ops.norm_linears(x, calls.norm(ops, 1), [calls.linear(ops, 1, kind)])[0],
        "norm_gated": lambda ops, x: ops.norm_gated(x, calls.norm(ops, 1), calls.mlp(ops, 1, kind)),
        "norm_activated": lambda ops, x: ops.norm_activated(x, calls.norm(ops, 1), plain_mlp(ops, kind)),
        "norm_experts": lambda ops, x: ops.norm_experts(x, calls.norm(ops, 1), calls.experts(ops, 1)),
        "logits": lambda ops, x: ops.logits(x, Head(calls.norm(ops, 1), calls.linear(ops, 1, kind), 2.0, 30.0)),
    }


def plain_mlp(ops: TensorOps, kind: str) -> PlainMlp:
    return PlainMlp(calls.linear(ops, 1, kind), calls.linear(ops, 2, rows=calls.WIDTH, columns=64))


def check_rows(ops: TensorOps, use: RowWise, width: int) -> None:
    """Rows have the same bits in any subset of rows as among all, at any address."""
    x = normal(ROWS, width)
    together = host(ops, use(ops, lay(ops, x)))
    for rows in COMPANIES:
        layouts = (Layout.CONTIGUOUS, Layout.SPLIT, Layout.PERMUTED) if rows.stop - rows.start < 9 else (Layout.SPLIT,)
        for layout in layouts:
            assert_bits(host(ops, use(ops, lay(ops, x[rows], layout))), together[rows])


@pytest.mark.clause("OPS-46")
@pytest.mark.parametrize("width", [70, 256, 1030])
@pytest.mark.parametrize("name", of_any_width())
def test_a_row_has_the_bits_that_it_has_alone(variant: Variant, name: str, width: int) -> None:
    check_rows(variant(deterministic=True), of_any_width()[name], width)


@pytest.mark.clause("OPS-46")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("name", [name for name in of_blocks("") if name != "norm_experts"])
def test_a_row_of_a_product_has_the_bits_that_it_has_alone(variant: Variant, name: str, kind: str) -> None:
    check_rows(variant(deterministic=True), of_blocks(kind)[name], calls.WIDTH)


@pytest.mark.clause("OPS-46")
def test_a_row_of_a_mixture_has_the_bits_that_it_has_alone(variant: Variant) -> None:
    check_rows(variant(deterministic=True), of_blocks("")["norm_experts"], calls.WIDTH)


# ---- attention in chunks
Plan = list[list[tuple[int, int]]]
"""Steps: which sequences come, and with how many new tokens."""

LENGTHS = (70, 23)
PLANS: dict[str, Plan] = {
    "whole": [[(0, 70)], [(1, 23)]],
    "one by one": [[(sequence, 1)] for sequence in (0, 1) for _ in range(LENGTHS[sequence])],
    "in chunks": [[(0, 9)]] * 7 + [[(1, 22)], [(0, 7)], [(1, 1)]],
    "in company": [[(1, 5), (0, 33)], [(0, 1), (1, 1)], [(0, 35), (1, 16)], [(1, 1), (0, 1)]],
}
FEATURES: dict[str, dict[str, Any]] = {
    "plain": {"kv_heads": 2, "group": 2},
    "windowed": {"window": 11, "group": 3},
    "capped, sinks": {"softcap": 3.0, "sinking": True, "kv_heads": 2},
    "float16": {"kv_dtype": "float16", "kv_heads": 2},
    "bfloat16": {"kv_dtype": "bfloat16", "group": 4},
    "q8_0": {"kv_dtype": "q8_0", "kv_heads": 2, "head_dim": 64},
    "odd heads": {"head_dim": 12, "kv_heads": 2},
}


def stepped(ops: TensorOps, case: PagedCase, plan: Plan) -> list[Host]:
    """The attention of each sequence in these steps. Each step normalises, rotates, stores and attends."""
    half = case.head_dim // 2
    tables = Rotation(normal(80, half, seed=1), normal(80, half, seed=2)).place(ops)
    norm = calls.norm(ops, 1, case.head_dim)
    attention = case.attention(ops, norm, norm)
    layer = replace(case, counts=case.contexts).layer(ops, with_new=False)  # nothing is written yet
    positions = [0, 0]
    outputs: list[list[Host]] = [[], []]
    for step in plan:
        owners, counts = zip(*step, strict=True)
        ends = tuple(positions[owner] + count for owner, count in step)
        batch = replace(case, contexts=ends, counts=counts, tables=tuple(case.tables[owner] for owner in owners))
        rows = [normal(LENGTHS[owner], 3, case.heads * case.head_dim, seed=owner + 7) for owner in (0, 1)]
        inputs = np.concatenate([rows[owner][positions[owner] : end] for owner, end in zip(owners, ends, strict=True)])
        narrow = case.kv_heads * case.head_dim
        projections = tuple(lay(ops, each) for each in (inputs[:, 0], inputs[:, 1, :narrow], inputs[:, 2, :narrow]))
        attended = host(ops, ops.rope_attention(projections, attention, tables, layer, batch.batch(ops)))
        for owner, part in zip(owners, pieces(attended, counts), strict=True):
            outputs[owner].append(part)
            positions[owner] += len(part)
    return [np.concatenate(each) for each in outputs]


def pieces(x: Host, counts: tuple[int, ...]) -> Iterator[Host]:
    yield from np.split(x, np.cumsum(counts)[:-1])


@pytest.mark.clause("OPS-45", "OPS-46")
@pytest.mark.parametrize("features", FEATURES)
def test_attention_has_the_same_bits_however_a_text_is_cut(variant: Variant, features: str) -> None:
    ops, settings = variant(deterministic=True), {"head_dim": 32, **FEATURES[features]}
    case = placed_case(LENGTHS, LENGTHS, block_size=16, **settings)
    whole = stepped(ops, case, PLANS["whole"])
    for name, plan in PLANS.items():
        for cut_case in (case, placed_case(LENGTHS, LENGTHS, block_size=3, **settings)):
            for actual, expected in zip(stepped(ops, cut_case, plan), whole, strict=True):
                assert np.isfinite(expected).all()
                assert np.array_equal(actual, expected), f"{name}: {np.mean(actual != expected):.0%} have other bits"


@pytest.mark.clause("OPS-46")
def test_the_mode_changes_nothing_but_roundings(variant: Variant) -> None:
    ops = variant(deterministic=True)
    x, norm = normal(9, 256), parts.NormCase(normal(256), None, 1e-5, False)
    check(ops, "softmax", (lay(ops, x),), oracles.softmax(x))
    check(ops, "sum", (lay(ops, x), 0), oracles.total(x, 0))
    check(ops, "normed", (lay(ops, x), norm.place(ops)), norm.expect(exact(x)))
    for kind in KINDS:
        linear = large_linear(kind, 33, 256)
        check(ops, "linear", (lay(ops, x), linear.place(ops)), parts.linear_of(exact(x), linear))
    for features in FEATURES.values():
        check_attention(ops, placed_case((40, 9), (7, 1), **features), Layout.CONTIGUOUS)

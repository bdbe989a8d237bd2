"""Properties of parts whose fields are valid but rare: a limit of 0, one expert with its own weight, a scale and a cap.

Owns: fixed operands that random ones seldom combine. Refuses to know: ordinary parts.
Next: `ferrum.conformance.test_rare_operands`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ferrum.conformance import oracles, parts
from ferrum.conformance.harness import check, host, variants
from ferrum.conformance.large import large_linear, normal
from ferrum.conformance.oracles import exact
from ferrum.conformance.paged import Rotation, placed_case
from ferrum.conformance.parts import ExpertsCase, GatedCase, NormCase
from ferrum.conformance.strategies import lay
from ferrum.conformance.test_attention import check_rope_attention
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Embedding, Head
from ferrum.tensor.weights import Dense


def gated_case(seed: int, limit: float | None = None, offset: float = 0.0) -> GatedCase:
    gate, up, down = (large_linear("q8_0", 32, 32, seed=3 * seed + each) for each in range(3))
    return GatedCase(gate, up, down, "silu", limit, offset)


@pytest.mark.clause("OPS-02")
@pytest.mark.parametrize("width", [1, 97, 131, 1030])
def test_functions_of_a_width_that_fills_no_register(ops: TensorOps, width: int) -> None:
    x = normal(3, width)
    check(ops, "sin", (lay(ops, x),), oracles.sin(x))
    check(ops, "cos", (lay(ops, x),), oracles.cos(x))
    check(ops, "tanh", (lay(ops, x),), exact(np.tanh(x)))
    check(ops, "exp", (lay(ops, x),), exact(np.exp(x)))


@pytest.mark.clause("OPS-02")
def test_large_numbers_have_a_quotient(ops: TensorOps) -> None:
    x, y = np.array([3e38, 1e38, -2e38, 3.0]), np.array([2e38, -3e38, 1e38, 1e38])
    x, y = x.astype(np.float32).astype(np.float64), y.astype(np.float32).astype(np.float64)
    check(ops, "div", (lay(ops, x), lay(ops, y)), exact(x / y))


@pytest.mark.clause("OPS-04", "OPS-77")
@pytest.mark.parametrize("count", [9000, 70_001])
def test_a_long_running_total_of_float64_stays_one(ops: TensorOps, count: int) -> None:
    x = np.random.default_rng(count).random((2, count))
    total = ops.cumsum(lay(ops, x, dtype="float64"), -1)
    assert_close(np.array(ops.to_numpy(total)), oracles.running_total(x, -1), "float64")


@pytest.mark.clause("OPS-15", "OPS-37")
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("epsilon", [1e-12, 1e-7, 0.25])
def test_an_epsilon_is_as_small_as_it_is(ops: TensorOps, centred: bool, epsilon: float) -> None:
    x = 1e-4 * normal(3, 48)
    x = x.astype(np.float32).astype(np.float64)
    norm = NormCase(normal(48), None, epsilon, centred)
    check(ops, "normed", (lay(ops, x), norm.place(ops)), norm.expect(exact(x)))


@pytest.mark.clause("OPS-13", "OPS-37")
@pytest.mark.parametrize(("limit", "offset"), [(0.0, 0.0), (0.5, 1.0), (0.5, -2.0)])
def test_a_limit_comes_before_an_offset_and_may_be_0(ops: TensorOps, limit: float, offset: float) -> None:
    case, gate, up = gated_case(0, limit, offset), normal(3, 32), normal(3, 32, seed=1)
    check(ops, "gated", (lay(ops, gate), lay(ops, up), case.place(ops)), case.expect_gated(exact(gate), exact(up)))


@pytest.mark.clause("OPS-37", "OPS-38")
def test_a_scale_scales_the_bias_as_well(ops: TensorOps) -> None:
    x, residual, case = normal(3, 64), normal(3, 32, seed=1), large_linear("float32", 32, 64)
    product = parts.linear_of(exact(x), case)
    scaled = replace(product, value=-3 * product.value, magnitude=3 * product.magnitude)
    check(ops, "linear_add", (lay(ops, x), case.place(ops), lay(ops, residual), None, -3.0), scaled.plus(residual))


@pytest.mark.clause("OPS-37")
def test_logits_are_scaled_before_they_are_capped(ops: TensorOps) -> None:
    x, case = normal(3, 64), large_linear("float32", 40, 64)
    norm = NormCase(np.ones(64), None, 1e-5, centred=False)
    product = parts.linear_of(norm.expect(exact(x)), case).value
    head = Head(norm.place(ops), case.place(ops), scale=0.25, softcap=3.0)
    expected = 3 * np.tanh(product / 12)
    check(ops, "logits", (lay(ops, x), head), replace(exact(expected), magnitude=np.full(expected.shape, 12.0)))


@pytest.mark.clause("OPS-39", "OPS-68")
@pytest.mark.parametrize("normalised", [False, True])
@pytest.mark.parametrize("chosen", [1, 5])
@pytest.mark.parametrize("tokens", [0, 1, 9])
def test_one_expert_or_all_of_them(ops: TensorOps, tokens: int, chosen: int, normalised: bool) -> None:
    experts = tuple(gated_case(seed) for seed in range(1, 6))
    case = ExpertsCase(large_linear("float32", 5, 32, seed=90), experts, chosen, normalised, None, None)
    x = normal(tokens, 32)
    check(ops, "norm_experts", (lay(ops, x), None, case.place(ops)), case.expect(exact(x)))


@pytest.mark.clause("OPS-37", "OPS-77")
def test_learned_positions_reach_far_and_are_not_scaled(ops: TensorOps) -> None:
    table, places = normal(5, 16), normal(3000, 16, seed=1)
    ids, positions = np.array([4, 0, 2], np.int32), np.array([2999, 512, 1025], np.int32)
    embedding = Embedding(Dense(lay(ops, table)), 4.0, Dense(lay(ops, places)))
    fields = (ids, positions, ids, np.array([0, 3]), np.array([3000]), np.zeros((1, 1)), ids)
    tensors = (lay(ops, np.asarray(field), dtype="int32") for field in fields)
    batch = StepBatch(*tensors, starts=[0, 3], contexts=[3000])
    check(ops, "embedded", (embedding, batch), exact(4 * table[ids]).plus(places[positions]))


@pytest.mark.clause("OPS-36", "OPS-37")
def test_queries_and_keys_of_a_wide_decode_have_norms_of_their_own(ops: TensorOps) -> None:
    case = placed_case(tuple(range(1, 21)), (1,) * 20, kv_heads=2, group=2, head_dim=32)
    norms = [NormCase(normal(32, seed=seed), None, epsilon, centred=False) for seed, epsilon in ((1, 1e-6), (2, 1.0))]
    angles = np.arange(21)[:, None] / (1 + np.arange(16))
    cosines, sines = (wave(angles).astype(np.float32).astype(np.float64) for wave in (np.cos, np.sin))
    rotation = Rotation(cosines, sines)
    for function in variants(ops, "rope_attention"):
        layer = case.layer(ops, with_new=False)
        flat = tuple(lay(ops, each.reshape(20, -1)) for each in (case.query(), case.fresh(1), case.fresh(2)))
        attention = case.attention(ops, *(norm.place(ops) for norm in norms))
        attended = function(flat, attention, rotation.place(ops), layer, case.batch(ops))
        check_rope_attention(ops, case, rotation, list(norms), layer, host(ops, attended))


@pytest.mark.clause("OPS-18", "OPS-37")
@pytest.mark.parametrize("tokens", [1, 70, 300])
def test_a_limit_and_an_offset_hold_for_any_number_of_tokens(ops: TensorOps, tokens: int) -> None:
    case, x = gated_case(0, 0.5, 1.0), normal(tokens, 32)
    check(ops, "norm_gated", (lay(ops, x), None, case.place(ops)), case.expect_inner(exact(x)))

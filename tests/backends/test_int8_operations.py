"""OPS-82 and OPS-83: each operation of a decoder with quantised weights under int8."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import launch
from ferrum.backends.numba_kernels.launching.memory import address, aligned
from ferrum.backends.numba_kernels.sizes import EXPERT_ROWS, SMALL_BATCH, UNIT_ROWS
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.tensor.parts import Experts, GatedMlp, Norm, PlainMlp
from ferrum.tensor.weights import Dense, Linear
from ferrum.testing.blocks import BLOCKS
from tests.backends.company import random_experts
from tests.backends.test_int8 import KINDS, SEEDS, activations, make_weight
from tests.tiny import distance

SMALL_KINDS = st.sampled_from(sorted(kind for kind in BLOCKS if BLOCKS[kind].size == 32))
EXACT, DEFINITION = NumbaOps(2), NumpyOps(compute="int8")
FEWER = settings(max_examples=max(5, settings.default.max_examples // 4))
TOKENS = (1, 2, 3, 8, 64, 65, 200)
"""Numbers of tokens for a fused launch and a plain one, and those at the limit between them."""


@pytest.fixture(scope="module")
def numba() -> NumbaOps:
    return NumbaOps(2, compute="int8")


def linear_of(kind: str, rows: int, columns: int, random: np.random.Generator, *, biased: bool = False) -> Linear:
    bias = random.standard_normal(rows).astype(np.float32) if biased else None
    return Linear(make_weight(kind, rows, columns // BLOCKS[kind].size, random), bias)


def norm_of(columns: int, random: np.random.Generator) -> Norm:
    return Norm(random.standard_normal(columns).astype(np.float32), 1e-5)


def width(kind: str, groups: int) -> int:
    """The columns of the model: an odd number of groups if the format allows it."""
    return max(BLOCKS[kind].size, 32 * groups)


def assert_bits(found: np.ndarray, expected: np.ndarray) -> None:
    np.testing.assert_array_equal(np.asarray(found).view(np.int32), np.asarray(expected).view(np.int32))


@pytest.mark.clause("OPS-83")
@FEWER
@given(
    KINDS, st.integers(1, 70), st.sampled_from([1, 2, 3]), st.sampled_from(TOKENS), st.booleans(),
    st.sampled_from([1.0, 0.5, -3.0]), SEEDS,
)  # fmt: skip
def test_a_product_added_to_a_residual(
    numba: NumbaOps, kind: str, rows: int, groups: int, tokens: int, biased: bool, scale: float, seed: int
) -> None:
    random = np.random.default_rng(seed)
    linear = linear_of(kind, rows, width(kind, groups), random, biased=biased)
    x, residual = activations((tokens, linear.weight.columns), random), activations((tokens, 32 * rows), random)
    residual = residual[:, 5 : 5 + rows]  # as a part of a longer row
    with patch.object(launch, "SERIAL_WORK", -1):
        found = numba.linear_add(x, linear, residual, None, scale)
    product = DEFINITION.linear(x, linear)
    assert_bits(found, residual + product if scale == 1 else residual + np.float32(scale) * product)


@pytest.mark.clause("OPS-83")
@pytest.mark.parametrize("kind", sorted(BLOCKS))
@pytest.mark.parametrize("tokens", [3, 5, 8, 13, 30])
def test_every_strip_of_tokens_begins_with_its_own_residual(numba: NumbaOps, kind: str, tokens: int) -> None:
    random = np.random.default_rng(tokens)
    linear = linear_of(kind, 3 * UNIT_ROWS + 5, 256, random)
    x, residual = activations((tokens, 256), random), activations((tokens, 32 * linear.weight.rows), random)
    residual = residual[:, : linear.weight.rows]
    assert_bits(numba.linear_add(x, linear, residual), residual + DEFINITION.linear(x, linear))


@pytest.mark.clause("OPS-82", "OPS-83")
@pytest.mark.parametrize("tokens", [1, 8, 65])
def test_a_dense_weight_beside_a_quantised_one_is_multiplied_exactly(numba: NumbaOps, tokens: int) -> None:
    """Some files store the weights of values in a larger format than those of queries and keys."""
    random = np.random.default_rng(2)
    quantised = linear_of("q4_0", 20, 64, random)
    dense = Linear(Dense(random.standard_normal((12, 64)).astype(np.float32)))
    x, norm = activations((tokens, 64), random), norm_of(64, random)
    for linears in ((quantised, dense), (dense, quantised)):
        for found, linear in zip(numba.norm_linears(x, norm, linears), linears, strict=True):
            ops = EXACT if linear is dense else DEFINITION
            assert_bits(found, ops.linear(numba.normed(x, norm), linear))


@pytest.mark.clause("OPS-83")
@FEWER
@given(st.lists(KINDS, min_size=1, max_size=3), st.integers(1, 3), st.sampled_from(TOKENS), st.booleans(), SEEDS)
def test_products_of_one_input_that_is_rounded_once(
    numba: NumbaOps, kinds: list[str], groups: int, tokens: int, normed: bool, seed: int
) -> None:
    """The weights have several kinds and sizes; some are padded to whole blocks of units."""
    random = np.random.default_rng(seed)
    columns = max(width(kind, groups) for kind in kinds)
    linears = [linear_of(kind, int(random.integers(4, 60)), columns, random, biased=bool(seed % 2)) for kind in kinds]
    norm = norm_of(columns, random) if normed else None
    x = activations((tokens, columns), random)
    found = numba.norm_linears(x, norm, linears)
    for each, linear in zip(found, linears, strict=True):
        assert_bits(each, DEFINITION.linear(numba.normed(x, norm), linear))


@pytest.mark.clause("OPS-83")
@FEWER
@given(KINDS, KINDS, st.integers(1, 3), st.sampled_from(TOKENS), st.booleans(), SEEDS)
def test_what_an_mlp_multiplies_with_its_last_weight(
    numba: NumbaOps, kind: str, other: str, groups: int, tokens: int, normed: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    columns, middle = max(width(kind, groups), width(other, groups)), 16 * int(random.integers(1, 12))
    gate, up = linear_of(kind, middle, columns, random, biased=True), linear_of(other, middle, columns, random)
    gated, plain = GatedMlp(gate, up, gate), PlainMlp(up, up)
    norm = norm_of(columns, random) if normed else None
    x = activations((tokens, columns), random)
    first, second = (DEFINITION.linear(numba.normed(x, norm), linear) for linear in (gate, up))
    assert_bits(numba.norm_gated(x, norm, gated), numba.gated(first, second, gated))
    assert_bits(numba.norm_activated(x, norm, plain), numba.activated(second, plain.activation))


@pytest.mark.clause("OPS-83")
@pytest.mark.parametrize("kind", ["q4_0", "q6_k"])
def test_an_mlp_with_many_rows_joins_them_piece_by_piece(numba: NumbaOps, kind: str) -> None:
    """There are two chunks for each thread, and more than one piece in each chunk."""
    random = np.random.default_rng(4)
    gate, up = (linear_of(kind, 5 * EXPERT_ROWS + 16, 256, random, biased=True) for _ in range(2))
    mlp, x = GatedMlp(gate, up, gate), activations((SMALL_BATCH + 1, 256), random)
    first, second = (DEFINITION.linear(x, linear) for linear in (gate, up))
    assert_bits(numba.norm_gated(x, None, mlp), numba.gated(first, second, mlp))


@pytest.mark.clause("OPS-83")
def test_an_mlp_needs_no_more_memory_than_was_asked_for() -> None:
    ops, random, guard = NumbaOps(1, compute="int8"), np.random.default_rng(4), 1 << 20
    gate, up = (linear_of("q4_0", 5 * EXPERT_ROWS + 16, 256, random) for _ in range(2))
    kept: list[np.ndarray] = []

    def guarded(size: int) -> tuple[int, int]:
        memory = aligned(size + guard)
        memory[size:] = 7
        kept.append(memory[size:])
        return address(memory), size

    with patch.object(ops._kernels.launcher, "scratch", guarded):
        ops.norm_gated(activations((SMALL_BATCH + 1, 256), random), None, GatedMlp(gate, up, gate))
    assert kept and all((behind == 7).all() for behind in kept)


# ---- mixtures of experts
def mixture_of(kinds: Sequence[str], columns: int, middle: int, random: np.random.Generator) -> Experts:
    """A mixture with an expert of each kind but the last; the shared expert has the last kind."""

    def mlp(kind: str) -> GatedMlp:
        gate, up = (linear_of(kind, middle, columns, random, biased=True) for _ in range(2))
        return GatedMlp(gate, up, linear_of(kind, columns, middle, random))

    def dense(rows: int) -> Linear:
        return Linear(Dense(random.standard_normal((rows, columns)).astype(np.float32)))

    *experts, shared = (mlp(kind) for kind in kinds)
    return Experts(dense(len(experts)), tuple(experts), 2, shared=shared, shared_weight=dense(1))


def mixtures(kinds: st.SearchStrategy[str], size: int) -> st.SearchStrategy[tuple[list[str], int]]:
    """Draws the kinds of weights of five to seven experts, with a size."""
    return st.tuples(st.lists(kinds, min_size=5, max_size=7), st.just(size))


@pytest.mark.clause("OPS-82", "OPS-83")
@FEWER
@given(st.one_of(mixtures(KINDS, 256), mixtures(SMALL_KINDS, 64)), st.sampled_from([1, 2, 9, 80]), SEEDS)
def test_experts_have_the_bits_of_their_products(
    numba: NumbaOps, kinds_and_size: tuple[list[str], int], tokens: int, seed: int
) -> None:
    """Compares with the composition of the definition, computed with this backend's norms, activations and sums.
    Rounded rows of 64 numbers do not fill whole vector registers."""
    random = np.random.default_rng(seed)
    kinds, size = kinds_and_size
    mixture = mixture_of(kinds, size, size, random)
    x = random.standard_normal((tokens, size)).astype(np.float32)
    found = numba.norm_experts(x, None, mixture)
    alone = np.concatenate([numba.norm_experts(row[None], None, mixture) for row in x])
    assert_bits(found, alone)
    assert distance(found, DEFINITION.norm_experts(x, None, mixture)) < 2e-2  # a rounding may fall elsewhere
    assert 1e-5 < distance(found, EXACT.norm_experts(x, None, mixture)) < 0.2


@pytest.mark.clause("OPS-82")
@pytest.mark.parametrize("kind", sorted(BLOCKS))
def test_routers_and_gates_are_exact_in_any_format(numba: NumbaOps, kind: str) -> None:
    """Only the router and the gate are quantised, so int8 must not change the result."""
    random = np.random.default_rng(1)
    dense = random_experts(16, 3, 256, 64, random, shared=True, gate=True)
    mixture = replace(dense, router=linear_of(kind, 16, 256, random), shared_weight=linear_of(kind, 1, 256, random))
    x = random.standard_normal((300, 256)).astype(np.float32)
    assert_bits(numba.norm_experts(x, None, mixture), EXACT.norm_experts(x, None, mixture))
    assert_bits(DEFINITION.norm_experts(x, None, mixture), NumpyOps().norm_experts(x, None, mixture))

"""OPS-82 to OPS-84: products of quantised weights with activations rounded to eight bits."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching.launch import Launcher
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.conformance import weight_oracle
from ferrum.conformance.strategies import WEIGHT_TYPES
from ferrum.errors import InvalidParameter
from ferrum.tensor.int8 import rounded
from ferrum.tensor.weights import BlockWeight, Dense, Linear
from ferrum.testing.blocks import BLOCKS, random_blocks

SEEDS = st.integers(0, 2**32 - 1)
KINDS = st.sampled_from(sorted(BLOCKS))


@pytest.fixture(scope="module")
def numba() -> NumbaOps:
    return NumbaOps(2, compute="int8")


def make_weight(kind: str, rows: int, groups: int, random: np.random.Generator) -> BlockWeight:
    size = BLOCKS[kind].size
    return WEIGHT_TYPES[kind](random_blocks(kind, (rows, size * groups), random, zeros=0.05))


def activations(shape: tuple[int, int], random: np.random.Generator) -> np.ndarray:
    """Random rows of different magnitudes; some groups of them are zeros."""
    x = random.standard_normal(shape) * 10.0 ** random.uniform(-6, 6, (shape[0], 1))
    grouped = x.reshape(shape[0], -1, 32)
    grouped[random.random(grouped.shape[:2]) < 0.05] = 0
    return x.astype(np.float32)


@pytest.mark.clause("OPS-82")
@given(st.integers(1, 5), st.integers(1, 9), SEEDS)
def test_activations_are_rounded_to_the_nearest_of_255_steps(tokens: int, groups: int, seed: int) -> None:
    x = activations((tokens, 32 * groups), np.random.default_rng(seed))
    codes, scales = rounded(NumpyOps(), x)
    grouped = x.reshape(tokens, groups, 32).astype(np.float64)
    assert (codes == np.rint(codes)).all() and np.abs(codes).max() <= 127
    largest = np.abs(grouped).max(-1, keepdims=True)
    assert (np.abs(codes).max(-1, keepdims=True) == np.where(largest > 0, 127, 0)).all()
    assert (np.abs(codes * scales.astype(np.float64) - grouped) <= largest / 127 * 0.5001).all()


@pytest.mark.clause("OPS-82")
@given(KINDS, st.integers(1, 40), st.integers(1, 4), st.integers(1, 20), st.booleans(), SEEDS)
def test_only_activations_and_sums_are_rounded(
    kind: str, rows: int, groups: int, tokens: int, has_bias: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = make_weight(kind, rows, groups, random)
    bias = random.standard_normal(rows, np.float32) if has_bias else None
    x = activations((tokens, weight.columns), random)
    codes, scales = (each.astype(np.float64) for each in rounded(NumpyOps(), x))
    values, _ = weight_oracle.dequantize(kind, weight.data)
    left, right = (codes * scales).reshape(x.shape), np.asarray(values, np.float64).T
    expected = left @ right + (0 if bias is None else bias)
    # a K-quant is the difference of two terms, each of which may be much larger than the weight
    size = np.abs(left) @ np.abs(np.asarray(_terms(weight))).T + np.abs(expected)
    found = NumpyOps(compute="int8").linear(x, Linear(weight, bias))
    assert (np.abs(found - expected) <= 1e-5 * size).all()


def _terms(weight: BlockWeight) -> np.ndarray:
    """The magnitude |step · code| + |minimum| of each weight, [rows, columns]."""
    groups = weight.grouped(NumpyOps("float64"), weight.data)
    least = 0 if groups.minimums is None else np.abs(groups.minimums)
    return (np.abs(groups.codes * groups.steps) + least).reshape(weight.rows, -1)


@pytest.mark.clause("OPS-83")
@given(KINDS, st.integers(1, 120), st.integers(1, 5), st.integers(1, 40), st.booleans(), SEEDS)
def test_kernels_have_the_bits_of_the_definition(
    numba: NumbaOps, kind: str, rows: int, groups: int, tokens: int, has_bias: bool, seed: int
) -> None:
    random = np.random.default_rng(seed)
    weight = make_weight(kind, rows, groups, random)
    linear = Linear(weight, random.standard_normal(rows, np.float32) if has_bias else None)
    x = activations((tokens, weight.columns), random)
    expected = NumpyOps(compute="int8").linear(x, linear)
    np.testing.assert_array_equal(numba.linear(x, linear).view(np.int32), expected.view(np.int32))


@pytest.mark.clause("OPS-83")
@given(KINDS, st.integers(1, 40), st.integers(2, 30), SEEDS)
def test_a_row_does_not_notice_the_others(numba: NumbaOps, kind: str, rows: int, tokens: int, seed: int) -> None:
    random = np.random.default_rng(seed)
    linear = Linear(make_weight(kind, rows, 2, random))
    x = activations((tokens, linear.weight.columns), random)
    alone = np.concatenate([NumbaOps(1, compute="int8").linear(row[None], linear) for row in x])
    np.testing.assert_array_equal(numba.linear(x, linear), alone)


@pytest.mark.clause("OPS-82")
@pytest.mark.parametrize("kind", sorted(BLOCKS))
@pytest.mark.parametrize("value", [np.inf, -np.inf, np.nan])
def test_what_is_no_number_makes_nan_of_its_token_only(numba: NumbaOps, kind: str, value: float) -> None:
    random = np.random.default_rng(1)
    linear = Linear(make_weight(kind, 20, 2, random))
    x = activations((3, linear.weight.columns), random)
    clean = numba.linear(x, linear)
    x[1, 40] = value
    for ops in (numba, NumpyOps(compute="int8")):
        found = ops.linear(x, linear)
        assert np.isnan(found[1]).all()
        np.testing.assert_array_equal(found[[0, 2]], clean[[0, 2]])


@pytest.mark.clause("OPS-83")
@pytest.mark.parametrize("kind", ["q4_0", "q8_0"])
def test_a_group_without_a_mate_has_nothing_beside_it(numba: NumbaOps, kind: str) -> None:
    """Rounded rows are padded to pairs of groups with zeros, whatever their memory contained before."""

    def spoilt(launcher: Launcher, shape: tuple[int, ...]) -> np.ndarray:
        return np.full(shape, np.nan, np.float32)

    random = np.random.default_rng(1)
    linear = Linear(make_weight(kind, 20, 3, random))
    x = activations((9, 96), random)
    with patch.object(Launcher, "buffer", spoilt):
        found = numba.linear(x, linear)
    np.testing.assert_array_equal(found, NumpyOps(compute="int8").linear(x, linear))


@pytest.mark.clause("OPS-82")
def test_dense_weights_stay_exact(numba: NumbaOps) -> None:
    random = np.random.default_rng(1)
    linear = Linear(Dense(random.standard_normal((24, 64), np.float32)))
    x = activations((9, 64), random)
    np.testing.assert_array_equal(numba.linear(x, linear), NumbaOps(2).linear(x, linear))


@pytest.mark.clause("OPS-82")
def test_an_unknown_arithmetic_is_refused() -> None:
    with pytest.raises(InvalidParameter, match="compute"):
        NumpyOps(compute="int4")

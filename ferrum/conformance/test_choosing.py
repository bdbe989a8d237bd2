"""Properties of choosing tokens, and of the second tier.

Owns: the promises OPS-74 to OPS-76. Refuses to know: penalties and grammars (`ferrum.sample`). Next: `specs/OPS.md`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ferrum.conformance.harness import call_unchanged, host, variants
from ferrum.conformance.strategies import lay, layouts
from ferrum.conformance.tolerances import assert_same
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import DTYPES, host_dtype

CLOSE = 1e-9
"""A number this near to a boundary may fall on either side of it by rounding."""

# sixteenths: many are equal, and each is a number of every float type
logits = st.one_of(st.integers(1, 40), st.sampled_from([300, 2100])).flatmap(
    lambda vocab: st.tuples(st.integers(1, 4), st.just(vocab), st.integers(0, 999)).map(
        lambda drawn: np.random.default_rng(drawn[2]).integers(-160, 160, drawn[:2]) / 16
    )
)
shares = st.one_of(st.just(1.0), st.sampled_from([1e-9, 0.5, 0.9]), st.floats(1e-6, 1))


def remaining_weights(
    row: np.ndarray, temperature: float, top_k: float, top_p: float, min_p: float
) -> dict[int, float]:
    """Token -> its weight, for tokens that can be drawn. Leaves out cases that a rounding could decide."""
    best = np.lexsort((np.arange(len(row)), -row)).tolist()
    best = best[: int(top_k)] if top_k else best
    weights = {token: math.exp((row[token] - row[best[0]]) / temperature) for token in best}
    if top_p < 1:
        limit, cumulative, nucleus = top_p * math.fsum(weights.values()), 0.0, []
        for token in best:
            assume(abs(cumulative - limit) > CLOSE * limit or cumulative == 0)
            if cumulative < limit:
                nucleus.append(token)
            cumulative += weights[token]
        best = nucleus
    assume(all(abs(weights[token] - min_p) > CLOSE for token in best if weights[token] != 1))
    return {token: weights[token] for token in sorted(best) if weights[token] >= min_p}


@pytest.mark.clause("OPS-74")
@given(data=st.data(), x=logits, layout=layouts)
def test_choose_draws_what_the_settings_leave(ops: TensorOps, data: st.DataObject, x: np.ndarray, layout: Any) -> None:
    setting = st.tuples(
        st.sampled_from([0.0, 1e-6, 0.3, 1.0, 7.0]), st.integers(0, x.shape[1]), shares,
        st.one_of(st.just(0.0), st.floats(0, 1)), st.floats(0, 1, exclude_max=True),
    )  # fmt: skip
    settings = np.array([data.draw(setting) for _ in x], np.float64)
    expected = []
    for row, (temperature, top_k, top_p, min_p, unit) in zip(x, settings.tolist(), strict=True):
        if temperature < 1e-5:
            expected.append(int(row.argmax()))
            continue
        weights = remaining_weights(row, temperature, top_k, top_p, min_p)
        target, running = unit * math.fsum(weights.values()), 0.0
        for token, weight in weights.items():
            running += weight
            assume(abs(running - target) > CLOSE)
            if running > target:
                expected.append(token)
                break
    placed = lay(ops, x, layout), lay(ops, settings, layout, "float64")
    for choose in variants(ops, "choose"):
        tokens = call_unchanged(ops, choose, placed)
        assert str(tokens.dtype) == "int64"
        assert host(ops, tokens).tolist() == expected


@pytest.mark.clause("OPS-74")
@pytest.mark.parametrize(
    ("settings", "token"),
    [
        ((1.0, 0.0, 0.55, 0.5, 0.9), 1),  # by min_p before top_p, one token would be left
        ((1.0, 2.0, 0.6, 0.0, 0.9), 0),  # by top_p before top_k, two would be left
        ((0.5, 0.0, 0.6, 0.0, 0.9), 0),  # by top_p before the temperature, two would be left
    ],
)
def test_choose_applies_the_settings_in_their_order(
    ops: TensorOps, settings: tuple[float, float, float, float, float], token: int
) -> None:
    placed = lay(ops, np.array([[5.0, 4.5, 4.0]])), lay(ops, np.array([settings]), dtype="float64")
    for choose in variants(ops, "choose"):
        assert host(ops, choose(*placed)).tolist() == [token]


@pytest.mark.clause("OPS-74")
@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_row_without_a_finite_largest_logit_gives_that_one(ops: TensorOps, bad: float) -> None:
    x = np.full((2, 30), -math.inf)
    x[:, 11] = x[:, 17] = bad
    settings = np.array([[1.0, 3, 0.9, 0.1, 0.7], [0.0, 0, 1, 0, 0.7]])
    for choose in variants(ops, "choose"):
        tokens = host(ops, choose(lay(ops, x), lay(ops, settings, dtype="float64")))
        assert tokens.tolist() == np.argmax(x, -1).tolist()


@pytest.mark.clause("OPS-75")
@given(data=st.data(), x=logits, layout=layouts)
def test_ranked_tells_how_likely_tokens_are(ops: TensorOps, data: st.DataObject, x: np.ndarray, layout: Any) -> None:
    vocab = x.shape[1]
    tokens = np.array([data.draw(st.integers(0, vocab - 1)) for _ in x], np.int64)
    count = data.draw(st.integers(0, min(vocab, 20)))
    placed = lay(ops, x, layout), lay(ops, tokens, dtype="int64"), count
    for rank in variants(ops, "ranked"):
        actual = call_unchanged(ops, rank, placed)
        assert str(actual.dtype) == "float64"
        for row, token, numbers in zip(x, tokens, host(ops, actual).tolist(), strict=True):
            best = np.lexsort((np.arange(vocab), -row)).tolist()
            total = row.max() + math.log(math.fsum(np.exp(row - row.max())))
            assert numbers[1] == best.index(token) + 1
            assert numbers[2 : 2 + count] == best[:count]
            logs = [row[each] - total for each in (token, *best[:count])]
            np.testing.assert_allclose([numbers[0], *numbers[2 + count :]], logs, rtol=1e-9, atol=1e-9)


@pytest.mark.clause("OPS-76")
@given(data=st.data(), dtype=st.sampled_from(DTYPES), rows=st.integers(1, 9), width=st.integers(1, 40))
def test_what_is_stored_is_fetched(ops: TensorOps, data: st.DataObject, dtype: str, rows: int, width: int) -> None:
    """In any order of rows. Rows that were not stored to are unchanged, and x may change at once."""
    places = ops.host_array((rows, 2, width), dtype)
    assert isinstance(places, np.ndarray) and places.dtype == host_dtype(dtype) and places.shape == (rows, 2, width)
    content = np.arange(rows * 2 * width).reshape(places.shape) % 2
    ops.store(lay(ops, content.astype(host_dtype(dtype)), dtype=dtype), places, list(range(rows)))
    targets = data.draw(st.lists(st.integers(0, rows - 1), unique=True, min_size=1))
    fresh = (1 - content[: len(targets)]).astype(host_dtype(dtype))
    x = lay(ops, fresh, dtype=dtype)
    ops.store(x, places, targets)
    ops.put(x, (ops.arange(len(targets), "int64"),), lay(ops, np.zeros_like(fresh), dtype=dtype))
    expected = content.astype(host_dtype(dtype))
    expected[targets] = fresh
    order = data.draw(st.permutations(range(rows)))
    actual = ops.fetch(places, order, dtype)
    assert str(actual.dtype) == dtype
    assert_same(host(ops, actual), expected[list(order)])

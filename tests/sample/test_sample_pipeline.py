"""SAMPLE-02 to SAMPLE-08: each filter, and the whole pipeline, against exact distributions."""

from __future__ import annotations

import math
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.sample.definition import apply_mirostat, apply_top_n_sigma, apply_typical_p, sample_by_definition
from ferrum.sample.randomness import random_unit
from ferrum.sample.sampler import Sampled, sample
from ferrum.sampling_params import MOST_SIGMAS, SamplingParams
from ferrum.tensor.drawing import apply_min_p, apply_top_k, apply_top_p, draw
from tests.sample.distribution import (
    Past,
    choose,
    exact_distribution,
    exact_draw,
    positions,
    rows,
    sampling_params,
    seeds,
    state_at,
    tokens_of,
)

OPS = NumpyOps()


def wide(row: list[float]) -> np.ndarray:
    return np.array([row], np.float64)


def kept(filtered: np.ndarray) -> list[int]:
    return np.flatnonzero(filtered[0] > -math.inf).tolist()


@pytest.mark.clause("SAMPLE-03")
@given(row=rows(), count=st.integers(1, 50))
@example(row=[1.0, 1.0, 1.0], count=2)
def test_top_k_keeps_the_k_largest(row: list[float], count: int) -> None:
    largest = sorted(range(len(row)), key=lambda token: (-row[token], token))[:count]
    expected = sorted(token for token in largest if row[token] > -math.inf)
    assert kept(apply_top_k(OPS, wide(row), np.array([[count]]))) == expected


@pytest.mark.clause("SAMPLE-04")
@given(row=rows(), top_p=st.floats(0.01, 0.999))
def test_top_p_keeps_the_token_that_crosses(row: list[float], top_p: float) -> None:
    allowed = exact_distribution(row, SamplingParams(top_p=top_p))
    filtered = apply_top_p(OPS, wide(row), np.array([[top_p]]))
    assert set(kept(filtered)) >= set(allowed)  # tokens whose probability rounds to 0 may be on either side
    extra = set(kept(filtered)) - set(allowed)
    assert all(row[token] < max(row) - 700 for token in extra)


@pytest.mark.clause("SAMPLE-04")
@pytest.mark.parametrize(
    ("top_p", "expected"),
    [(0.1, [0]), (0.25, [0]), (0.3, [0, 1]), (0.5, [0, 1]), (0.75, [0, 1, 2]), (0.76, [0, 1, 2, 3])],
)
def test_top_p_on_four_equal_tokens(top_p: float, expected: list[int]) -> None:
    """Sums of quarters are exact, so this test decides the case on the boundary."""
    assert kept(apply_top_p(OPS, wide([0.0] * 4), np.array([[top_p]]))) == expected


@pytest.mark.clause("SAMPLE-05")
@given(row=rows(), min_p=st.floats(0.001, 1))
def test_min_p_is_relative_to_the_best(row: list[float], min_p: float) -> None:
    filtered = apply_min_p(OPS, wide(row), np.array([[min_p]]))
    assert kept(filtered) == sorted(exact_distribution(row, SamplingParams(min_p=min_p)))


@pytest.mark.clause("SAMPLE-52")
@given(row=rows(), count=st.floats(0.01, 5), temperature=st.floats(0.1, 10))
def test_top_n_sigma_keeps_what_is_near_the_largest(row: list[float], count: float, temperature: float) -> None:
    """The same tokens stay at every temperature. The oracle's temperature is so high that no probability is 0."""
    hot = max(row) - min(logit for logit in row if logit > -math.inf) + 1
    allowed = exact_distribution(row, SamplingParams(top_n_sigma=count, temperature=hot))
    filtered = apply_top_n_sigma(OPS, wide(row) / temperature, np.array([[count]]))
    assert kept(filtered) == sorted(allowed)


@pytest.mark.clause("SAMPLE-52", "SAMPLE-06")
@pytest.mark.parametrize(("count", "expected"), [(1.0, [2, 3]), (0.0, [0, 1, 2, 3]), (3.0, [0, 1, 2, 3])])
def test_top_n_sigma_on_the_cases_of_llama_cpp(count: float, expected: list[int]) -> None:
    row = np.log([0.1, 0.2, 0.3, 0.4])
    assert kept(apply_top_n_sigma(OPS, row[None], np.array([[count]]))) == expected


@pytest.mark.clause("SAMPLE-52", "SAMPLE-24")
@pytest.mark.parametrize("count", [1e-9, MOST_SIGMAS])
@given(row=rows(), temperature=st.sampled_from([1e-5, 1.0, 1e5]))
@example(row=[2.5, 2.5, 2.5], temperature=1.0)
@example(row=[-math.inf, 2.5, -math.inf], temperature=1.0)
def test_top_n_sigma_of_any_size_has_the_token_of_the_definition(
    count: float, row: list[float], temperature: float
) -> None:
    """This includes a deviation of 0: all logits are equal, or a mask leaves one of them."""
    state = Past().state(SamplingParams(top_n_sigma=count, temperature=temperature), 3)
    with np.errstate(over="raise", invalid="raise"):
        (sampled,) = sample(OPS, np.array([row], np.float32), [state])
    assert [sampled] == [Sampled(int(sample_by_definition(OPS, np.array([row], np.float32), [state])[0]))]


@pytest.mark.clause("SAMPLE-22")
@given(row=rows(), typical_p=st.floats(0.01, 0.999))
@example(row=[0.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0, -1.0], typical_p=0.3)  # the most probable one is not typical
def test_typical_p_keeps_what_is_close_to_the_entropy(row: list[float], typical_p: float) -> None:
    allowed = exact_distribution(row, SamplingParams(typical_p=typical_p))
    filtered = apply_typical_p(OPS, wide(row), np.array([[typical_p]]))
    assert set(kept(filtered)) >= set(allowed)
    extra = set(kept(filtered)) - set(allowed)
    assert all(row[token] < max(row) - 700 for token in extra)


@pytest.mark.clause("SAMPLE-22")
def test_the_likeliest_token_need_not_be_typical() -> None:
    row = [1.0] + [0.0] * 20
    assert 0 not in kept(apply_typical_p(OPS, wide(row), np.array([[0.5]])))
    assert 0 not in exact_distribution(row, SamplingParams(typical_p=0.5))


@pytest.mark.clause("SAMPLE-23")
@given(row=rows(), bits=st.floats(-3, 60))
def test_mirostat_keeps_what_does_not_surprise(row: list[float], bits: float) -> None:
    allowed = exact_distribution(row, SamplingParams(mirostat=2), Past(most_surprise=bits))
    filtered = apply_mirostat(OPS, wide(row), np.array([[bits]]))
    assert kept(filtered) == sorted(allowed)
    assert row.index(max(row)) in kept(filtered)


@pytest.mark.clause("SAMPLE-23")
@pytest.mark.parametrize("tau", [1.0, 3.0, 5.0])
def test_mirostat_keeps_the_surprise_near_its_target(tau: float) -> None:
    """A thousand tokens of one steep distribution, whose average surprise is 8 bits without mirostat."""
    row = np.log(1 / np.arange(1, 2001) ** 1.1).astype(np.float32)[None]
    params = SamplingParams(mirostat=2, mirostat_tau=tau)
    state = state_at(params, 3, 0)
    assert state.most_surprise == 2 * tau
    heard = []
    for number in range(1000):
        (found,) = sample(OPS, row, [state])
        before = state.most_surprise
        if number % 100 == 0:
            left = exact_distribution(row[0].tolist(), params, Past(most_surprise=before))
            assert found.surprise == pytest.approx(-math.log2(left[found.token]), abs=1e-6)
        assert found.surprise is not None
        state.accept(found.token, found.surprise)
        assert state.most_surprise == pytest.approx(before - 0.1 * (found.surprise - tau))
        heard.append(found.surprise)
    assert abs(float(np.mean(heard[200:])) - tau) < 0.2


@pytest.mark.clause("SAMPLE-06")
@given(row=rows())
def test_off_means_off(row: list[float]) -> None:
    x = wide(row)
    for filtered in (
        apply_top_k(OPS, x, np.array([[0]])),
        apply_top_p(OPS, x, np.array([[1.0]])),
        apply_min_p(OPS, x, np.array([[0.0]])),
        apply_typical_p(OPS, x, np.array([[1.0]])),
        apply_mirostat(OPS, x, np.array([[math.inf]])),
    ):
        assert filtered.tolist() == x.tolist()


@pytest.mark.clause("SAMPLE-02")
@given(row=rows(), params=sampling_params, seed=seeds, position=positions)
# temperature first: at temperature 2, top_p=0.6 keeps both
@example(row=[0.0, -1.0], params=SamplingParams(temperature=2, top_p=0.7), seed=2, position=0)
# top_k before top_p: of the two that are left, the first alone holds 0.5
@example(row=[0.0, 0.0, 0.0, 0.0], params=SamplingParams(top_k=2, top_p=0.49), seed=1, position=0)
# exactly as probable as the best is probable enough
@example(row=[0.0, 0.0, -1.0], params=SamplingParams(min_p=1.0), seed=1, position=0)
def test_the_whole_pipeline(row: list[float], params: SamplingParams, seed: int, position: int) -> None:
    expected = exact_draw(exact_distribution(row, params), random_unit(seed, position))
    x = np.array([row], np.float32)
    state = state_at(params, seed, position)
    assert tokens_of(sample(OPS, x, [state])) == [expected]
    assert sample_by_definition(OPS, x, [state]).tolist() == [expected]


@pytest.mark.clause("SAMPLE-08")
@given(row=rows(), params=sampling_params, unit=st.sampled_from([0.0, 1 - 2.0**-24, 0.5]))
def test_only_the_support_is_drawn(row: list[float], params: SamplingParams, unit: float) -> None:
    x = np.array(row, np.float32)
    token = choose(x, params, unit)
    assume(params.temperature >= 0.05)
    probabilities = exact_distribution(row, params)
    assert row[token] > -math.inf
    assert token in probabilities or row[token] < max(row) - 700 * params.temperature


@pytest.mark.clause("SAMPLE-08")
@pytest.mark.parametrize(("unit", "expected"), [(0.0, 1), (0.25, 1), (0.5, 3), (1 - 2.0**-24, 3)])
def test_masked_tokens_at_both_ends_are_not_drawn(unit: float, expected: int) -> None:
    row = [-math.inf, 1.0, -math.inf, 1.0, -math.inf]
    assert draw(OPS, wide(row), np.array([[unit]])).tolist() == [expected]
    assert choose(np.array(row, np.float32), SamplingParams(), unit) == expected


ROW = [2.0, 1.5, 1.5, 0.0, -0.5, 1.0, -2.0, -math.inf]


@pytest.mark.clause("SAMPLE-07")
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(),
        SamplingParams(temperature=0.6),
        SamplingParams(top_k=3),
        SamplingParams(temperature=1.7, top_p=0.8),
        SamplingParams(min_p=0.3),
        SamplingParams(typical_p=0.7),
        SamplingParams(temperature=1.3, top_k=5, top_p=0.9, min_p=0.1, typical_p=0.9),
    ],
    ids=repr,
)
@pytest.mark.parametrize("vary", ["seed", "position"])
def test_frequencies_are_the_probabilities(params: SamplingParams, vary: str) -> None:
    """Chi-square over 3000 draws; the seeds are fixed, so the outcome is too."""
    draws, probabilities = 3000, exact_distribution(ROW, params)
    x = np.array(ROW, np.float32)
    units = [random_unit(*((i, 7) if vary == "seed" else (7, i))) for i in range(draws)]
    counts = Counter(choose(x, params, unit) for unit in units)
    assert set(counts) <= set(probabilities)
    chi_square = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in probabilities.items())
    freedom = len(probabilities) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)

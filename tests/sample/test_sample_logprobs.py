"""SAMPLE-25 to SAMPLE-27: log probabilities against exact ones, on every backend."""

from __future__ import annotations

import math
import sys
import warnings
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ferrum.backends.registry import load_backend
from ferrum.sample.fast import find_candidates
from ferrum.sample.logprobs import log_softmax, logprobs_by_definition, ranked
from ferrum.sample.sampler import sample
from ferrum.sampling_params import SamplingParams
from tests.sample.distribution import (
    Past,
    exact_distribution,
    exact_logits,
    full_params,
    no_near_ties,
    pasts,
    rows,
    sized,
    state_at,
)

OPS = load_backend("numpy")


def exact(row: list[float]) -> list[float]:
    best = max(row)
    total = math.fsum(math.exp(logit - best) for logit in row)
    return [logit - best - math.log(total) for logit in row]


@pytest.mark.clause("SAMPLE-27")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@given(data=st.data(), size=st.integers(1, 30))
def test_log_softmax(backend: str, data: st.DataObject, size: int) -> None:
    batch = np.array(data.draw(st.lists(rows(size), min_size=1, max_size=4)), np.float32)
    ops = load_backend(backend)
    found = ops.to_numpy(logprobs_by_definition(ops, ops.asarray(batch, "float32")))
    for row, own in zip(batch, found, strict=True):
        assert np.allclose(own, exact(row.tolist()), rtol=1e-12, atol=1e-12)
        assert np.allclose(own, log_softmax(row), rtol=1e-12, atol=1e-12)
        assert (np.isneginf(own) == np.isneginf(row)).all()


@pytest.mark.clause("SAMPLE-25")
@given(row=rows(), data=st.data(), count=st.integers(-1, 50))
@example(row=[0.0, 0.0, 0.0], data=None, count=2)
def test_ranks(row: list[float], data: st.DataObject | None, count: int) -> None:
    token = 2 if data is None else data.draw(st.integers(0, len(row) - 1))
    order = sorted(range(len(row)), key=lambda other: (-row[other], other))
    wanted = order if count == -1 else order[:count]
    found = ranked(np.array(row), token, count)
    assert list(found) == [token, *(other for other in wanted if other != token)]
    assert all(found[other] == (row[other], order.index(other) + 1) for other in found)


@pytest.mark.clause("SAMPLE-26")
def test_a_token_that_cannot_be_drawn_is_no_reason_for_a_warning() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        found = find_candidates(np.array([2.0, 1.0, -math.inf]), SamplingParams(min_p=0.9)).logprobs(3)
    assert found.tolist() == [0.0, -math.inf, -math.inf]


@pytest.mark.clause("SAMPLE-26")
@given(data=st.data(), count=st.integers(-1, 5))
def test_raw_and_processed(data: st.DataObject, count: int) -> None:
    size = data.draw(st.integers(1, 12))
    row, past = data.draw(rows(size)), data.draw(pasts(size))
    params = replace(data.draw(full_params(size)), logprobs=count)
    processed = exact_logits(row, params, past)
    assume(max(processed) > -math.inf)
    no_near_ties(value for value in processed if value > -math.inf)
    x = np.array([row], np.float32)
    (raw,) = sample(OPS, x, [sized(past.state(params), size)])
    (own,) = sample(OPS, x, [sized(past.state(replace(params, logprobs_mode="processed_logprobs")), size)])
    assert raw.token == own.token and raw.logprobs is not None and own.logprobs is not None
    assert next(iter(raw.logprobs)) == next(iter(own.logprobs)) == raw.token
    expected = exact(row)
    assert all(value == pytest.approx(expected[token]) for token, (value, _) in raw.logprobs.items())
    if params.temperature == 0:
        expected = exact(processed)
    else:
        left = exact_distribution(row, params, past)
        assume(min(left.values()) > sys.float_info.min)  # smaller ones have few digits
        expected = [math.log(left[token]) if token in left else -math.inf for token in range(size)]
    # an error of rounding grows with the logits: penalties are taken from a large one in another order
    wanted = {token: pytest.approx(expected[token], rel=1e-6, abs=1e-9) for token in own.logprobs}
    assert {token: value for token, (value, _) in own.logprobs.items()} == wanted


@pytest.mark.clause("SAMPLE-25")
def test_minus_infinity_stays() -> None:
    row = np.array([[0.0, -math.inf, 0.0]], np.float32)
    (found,) = sample(OPS, row, [state_at(SamplingParams(temperature=0, logprobs=-1), 0, 0)])
    half = pytest.approx(-math.log(2))
    assert found.logprobs == {0: (half, 1), 2: (half, 2), 1: (-math.inf, 3)}


@pytest.mark.clause("SAMPLE-27")
@given(data=st.data(), size=st.integers(2, 10))
def test_a_batch_is_its_rows(data: st.DataObject, size: int) -> None:
    params = full_params(size).map(lambda own: replace(own, logprobs=2))
    batch = data.draw(st.lists(st.tuples(rows(size), params), min_size=1, max_size=4))
    assume(all(max(exact_logits(row, own, Past())) > -math.inf for row, own in batch))
    x = np.array([row for row, _ in batch], np.float32)
    states = [Past().state(own) for _, own in batch]
    assert sample(OPS, x, states) == [sample(OPS, x[i : i + 1], states[i : i + 1])[0] for i in range(len(batch))]

"""SAMPLE-01 and SAMPLE-09 to SAMPLE-14: greedy, random numbers, batches, broken rows."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.engine.prompt_scores import PromptScores
from ferrum.errors import ModelError
from ferrum.sample import fast
from ferrum.sample.definition import sample_by_definition
from ferrum.sample.logprobs import log_softmax
from ferrum.sample.randomness import SEED_BITS, choice_seed, fresh_seed, philox_words, random_unit
from ferrum.sample.sampler import Sampled, sample
from ferrum.sampling_params import SamplingParams
from ferrum.tensor.random import key_words
from tests.sample.distribution import (
    Past,
    any_params,
    exact_logits,
    full_params,
    pasts,
    positions,
    rows,
    sampling_params,
    seeds,
    sized,
    state_at,
    tokens_of,
)

OPS = NumpyOps()
GREEDY = SamplingParams(temperature=0)


@pytest.mark.clause("SAMPLE-01")
@given(row=rows(), seed=seeds)
@example(row=[0.0, 3.0, 3.0], seed=0)
def test_greedy_is_the_first_maximum(row: list[float], seed: int) -> None:
    x = np.array([row], np.float32)
    assert tokens_of(sample(OPS, x, [state_at(GREEDY, seed, 0)])) == [row.index(max(row))]
    assert tokens_of(sample(OPS, x, [state_at(SamplingParams(top_k=1), seed, 0)])) == [row.index(max(row))]


@pytest.mark.clause("SAMPLE-14")
@given(row=rows(), temperature=st.sampled_from([1e-9, 5e-324, 1e-45, 1e-6]), seed=seeds)
@example(row=[3e38, 3e38, -3e38, -math.inf], temperature=5e-324, seed=1)
def test_tiny_temperatures_are_greedy(row: list[float], temperature: float, seed: int) -> None:
    x = np.array([row], np.float32)
    states = [state_at(SamplingParams(temperature=temperature), seed, 0)]
    with np.errstate(all="raise", under="ignore"):
        assert tokens_of(sample(OPS, x, states)) == [row.index(max(row))]
        assert sample_by_definition(OPS, x, states).tolist() == [row.index(max(row))]


@pytest.mark.clause("SAMPLE-09")
@given(seed=seeds, position=st.one_of(positions, st.integers(0, 2**64 - 1)))
@example(seed=0, position=0)
@example(seed=-1, position=0)
@example(seed=10**40, position=3)
def test_the_number_is_the_first_of_its_stream(seed: int, position: int) -> None:
    assert random_unit(seed, position) == float(OPS.uniform((1,), seed, position)[0])


@pytest.mark.clause("SAMPLE-09")
@pytest.mark.parametrize(
    ("counter", "key", "expected"),
    [  # known answers of Random123, kat_vectors, philox4x32 10
        ((0, 0, 0, 0), (0, 0), (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
        ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
        (
            (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
            (0xA4093822, 0x299F31D0),
            (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
        ),
    ],
)
def test_philox_gives_the_published_numbers(
    counter: tuple[int, int, int, int], key: tuple[int, int], expected: tuple[int, ...]
) -> None:
    assert philox_words(counter, key) == expected


@pytest.mark.clause("SAMPLE-09")
def test_different_seeds_and_positions_give_different_numbers() -> None:
    units = {random_unit(seed, position) for seed in range(-20, 20) for position in range(20)}
    assert len(units) > 795  # of 800; 24 bits collide once in twenty thousand pairs
    assert 0.4 < sum(units) / len(units) < 0.6


@pytest.mark.clause("SAMPLE-09")
@given(low=st.integers(0, 2**32 - 1), high=st.integers(0, 2**32 - 1))
def test_every_bit_of_a_seed_counts(low: int, high: int) -> None:
    assert key_words(high << 32 | low) == (low, high)
    assert key_words(-1 - (high << 32 | low)) != key_words(1 + (high << 32 | low))


@pytest.mark.clause("SAMPLE-10")
@given(data=st.data(), size=st.integers(1, 30))
def test_a_batch_is_its_rows(data: st.DataObject, size: int) -> None:
    params = st.one_of(any_params, full_params(size))
    batch = data.draw(st.lists(st.tuples(rows(size), params, pasts(size), seeds), min_size=1, max_size=5))
    x = np.array([row for row, *_ in batch], np.float32)
    states = [sized(past.state(own, seed), size) for _, own, past, seed in batch]
    for row, (_, own, past, _) in zip(x, batch, strict=True):
        assume(max(exact_logits(row.tolist(), own, past)) > -math.inf)
    alone = [sample(OPS, x[i : i + 1], [states[i]])[0] for i in range(len(batch))]
    assert sample(OPS, x, states) == alone
    assert sample_by_definition(OPS, x, states).tolist() == tokens_of(alone)


@pytest.mark.clause("SAMPLE-11")
@given(seed=seeds)
def test_choices_have_their_own_seeds(seed: int) -> None:
    made = [choice_seed(seed, index) for index in range(20)]
    assert made[0] == seed
    assert len(set(made)) == 20
    assert made == [choice_seed(seed, index) for index in range(20)]
    assert all(0 <= other < 2**SEED_BITS for other in made[1:])


@pytest.mark.clause("SAMPLE-11")
def test_drawn_seeds_differ_and_survive_json() -> None:
    made = {fresh_seed() for _ in range(100)}
    assert len(made) == 100
    assert all(int(float(seed)) == seed for seed in made)


@pytest.mark.clause("SAMPLE-12")
@given(
    scale=st.floats(0.01, 20),
    distinct=st.sampled_from([2, 5, 10**6]),
    params=sampling_params,
    seed=st.integers(0, 1000),
    guess=st.sampled_from([1, 3, 8, 512]),
)
def test_the_fast_way_is_the_definition(
    scale: float, distinct: int, params: SamplingParams, seed: int, guess: int
) -> None:
    """Both have the same bits, so that no margin is needed. The vocabulary is larger than the first guess of the fast
    way, with many ties and with none."""
    random = np.random.default_rng(seed)
    x = (scale * random.integers(-distinct, distinct, (1, 700)) / distinct).astype(np.float32)
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fast, "FIRST_GUESS", guess)
        found = sample(OPS, x, [state_at(params, seed, 1)])
    assert tokens_of(found) == sample_by_definition(OPS, x, [state_at(params, seed, 1)]).tolist()


BAD_ROWS = [[-math.inf] * 3, [math.nan] * 3, [0.0, math.nan, 1.0], [0.0, math.inf, 1.0], [-math.inf, math.nan, 0.0]]


@pytest.mark.clause("SAMPLE-13", "SAMPLE-10")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@given(
    bad=st.lists(st.sampled_from([None, *BAD_ROWS]), min_size=1, max_size=6),
    params=st.sampled_from([GREEDY, SamplingParams(seed=1), SamplingParams(temperature=0, logprobs=2, min_tokens=1)]),
)
def test_a_broken_row_fails_alone(backend: str, bad: list[list[float] | None], params: SamplingParams) -> None:
    ops = load_backend(backend)
    rows = [[float(i), 1.0, 2.0] if row is None else row for i, row in enumerate(bad)]
    states = [state_at(params, seed, 0) for seed in range(len(rows))]
    found = sample(ops, ops.asarray(np.array(rows, np.float32), "float32"), states)
    for row, broken, state, outcome in zip(rows, bad, states, found, strict=True):
        if broken is None:
            assert outcome == sample(OPS, np.array([row], np.float32), [state])[0]
        else:
            assert isinstance(outcome, ModelError) and "best logit is" in str(outcome)


@pytest.mark.clause("SAMPLE-13")
def test_a_row_of_which_nothing_is_left_fails_alone() -> None:
    x = np.zeros((3, 4), np.float32)
    states = [sized(Past(allowed=frozenset(allowed)).state(GREEDY), 4) for allowed in ((1,), (9,), (2, 3))]
    first, second, third = sample(OPS, x, states)
    assert first == Sampled(1) and third == Sampled(2)
    assert isinstance(second, ModelError) and "no token is left" in str(second)


@pytest.mark.clause("SAMPLE-13", "SAMPLE-25")
@pytest.mark.parametrize("bad", BAD_ROWS)
def test_log_probabilities_are_numbers_or_an_error(bad: list[float]) -> None:
    with pytest.raises(ModelError, match="best logit is"):
        log_softmax(np.array(bad, np.float32))
    scores = PromptScores([0, 1, 2], 1)
    with pytest.raises(ModelError, match="best logit is"):
        scores.add(0, np.array([[0.0, 1.0, 2.0], bad], np.float32))


@pytest.mark.clause("SAMPLE-13")
@given(row=rows(), params=sampling_params, seed=seeds)
def test_logits_of_minus_infinity_are_ordinary(row: list[float], params: SamplingParams, seed: int) -> None:
    masked = [*row, -math.inf, -math.inf]
    assume(not params.top_k or params.top_k <= len(row))
    x, y = (np.array([values], np.float32) for values in (row, masked))
    state = state_at(params, seed, 0)
    assert sample(OPS, y, [state]) == sample(OPS, x, [state])

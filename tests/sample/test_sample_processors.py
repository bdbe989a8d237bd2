"""SAMPLE-12 and SAMPLE-17 to SAMPLE-24: penalties, bias, bans and masks, and the whole pipeline with them."""

from __future__ import annotations

import math
import time
from collections import Counter

import numpy as np
import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.backends.registry import load_backend
from ferrum.engine.output import ending_ids
from ferrum.errors import ModelError
from ferrum.sample.definition import edit_logits, filter_logits, sample_by_definition
from ferrum.sample.fast import edited, find_candidates
from ferrum.sample.history import TokenHistory
from ferrum.sample.randomness import random_unit
from ferrum.sample.sampler import sample
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams
from tests.sample.distribution import (
    FixedGrammar,
    Past,
    exact_distribution,
    exact_draw,
    exact_logits,
    full_params,
    pasts,
    rows,
    seeds,
    sized,
    state_at,
    tokens_of,
)

BACKENDS = ("numpy", "numba")
SIZE = 12


def processed(row: list[float], params: SamplingParams, past: Past) -> list[float]:
    """The logits after the processors of the definition. Checks that the fast way has the same bits."""
    state = sized(past.state(params), len(row))
    ops = load_backend("numpy")
    (found,) = edit_logits(ops, np.array([row], np.float64), [state])
    if state.edits_logits:
        fast = edited(np.array(row, np.float64), state)
        assert fast.tobytes() == (found + 0.0).tobytes() or fast.tolist() == found.tolist()
    return list(map(float, found))


def close(found: list[float], expected: list[float]) -> bool:
    return np.allclose(found, expected, rtol=1e-12, atol=1e-9)


penalty = st.floats(-2, 2)


@pytest.mark.clause("SAMPLE-17")
@given(row=rows(SIZE), past=pasts(SIZE), factor=st.floats(0.01, 100))
@example(row=[1.0, -1.0, 0.0] + [0.0] * 9, past=Past([0, 0, 1], [0, 2, 2]), factor=2.0)
def test_repetition_changes_each_seen_token_once(row: list[float], past: Past, factor: float) -> None:
    found = processed(row, SamplingParams(repetition_penalty=factor), Past(past.prompt, past.output, past.ending))
    for token, (before, after) in enumerate(zip(row, found, strict=True)):
        if token in past.prompt + past.output and token not in past.ending:
            assert after == pytest.approx(before / factor if before > 0 else before * factor, rel=1e-12)
            assert after <= before if factor >= 1 else after >= before
        else:
            assert after == before


@pytest.mark.clause("SAMPLE-18")
def test_a_token_that_ends_the_text_is_never_penalised_for_repetition() -> None:
    """Chat templates end every message with this token: a penalty for it would keep the model from stopping."""
    turn = [5, 1, 2, 5, 3, 4, 5]  # 5 ends each message
    row = [[1.0, 0.0, 0.0, 0.0, 0.0, 1.2]]
    params = SamplingParams(temperature=0, repetition_penalty=1.5)
    assert tokens_of(
        sample(load_backend("numpy"), np.array(row, np.float32), [Past(turn, ending=(5,)).state(params)])
    ) == [5]
    assert tokens_of(sample(load_backend("numpy"), np.array(row, np.float32), [Past(turn).state(params)])) == [0]


@pytest.mark.clause("SAMPLE-19")
@given(row=rows(SIZE), past=pasts(SIZE), presence=penalty, frequency=penalty)
def test_presence_and_frequency_are_about_what_was_generated(
    row: list[float], past: Past, presence: float, frequency: float
) -> None:
    params = SamplingParams(presence_penalty=presence, frequency_penalty=frequency)
    found = processed(row, params, Past(past.prompt, past.output))
    counts = Counter(past.output)
    expected = [
        logit - (presence if counts[token] else 0) - frequency * counts[token] for token, logit in enumerate(row)
    ]
    assert close(found, expected)
    assert processed(row, params, Past(past.prompt)) == row


@pytest.mark.clause("SAMPLE-20")
@given(row=rows(SIZE), bias=st.dictionaries(st.integers(0, SIZE - 1), st.floats(-100, 100), max_size=5))
def test_bias_is_added(row: list[float], bias: dict[int, float]) -> None:
    found = processed(row, SamplingParams(logit_bias=bias), Past())
    assert found == [logit + bias.get(token, 0.0) for token, logit in enumerate(row)]


@pytest.mark.clause("SAMPLE-20")
def test_bias_comes_after_penalties() -> None:
    params = SamplingParams(repetition_penalty=2.0, logit_bias={0: 10.0})
    assert processed([4.0, 0.0], params, Past([0])) == [12.0, 0.0]  # not (4 + 10) / 2


@pytest.mark.clause("SAMPLE-21")
@given(row=rows(SIZE), past=pasts(SIZE), least=st.integers(0, 8))
def test_nothing_ends_the_text_before_min_tokens(row: list[float], past: Past, least: int) -> None:
    own = Past(past.prompt, past.output, past.ending)
    found = processed(row, SamplingParams(min_tokens=least, max_tokens=None), own)
    others = [token for token in range(SIZE) if token not in past.ending]
    if len(past.output) < least and max((row[token] for token in others), default=-math.inf) > -math.inf:
        assert all(found[token] == -math.inf for token in past.ending)
        assert all(found[token] == row[token] for token in others)
    else:
        assert found == row  # nothing to forbid, or nothing else to choose


@pytest.mark.clause("SAMPLE-24")
@given(row=rows(SIZE), params=full_params(SIZE), past=pasts(SIZE))
def test_processors_together(row: list[float], params: SamplingParams, past: Past) -> None:
    expected = exact_logits(row, params, past)
    assume(max(expected) > -math.inf)
    assert close(processed(row, params, past), expected)


@pytest.mark.clause("SAMPLE-02")
@pytest.mark.clause("SAMPLE-12")
@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data(), seed=seeds)
def test_the_whole_pipeline_on_every_backend(backend: str, data: st.DataObject, seed: int) -> None:
    """On every backend the fast way and the definition choose the token of the exact distribution."""
    size = data.draw(st.integers(1, 20))
    row, params, past = data.draw(rows(size)), data.draw(full_params(size)), data.draw(pasts(size))
    logits = exact_logits(row, params, past)
    assume(max(logits) > -math.inf)
    ops, state = load_backend(backend), sized(past.state(params, seed), size)
    x = ops.asarray(np.array([row], np.float32), "float32")
    if params.temperature == 0:
        _assume_clear_winner(logits)
        expected = logits.index(max(logits))
    else:
        expected = exact_draw(exact_distribution(row, params, past), random_unit(seed, state.position))
    assert tokens_of(sample(ops, x, [state])) == [expected]
    assert ops.to_numpy(sample_by_definition(ops, x, [state])).tolist() == [expected]


def _assume_clear_winner(logits: list[float]) -> None:
    best, *rest = sorted(logits, reverse=True)
    assume(not rest or rest[0] == best or best - rest[0] > 1e-9 * max(1.0, abs(best)))


@pytest.mark.clause("SAMPLE-12")
@given(data=st.data(), seed=st.integers(0, 1000), distinct=st.sampled_from([2, 5, 10**6]))
def test_the_fast_way_leaves_the_same_candidates(data: st.DataObject, seed: int, distinct: int) -> None:
    """Both have the same bits, on a vocabulary of 700 with many ties and with none."""
    ops, vocab = load_backend("numpy"), 700
    params = data.draw(full_params(vocab, st.sampled_from([0.3, 1.0, 2.5])))
    past = data.draw(pasts(vocab))
    random = np.random.default_rng(seed)
    x = (random.uniform(0.1, 20) * random.integers(-distinct, distinct, (1, vocab)) / distinct).astype(np.float32)
    state = sized(past.state(params), vocab)
    wide = edit_logits(ops, x.astype(np.float64), [state])
    assume(np.isfinite(wide.max()))
    filtered = filter_logits(ops, wide, [state])[0]
    found = find_candidates(edited(x[0], state) if state.edits_logits else x[0], params, state.most_surprise)
    expected = np.exp(filtered - filtered.max())
    weights = np.zeros(vocab)
    weights[found.ids if found.ids is not None else slice(None)] = found.weights
    assert (weights / weights.max()).tobytes() == expected.tobytes() or weights.tobytes() == expected.tobytes()


@pytest.mark.clause("SAMPLE-04")
@pytest.mark.parametrize(("size", "top_p", "kept"), [(4, 0.5, 2), (4, 0.76, 4), (2048, 0.75, 1536), (5000, 0.9, 4500)])
def test_of_equal_tokens_top_p_keeps_the_first_ones_until_their_share_is_reached(
    size: int, top_p: float, kept: int
) -> None:
    """In the last two cases top_p keeps more tokens than the fast way sorts at first."""
    found = find_candidates(np.zeros(size, np.float32), SamplingParams(top_p=top_p))
    assert found.ids is None and np.flatnonzero(found.weights).tolist() == list(range(kept))


@pytest.mark.clause("SAMPLE-02")
def test_top_p_counts_what_min_p_takes_away_afterwards() -> None:
    row = np.log([0.4, 0.3, 0.2, 0.1])
    found = find_candidates(row, SamplingParams(top_p=0.75, min_p=0.45))  # the other way round two were left
    assert np.flatnonzero(found.weights).tolist() == [0, 1, 2]


@pytest.mark.clause("SAMPLE-08")
@given(data=st.data(), unit=st.sampled_from([0.0, 1 - 2.0**-24, 0.5]))
def test_only_the_support_is_drawn(data: st.DataObject, unit: float) -> None:
    size = data.draw(st.integers(1, 20))
    most = 2.0**40  # beside more, a penalty is lost by rounding
    row = [logit if logit == -math.inf else min(max(logit, -most), most) for logit in data.draw(rows(size))]
    past = data.draw(pasts(size))
    params = data.draw(full_params(size, st.sampled_from([0.3, 1.0, 2.5])))
    assume(max(exact_logits(row, params, past)) > -math.inf)
    state = sized(past.state(params), size)
    x = np.array(row, np.float32)
    found = find_candidates(edited(x, state) if state.edits_logits else x, params, state.most_surprise)
    assert found.token(found.draw(unit)) in exact_distribution(x.tolist(), params, past)


PAST = Past([0, 1, 1], [2, 2, 3], (6,), None, 2.5)
ROW = [2.0, 1.5, 1.5, 0.0, -0.5, 1.0, -2.0, -math.inf]


@pytest.mark.clause("SAMPLE-07")
@pytest.mark.parametrize(
    "params",
    [
        SamplingParams(repetition_penalty=1.4),
        SamplingParams(presence_penalty=0.8, frequency_penalty=0.5),
        SamplingParams(logit_bias={4: 2.0, 0: -1.0}, min_tokens=5),
        SamplingParams(mirostat=2),
        SamplingParams(temperature=1.3, repetition_penalty=1.2, top_k=6, top_p=0.95, min_p=0.05, typical_p=0.9),
    ],
    ids=str,
)
def test_frequencies_are_the_probabilities(params: SamplingParams) -> None:
    """Chi-square over 3000 seeds, which are fixed, so that the outcome is too."""
    draws, probabilities = 3000, exact_distribution(ROW, params, PAST)
    x = np.array([ROW], np.float32)
    counts = Counter(tokens_of([sample(load_backend("numpy"), x, [PAST.state(params, i)])[0] for i in range(draws)]))
    assert set(counts) <= set(probabilities)
    chi_square = sum((counts[t] - draws * p) ** 2 / (draws * p) for t, p in probabilities.items())
    freedom = len(probabilities) - 1
    assert chi_square < freedom + 4 * math.sqrt(2 * freedom)


@pytest.mark.clause("SAMPLE-24")
@pytest.mark.parametrize("temperature", [0.0, 1e-9, 0.7])
@pytest.mark.parametrize("backend", BACKENDS)
def test_odd_but_defined(backend: str, temperature: float) -> None:
    ops = load_backend(backend)

    def one(row: list[float], **more: object) -> int:
        state = state_at(SamplingParams(temperature=temperature, **more), 5, 3)  # type: ignore[arg-type]
        x = ops.asarray(np.array([row], np.float32), "float32")
        (token,) = tokens_of(sample(ops, x, [state]))
        assert ops.to_numpy(sample_by_definition(ops, x, [state])).tolist() == [token]
        return token

    assert one([3.0]) == 0  # a vocabulary of one
    assert one([3.0], top_k=7, top_p=0.1, min_p=1.0, typical_p=0.1, mirostat=2, mirostat_tau=0.0) == 0
    assert one([1.0, 2.0, 0.0], top_k=99) in (range(3) if temperature == 0.7 else [1])  # more than there are
    assert one([0.5] * 9) in (range(9) if temperature == 0.7 else [0])  # all equal: the lowest id
    assert one([-math.inf, 1.0, -math.inf]) == 1


@pytest.mark.clause("SAMPLE-13")
def test_a_grammar_that_allows_nothing_is_an_error() -> None:
    state = sized(Past(allowed=frozenset()).state(SamplingParams()), 3)
    (error,) = sample(load_backend("numpy"), np.zeros((1, 3), np.float32), [state])
    assert isinstance(error, ModelError) and "no token is left" in str(error)


@pytest.mark.clause("SAMPLE-21", "SAMPLE-34")
def test_tokens_that_end_a_text_and_have_no_logit_are_passed_over() -> None:
    """A model may name an end-of-sequence token that its vocabulary does not have."""
    state = Past(ending=(-3, 1, 4, 99)).state(SamplingParams(temperature=0, min_tokens=2))
    row = np.array([[0.0, 3.0, 1.0, 2.0]], np.float32)
    assert tokens_of(sample(load_backend("numpy"), row, [state])) == [3]
    assert processed([0.0, 3.0, 1.0, 2.0], state.params, Past(ending=(-3, 1, 4, 99))) == [0.0, -math.inf, 1.0, 2.0]


@pytest.mark.clause("SAMPLE-17", "SAMPLE-19", "SAMPLE-34")
@given(
    prompt=st.lists(st.integers(0, 9)),
    output=st.lists(st.tuples(st.integers(0, 9), st.booleans()), max_size=40),
    exempt=st.frozensets(st.integers(0, 9)),
)
def test_a_history_is_what_has_come(prompt: list[int], output: list[tuple[int, bool]], exempt: frozenset[int]) -> None:
    """This holds if the history is read from the first token on, and if it is read first in the middle."""
    history, come = TokenHistory(prompt, exempt), []
    for token, asks in output:
        history.push(token)
        come.append(token)
        if asks:
            assert sorted(history.seen()) == sorted({*prompt, *come} - exempt)
    ids, counts = history.counts()
    assert dict(zip(ids.tolist(), counts.tolist(), strict=True)) == Counter(come)
    assert sorted(history.seen()) == sorted({*prompt, *come} - exempt)
    assert (history.length, history.generated) == (len(prompt) + len(come), len(come))


class Unfinished(FixedGrammar):
    """A grammar whose text is not complete yet. It returns the same array each time."""

    accepts = False
    mask: NDArray[np.bool_] | None = None

    def allowed(self) -> NDArray[np.bool_]:
        self.mask = super().allowed() if self.mask is None else self.mask
        return self.mask


@pytest.mark.clause("SAMPLE-28")
@given(
    row=rows(SIZE),
    allowed=st.frozensets(st.integers(0, SIZE - 1), min_size=1),
    ending=st.frozensets(st.integers(0, SIZE)),
)
def test_a_stop_token_waits_for_the_grammar(row: list[float], allowed: frozenset[int], ending: frozenset[int]) -> None:
    grammar = Unfinished(allowed)
    grammar.size = SIZE
    before = grammar.allowed().copy()
    state = SamplingState(SamplingParams(temperature=0), 0, [], ending, grammar)
    left = allowed - ending
    (found,) = edit_logits(load_backend("numpy"), np.array([row], np.float64), [state])
    fast = edited(np.array(row, np.float64), state)
    expected = [logit if token in left else -math.inf for token, logit in enumerate(row)]
    assert list(found) == fast.tolist() == expected
    grammar.accepts = True
    assert edited(np.array(row, np.float64), state).tolist() == [
        logit if token in allowed else -math.inf for token, logit in enumerate(row)
    ]
    assert (grammar.allowed() == before).all()


@pytest.mark.clause("SAMPLE-34")
def test_what_choices_share_is_kept_once() -> None:
    params = SamplingParams(n=2, logit_bias={5: 1.0, 3: -2.0}, stop_token_ids=[7, 8], min_tokens=1)
    one, two = (SamplingState(params, seed, [1], ending_ids(params, {2})) for seed in range(2))
    assert one.ending_ids is two.ending_ids == {2, 7, 8}
    assert one.bias[0] is two.bias[0] and one.bias[0].tolist() == [5, 3] and one.bias[1].tolist() == [1.0, -2.0]
    assert one.banned(100).base is two.banned(100).base and one.banned(8).tolist() == [2, 7]


@pytest.mark.clause("SAMPLE-34")
def test_parameters_as_long_as_a_vocabulary() -> None:
    """A hundred tokens take a small part of a millisecond each; a loop over all entries would take a second."""
    size = 50_000
    params = SamplingParams(
        temperature=0, logit_bias=dict.fromkeys(range(size), 1.0), stop_token_ids=range(size), min_tokens=size,
        max_tokens=None, repetition_penalty=1.1, frequency_penalty=0.1,
    )  # fmt: skip
    state = SamplingState(params, 0, list(range(size)), params.stop_token_ids)
    row = np.zeros((1, size), np.float32)
    ops = load_backend("numpy")
    state.accept(sample(ops, row, [state])[0].token)
    began = time.thread_time()
    for _ in range(100):
        state.accept(sample(ops, row, [state])[0].token)
    assert time.thread_time() - began < 0.5

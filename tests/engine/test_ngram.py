"""DRAFT-11: a lookup against a search of the whole text; DRAFT-12: how many proposals pay."""

from __future__ import annotations

from itertools import pairwise

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.engine.draft_length import DEVICE, EXACT, INT8, MARGIN, Pace, Trust, pace_of
from ferrum.engine.ngram import LONGEST, PLACES, SHORTEST, Lookup, NgramProposer
from ferrum.sampling_params import SamplingParams
from ferrum.sched.sequence import TokenSequence
from ferrum.testing.strict import StrictOps

texts = st.lists(st.integers(0, 2), min_size=1, max_size=60)


def searched(tokens: list[int], most: int) -> list[int]:
    """The oracle: tries every earlier place, the newest first."""
    best, length = None, SHORTEST - 1
    places = [
        place
        for place in range(len(tokens) - 1, SHORTEST - 1, -1)
        if tokens[place - SHORTEST : place] == tokens[-SHORTEST:]
    ]
    for place in places[:PLACES]:
        shared = max(
            count
            for count in range(min(place, LONGEST) + 1)
            if tokens[place - count : place] == tokens[-count:][:count]
        )
        if shared > length:
            best, length = place, shared
    if best is None:
        return []
    said = list(tokens)
    for step in range(most):
        said.append(said[best + step])
    return said[len(tokens) :]


@pytest.mark.clause("DRAFT-11")
@given(text=texts, most=st.integers(1, 9), start=st.integers(1, 60))
def test_what_followed_the_longest_run_is_proposed_however_the_text_has_grown(
    text: list[int], most: int, start: int
) -> None:
    lookup = Lookup()
    for end in range(min(start, len(text)), len(text) + 1):
        assert lookup.propose(text[:end], most) == searched(text[:end], most)


@pytest.mark.clause("DRAFT-11")
def test_a_text_that_repeats_itself_is_proposed_beyond_its_end() -> None:
    assert Lookup().propose([9, 1, 2, 1, 2, 1, 2], 5) == [1, 2, 1, 2, 1]
    assert Lookup().propose([1, 2, 3, 7, 8, 9], 5) == []
    assert Lookup().propose([1, 2, 3, 4, 1, 2, 3], 2) == [4, 1]
    assert Lookup().propose([1, 2, 3, 1, 2, 4, 2, 1, 2], 1) == [4], "nothing stands before the first token"


@pytest.mark.clause("DRAFT-11")
def test_texts_do_not_mix() -> None:
    proposer = NgramProposer()
    one, other = (TokenSequence([*text, 1, 2, 3], SamplingParams(), 0) for text in ([1, 2, 3, 4], [1, 2, 3, 5]))
    for _ in range(2):
        assert proposer.propose([(one, 2), (other, 1)]) == [[4, 1], [5]]
        proposer.forget(one)
    proposer.reset()
    assert proposer.propose([(other, 1)]) == [[5]]


PACES = st.sampled_from([EXACT, INT8, DEVICE])


@pytest.mark.clause("DRAFT-12")
@given(
    judged=st.lists(st.tuples(st.integers(0, 8), st.booleans()), max_size=30),
    pace=PACES,
    cost=st.sampled_from([0.0, 0.0, 0.1, 0.5]),
    sequences=st.integers(1, 20),
    most=st.integers(1, 16),
)
def test_no_other_number_of_proposals_would_bring_more(
    judged: list[tuple[int, bool]], pace: Pace, cost: float, sequences: int, most: int
) -> None:
    trust = Trust()
    for right, whole in judged:
        trust.learn(right, whole)

    def rate(count: int) -> float:
        tokens = sum(trust.share**place for place in range(count + 1))
        return tokens / (pace.time(sequences * (1 + count)) + count * cost)

    length = trust.length(pace, cost, sequences, most)
    assert 0 <= length <= most
    assert max(map(rate, range(1, most + 1))) <= max(rate(length), MARGIN * rate(0)) * (1 + 1e-9)
    assert not length or rate(length) > MARGIN * rate(0)


@pytest.mark.clause("DRAFT-12", "DRAFT-13")
@pytest.mark.parametrize("pace", [EXACT, INT8, DEVICE])
def test_trust_is_lost_and_comes_back(pace: Pace) -> None:
    trust = Trust()
    assert trust.length(pace, 0, 1, 8) > 1
    for _ in range(30):
        trust.learn(0, False)
    assert trust.length(pace, 0, 1, 8) == 0
    for _ in range(10):
        trust.learn(1, True)
    assert trust.length(pace, 0, 1, 8) >= 2
    for _ in range(10):
        trust.learn(8, True)
    assert trust.length(pace, 0, 1, 7) >= 3
    assert Trust().length(EXACT, 0, 30, 7) == 0, "in company, computing what may be wrong keeps others waiting"


@pytest.mark.clause("DRAFT-12")
@given(pace=PACES, tokens=st.integers(1, 100))
def test_more_tokens_take_longer(pace: Pace, tokens: int) -> None:
    assert pace.time(1) == 1
    assert pace.time(tokens) <= pace.time(tokens + 1)


@pytest.mark.clause("DRAFT-12")
def test_several_tokens_take_less_where_products_are_rounded_and_least_on_a_device() -> None:
    paces = [pace_of(NumpyOps()), pace_of(NumpyOps(compute="int8")), pace_of(StrictOps())]
    assert paces == [EXACT, INT8, DEVICE]
    assert all(a.time(tokens) > b.time(tokens) for a, b in pairwise(paces) for tokens in (2, 4, 8, 16))

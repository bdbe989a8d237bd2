"""The oracle of the sampler's tests: the exact distribution of a row of logits, in plain Python floats."""

from __future__ import annotations

import math
import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass, field
from itertools import pairwise

import numpy as np
from hypothesis import assume, currently_in_test_context
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.sample.fast import find_candidates
from ferrum.sample.sampler import Sampled
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import FILTERS, SamplingParams
from tests.sample.declared import values

MARGIN = 1e-9
"""Examples with a number closer than this to a boundary are skipped: rounding may put it on either side."""


@dataclass
class Past:
    """The text before a token, and its effects on the next one."""

    prompt: list[int] = field(default_factory=list)
    output: list[int] = field(default_factory=list)
    ending: tuple[int, ...] = ()
    allowed: frozenset[int] | None = None  # by a grammar
    most_surprise: float = math.inf

    def state(self, params: SamplingParams, seed: int = 0) -> SamplingState:
        grammar = None if self.allowed is None else FixedGrammar(self.allowed)
        state = SamplingState(params, seed, self.prompt, self.ending, grammar)
        for token in self.output:
            state.accept(token)
        if params.mirostat:
            state.most_surprise = self.most_surprise
        return state


class FixedGrammar:
    """A grammar that allows the same tokens at every place."""

    is_complete = False
    accepts = True

    def __init__(self, allowed: Collection[int]) -> None:
        self._tokens = sorted(allowed)
        self.size = 0

    def allowed(self) -> NDArray[np.bool_]:
        mask = np.zeros(self.size, np.bool_)
        mask[[token for token in self._tokens if token < self.size]] = True
        return mask

    def accept(self, token: int) -> None:
        pass


def state_at(params: SamplingParams, seed: int, position: int) -> SamplingState:
    """A state whose next token is at `position`. It has an empty history, so that penalties have no effect."""
    state = SamplingState(params, seed, [])
    state.history.length = position
    return state


def choose(row: NDArray[np.float32], params: SamplingParams, unit: float) -> int:
    """The token that the fast sampler draws from a row with the random number `unit`, in [0, 1)."""
    found = find_candidates(row, params)
    return found.token(found.draw(unit))


def tokens_of(found: Sequence[Sampled]) -> list[int]:
    return [each.token for each in found]


def exact_logits(row: Sequence[float], params: SamplingParams, past: Past) -> list[float]:
    """The logits after penalties, bias and masks."""
    logits = list(row)
    for token in set(past.prompt + past.output) - set(past.ending):
        factor = params.repetition_penalty
        logits[token] = logits[token] / factor if logits[token] > 0 else logits[token] * factor
    for token in set(past.output):
        logits[token] -= params.presence_penalty + params.frequency_penalty * past.output.count(token)
    for token, bias in params.logit_bias.items():
        logits[token] += bias
    if past.allowed is not None:
        logits = [logit if token in past.allowed else -math.inf for token, logit in enumerate(logits)]
    if len(past.output) < params.min_tokens:
        without = [-math.inf if token in past.ending else logit for token, logit in enumerate(logits)]
        logits = without if max(without) > -math.inf else logits
    return logits


def exact_distribution(row: Sequence[float], params: SamplingParams, past: Past | None = None) -> dict[int, float]:
    """The probability of each token that can be drawn, by ascending token id. The temperature must be above 0."""
    past = Past() if past is None else past
    row = exact_logits(row, params, past)
    order = sorted(range(len(row)), key=lambda token: (-row[token], token))
    if params.top_n_sigma:
        least = max(row) - params.top_n_sigma * statistics.pstdev(logit for logit in row if logit > -math.inf)
        if currently_in_test_context():
            margin = MARGIN * max(1.0, abs(max(row)), abs(least))
            assume(all(row[token] == max(row) or abs(row[token] - least) > margin for token in order))
        order = [token for token in order if row[token] >= least]
    if params.top_k:
        order = order[: params.top_k]
    best = row[order[0]]
    mass = {token: math.exp((row[token] - best) / params.temperature) for token in order}
    if params.top_p < 1:
        order = _until(order, mass, params.top_p)
    for token in order:
        if 0 < params.min_p < 1:
            _stay_clear(mass[token], params.min_p)
    order = [token for token in order if mass[token] >= params.min_p]
    surprise = _surprise(row, order, mass, params.temperature)
    if params.typical_p < 1:
        entropy = math.fsum(math.exp(-surprise[token]) * surprise[token] for token in order if mass[token])
        distances = {token: abs(surprise[token] - entropy) for token in order}
        no_near_ties(distances[token] for token in order if mass[token])
        order = _until(sorted(order, key=lambda token: (distances[token], token)), mass, params.typical_p)
        surprise = _surprise(row, order, mass, params.temperature)
    if params.mirostat:
        likeliest = max(row[token] for token in order)
        for token in order:
            _stay_clear(surprise[token] / math.log(2), past.most_surprise)
        order = [
            token for token in order if surprise[token] / math.log(2) <= past.most_surprise or row[token] == likeliest
        ]
    # a probability that underflows beside the largest one need not underflow after a filter removed that token
    top = max(row[token] for token in order)
    mass = {token: math.exp((row[token] - top) / params.temperature) for token in order}
    total = math.fsum(mass.values())
    return {token: mass[token] / total for token in sorted(order) if mass[token]}


def _surprise(
    row: Sequence[float], order: Sequence[int], mass: dict[int, float], temperature: float
) -> dict[int, float]:
    """The surprise of each token, -log of its renormalised probability, in nats."""
    top = max(row[token] for token in order)
    total = math.fsum(math.exp((row[token] - top) / temperature) for token in order)
    return {token: (top - row[token]) / temperature + math.log(total) for token in order}


def _until(order: Sequence[int], mass: dict[int, float], wanted: float) -> list[int]:
    """The first tokens of `order`, up to and including the one with which their share reaches `wanted`."""
    total = math.fsum(mass[token] for token in order)
    kept, reached = [], 0.0
    for token in order:
        _stay_clear(reached, wanted)
        if reached >= wanted:
            break
        kept.append(token)
        reached += mass[token] / total
    return kept


def exact_draw(probabilities: dict[int, float], unit: float) -> int:
    """The token at which the running sum of the probabilities exceeds `unit`."""
    reached = 0.0
    for token, probability in probabilities.items():
        reached += probability
        _stay_clear(reached, unit)
        if reached > unit:
            return token
    raise AssertionError("probabilities do not sum to 1")


def _stay_clear(value: float, boundary: float) -> None:
    if currently_in_test_context():
        assume(not abs(value - boundary) <= MARGIN * max(1.0, abs(boundary) if math.isfinite(boundary) else 1.0))


def no_near_ties(values: Iterable[float]) -> None:
    """Skips the example if two different values are so close that rounding could exchange them."""
    found = sorted(values)
    for low, high in pairwise(found):
        if currently_in_test_context():
            assume(low == high or high - low > MARGIN * max(1.0, abs(low), abs(high)))


# Few distinct values, so that ties are common; many orders of magnitude; -inf as a mask leaves it.
logit = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-40, 40, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.just(-math.inf),
)


@st.composite
def rows(draw: st.DrawFn, size: int | None = None) -> list[float]:
    """Draws logits [vocab], at least one of them finite, often with ties."""
    length = draw(st.integers(1, 40)) if size is None else size
    row = draw(st.lists(logit, min_size=length, max_size=length))
    assume(max(row) > -math.inf)
    return row


sampling_params = st.builds(
    SamplingParams,
    temperature=st.one_of(st.floats(0.05, 5), st.floats(1e-4, 100)),
    **{name: values(name) for name in FILTERS if name != "mirostat"},  # which also depends on what came before
)
any_params = st.one_of(sampling_params, st.just(SamplingParams(temperature=0)))
seeds = st.one_of(st.integers(-5, 5), st.integers(-(2**70), 2**70))
positions = st.integers(0, 1 << 20)


@st.composite
def pasts(draw: st.DrawFn, vocab: int) -> Past:
    """Draws a `Past` for a vocabulary of this size."""
    token = st.integers(0, vocab - 1)
    some = st.lists(token, max_size=8)
    return Past(
        draw(some),
        draw(some),
        tuple(draw(st.lists(token, max_size=2, unique=True))),
        draw(st.one_of(st.none(), st.frozensets(token, min_size=1))),
        draw(st.floats(0, 20)),
    )


@st.composite
def full_params(draw: st.DrawFn, vocab: int, temperature: st.SearchStrategy[float] | None = None) -> SamplingParams:
    """Draws values for all parameters of the pipeline."""
    token, penalty = st.integers(0, vocab - 1), st.sampled_from([0.0, 0.0, 0.5, -0.7, 2.0])
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.3, 1.0, 2.5]) if temperature is None else temperature),
        **{name: draw(st.just(declared.default) | values(name)) for name, declared in FILTERS.items()},
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.3, 0.8, 5.0])),
        presence_penalty=draw(penalty),
        frequency_penalty=draw(penalty),
        logit_bias=draw(st.dictionaries(token, st.floats(-100, 100), max_size=3)),
        min_tokens=draw(st.sampled_from([0, 0, 4])),
        max_tokens=None,
    )


def sized(state: SamplingState, vocab: int) -> SamplingState:
    """The same state, after its grammar got the number of logits."""
    if isinstance(state.grammar, FixedGrammar):
        state.grammar.size = vocab
    return state

"""The exact distribution of a row, written a second time in plain Python floats: the oracle of the sampler's tests."""

from __future__ import annotations

import math
from collections.abc import Sequence

from hypothesis import assume, currently_in_test_context
from hypothesis import strategies as st

from ferrum.types import SamplingParams

MARGIN = 1e-9
"""Decisions closer than this to a boundary may fall either way by rounding; such examples are not looked at."""


def exact_distribution(row: Sequence[float], params: SamplingParams) -> dict[int, float]:
    """Token id -> probability, of the tokens that can be drawn; ids ascending. Temperature above 0."""
    order = sorted(range(len(row)), key=lambda token: (-row[token], token))
    if params.top_k:
        order = order[: params.top_k]
    best = row[order[0]]
    mass = {token: math.exp((row[token] - best) / params.temperature) for token in order}
    total = math.fsum(mass.values())
    if params.top_p < 1:
        nucleus, reached = [], 0.0
        for token in order:
            _stay_clear(reached, params.top_p)
            if reached >= params.top_p:
                break
            nucleus.append(token)
            reached += mass[token] / total
        order = nucleus
    for token in order:
        if 0 < params.min_p < 1:
            _stay_clear(mass[token], params.min_p)
    order = [token for token in order if mass[token] >= params.min_p]
    total = math.fsum(mass[token] for token in order)
    return {token: mass[token] / total for token in sorted(order) if mass[token]}


def exact_draw(probabilities: dict[int, float], unit: float) -> int:
    """The token at which the running sum passes `unit`."""
    reached = 0.0
    for token, probability in probabilities.items():
        reached += probability
        _stay_clear(reached, unit)
        if reached > unit:
            return token
    raise AssertionError("probabilities do not sum to 1")


def _stay_clear(value: float, boundary: float) -> None:
    if currently_in_test_context():
        assume(abs(value - boundary) > MARGIN)


# Few distinct values, so that ties are common; many orders of magnitude; -inf as a mask leaves it.
logit = st.one_of(
    st.integers(-3, 3).map(float),
    st.floats(-40, 40, width=32),
    st.floats(-(2.0**100), 2.0**100, width=32),
    st.just(-math.inf),
)


@st.composite
def rows(draw: st.DrawFn, size: int | None = None) -> list[float]:
    """Logits [vocab] with at least one finite one."""
    length = draw(st.integers(1, 40)) if size is None else size
    row = draw(st.lists(logit, min_size=length, max_size=length))
    assume(max(row) > -math.inf)
    return row


sampling_params = st.builds(
    SamplingParams,
    temperature=st.one_of(st.floats(0.05, 5), st.floats(1e-4, 100)),
    top_k=st.one_of(st.just(0), st.integers(1, 50)),
    top_p=st.one_of(st.just(1.0), st.floats(0.01, 1)),
    min_p=st.one_of(st.just(0.0), st.floats(0, 1)),
)
any_params = st.one_of(sampling_params, st.just(SamplingParams(temperature=0)))
seeds = st.one_of(st.integers(-5, 5), st.integers(-(2**70), 2**70))
positions = st.integers(0, 1 << 20)

"""CUDA-26 to CUDA-29: the experts of each token and their results, computed without a read from the device."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.experts import MOST_CHOSEN, ExpertKernels
from ferrum.backends.cuda.products import Products
from ferrum.conformance.oracles import Expected, exact
from ferrum.conformance.parts import ExpertsCase, GatedCase
from ferrum.conformance.strategies import (
    KINDS,
    WEIGHT_TYPES,
    Host,
    LinearCase,
    block_size,
    floats,
    linears,
)
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.parts import ACTIVATIONS, Experts, GatedMlp
from ferrum.tensor.weights import Dense, Linear
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

kinds = st.sampled_from(KINDS)
few_sides = st.sampled_from([4, 8, 12, 20, 36, 132])


def kernels(device: Device) -> ExpertKernels:
    return ExpertKernels(device, Products(device))


def linear_on(device: Device, case: LinearCase) -> Linear:
    weight = WEIGHT_TYPES[case.weight.kind](device.upload(case.weight.data))
    return Linear(weight, None if case.bias is None else device.upload(case.bias))


def experts_on(device: Device, case: ExpertsCase) -> Experts:
    def mlp(each: GatedCase) -> GatedMlp:
        parts = (linear_on(device, part) for part in (each.gate, each.up, each.down))
        return GatedMlp(*parts, each.activation, each.limit, each.up_offset)

    parts = tuple(mlp(each) for each in case.experts)
    return Experts(linear_on(device, case.router), parts, case.chosen, case.normalised)


@st.composite
def side(draw: st.DrawFn, kind: str) -> int:
    """Columns of a matrix of that kind: at most a few blocks."""
    block = block_size(kind)
    return draw(few_sides) if block == 1 else block * draw(st.integers(1, 3 if block == 32 else 1))


@st.composite
def mixtures(draw: st.DrawFn, most: int = 5) -> ExpertsCase:
    """Draws a mixture whose experts differ only in their numbers, as those of a model do."""
    inner, outer = draw(kinds), draw(kinds)
    hidden, middle = draw(side(inner)), draw(side(outer))
    count = draw(st.integers(1, most))
    activation, limit = draw(st.sampled_from(ACTIVATIONS)), draw(st.sampled_from([None, None, 7.0, 0.5]))
    offset = draw(st.sampled_from([0.0, 1.0]))

    def one() -> GatedCase:
        shapes = ((middle, hidden, inner), (middle, hidden, inner), (hidden, middle, outer))
        return GatedCase(*(draw(linears(*shape)) for shape in shapes), activation, limit, offset)

    router = draw(linears(count, hidden, draw(st.sampled_from(["float32", "bfloat16"]))))
    return ExpertsCase(
        router, tuple(one() for _ in range(count)), draw(st.integers(1, count)), draw(st.booleans()), None, None
    )


# ---- which experts


def routed(device: Device, scores: Host, chosen: int, normalised: bool) -> tuple[Array, Array]:
    """What the kernel makes of a router's scores."""
    tokens, experts = scores.shape
    weights, numbers = device.empty((tokens, chosen), "float32"), device.empty((tokens, chosen), "int32")
    kernel = device.kernels.get("route", "route")
    given_scores = device.upload(scores)
    kernel((tokens,), (32,), given_scores, experts, chosen, normalised, weights, numbers, shared=4 * experts)
    return weights, numbers


@pytest.mark.clause("CUDA-26")
@given(
    st.data(), st.integers(1, 4), st.one_of(st.integers(1, 9), st.sampled_from([31, 32, 33, 64, 130])), st.booleans()
)
def test_the_best_experts_come_first_and_of_equals_the_lowest(
    data: Any, tokens: int, count: int, normalised: bool
) -> None:
    scores = data.draw(floats((tokens, count), -200, 200))
    chosen = data.draw(st.integers(1, min(count, MOST_CHOSEN)))
    weights, numbers = at_every_schedule(lambda device: routed(device, scores, chosen, normalised))
    shifted = np.exp(scores.astype(np.float64) - scores.max(-1, keepdims=True))
    chances = shifted / shifted.sum(-1, keepdims=True)
    taken = np.take_along_axis(chances, numbers.astype(np.int64), -1)
    wanted = taken / taken.sum(-1, keepdims=True) if normalised else taken
    assert_close(weights, Expected(wanted, wanted * (2 + 400), count), "float32")
    for token in range(tokens):
        own = list(numbers[token])
        assert len(set(own)) == chosen
        rest = [number for number in range(count) if number not in own]
        for place, number in enumerate(own):
            behind = [*own[place + 1 :], *rest]
            assert all(
                scores[token, number] >= scores[token, other] or close(chances[token], number, other)
                for other in behind
            )
            assert all(number < other for other in behind if scores[token, number] == scores[token, other])


def close(chances: Host, number: int, other: int) -> bool:
    """True if the two chances are equal up to rounding."""
    return bool(abs(chances[number] - chances[other]) <= 2.0**-14 * chances[number] + 2.0**-126)


@pytest.mark.clause("CUDA-26")
def test_one_large_score_wins_wherever_it_stands() -> None:
    scores = np.float32(300) * np.eye(70, dtype=np.float32)
    weights, numbers = at_every_schedule(lambda device: routed(device, scores, 2, False))
    assert numbers[:, 0].tolist() == list(range(70)) and (weights == [[1, 0]]).all()


@pytest.mark.clause("CUDA-26")
def test_scores_that_are_no_number_give_distinct_experts() -> None:
    scores = np.float32(
        [[np.nan] * 5, [1, np.nan, 2, 3, 4], [np.inf, 0, np.inf, 1, 2], [-np.inf] * 5, [-np.inf, 1, 2, 3, 0]]
    )
    weights, numbers = at_every_schedule(lambda device: routed(device, scores, 3, True))
    assert numbers[:4].tolist() == [[0, 1, 2]] * 4 and np.isnan(weights[:4]).all()
    assert numbers[4].tolist() == [3, 2, 1] and np.isfinite(weights[4]).all()


# ---- what they say


@pytest.mark.clause("CUDA-27")
@given(st.data(), mixtures(), st.integers(1, 6), layouts)
def test_a_mixture_is_the_weighted_sum_of_what_experts_say(
    data: Any, case: ExpertsCase, tokens: int, layout: str
) -> None:
    hidden = case.router.weight.values.shape[1]
    x = data.draw(floats((tokens, hidden), -2, 2))
    assume(case.is_clear(exact(x)))
    always = data.draw(st.one_of(st.none(), floats((tokens, hidden), -2, 2)))

    def run(device: Device) -> Array:
        experts, own = experts_on(device, case), kernels(device)
        operand = laid(device, x, layout if tokens > 1 else "whole")
        assert own.fits(operand, experts)
        return own.mixture(operand, experts, None if always is None else laid(device, always, layout))

    wanted = case.expect(exact(x))
    assert_close(at_every_schedule(run), wanted if always is None else wanted.plus(always), "float32")


@pytest.mark.clause("CUDA-28")
@given(st.data(), mixtures(), st.integers(2, 12))
def test_what_experts_say_to_a_token_does_not_depend_on_the_others(data: Any, case: ExpertsCase, tokens: int) -> None:
    x = data.draw(floats((tokens, case.router.weight.values.shape[1]), -2, 2))
    device = device_at(1)
    experts, own = experts_on(device, case), kernels(device)
    assert own.fits(laid(device, x), experts)
    whole = own.mixture(laid(device, x), experts, None)
    token = data.draw(st.integers(0, tokens - 1))
    alone = own.mixture(laid(device, x[token : token + 1]), experts, None)
    assert alone.tobytes() == whole[token : token + 1].tobytes()


def dense_mixture(device: Device, count: int, chosen: int, hidden: int = 8, middle: int = 12) -> Experts:
    random = np.random.default_rng(0)

    def linear(rows: int, columns: int) -> Linear:
        return Linear(Dense(device.upload(random.standard_normal((rows, columns)).astype(np.float32))))

    each = tuple(GatedMlp(linear(middle, hidden), linear(middle, hidden), linear(hidden, middle)) for _ in range(count))
    return Experts(linear(count, hidden), each, chosen)


@pytest.mark.clause("CUDA-29")
def test_a_captured_mixture_goes_to_other_experts_for_other_tokens() -> None:
    device = device_at(1)
    experts, own = dense_mixture(device, 6, 2), kernels(device)
    xs = np.random.default_rng(1).standard_normal((3, 5, 8)).astype(np.float32)
    buffer = device.upload(xs[0])
    assert own.fits(buffer, experts)
    graph, result = device.capture(lambda: own.mixture(buffer, experts, None))
    for x in xs:
        buffer[...] = x
        graph.launch()
        assert result.tobytes() == own.mixture(device.upload(x), experts, None).tobytes()


@pytest.mark.clause("CUDA-29")
def test_the_table_of_addresses_goes_with_its_experts() -> None:
    device = device_at(1)
    own, x = kernels(device), device.upload(np.zeros((1, 8), np.float32))
    for count in (2, 3, 4):
        assert own.fits(x, dense_mixture(device, count, 1))
    assert len(own._tables) == 0


@pytest.mark.clause("CUDA-29")
def test_what_kernels_cannot_compute_does_not_fit() -> None:
    device = device_at(1)
    own, x = kernels(device), device.upload(np.zeros((2, 8), np.float32))
    good = dense_mixture(device, 4, 2)
    mlp = good.experts[0]
    assert own.fits(x, good) and own.fits(x, replace(good, shared=mlp)), "the caller computes the shared expert"
    assert not own.fits(device.upload(np.zeros((2, 12), np.float32)), good)
    assert not own.fits(x, replace(good, chosen=0)) and not own.fits(x, replace(good, chosen=5))
    crowd = dense_mixture(device, MOST_CHOSEN + 1, MOST_CHOSEN + 1)
    assert not own.fits(x, crowd) and own.fits(x, replace(crowd, chosen=MOST_CHOSEN))

    def with_last(**changes: Any) -> Experts:
        return replace(good, experts=(*good.experts[:3], replace(mlp, **changes)))

    assert own.fits(x, with_last())
    rounded = Linear(Dense(Products(device).rounded(mlp.gate.weight.data)))
    short = Linear(Dense(device.upload(np.zeros((8, 8), np.float32))))
    for changes in (
        {"activation": "relu"}, {"activation": "swish"}, {"limit": 7.0}, {"up_offset": 1.0}, {"gate": rounded},
        {"gate": rounded, "up": rounded}, {"gate": short}, {"up": short}, {"gate": short, "up": short, "down": short},
        {"down": mlp.gate}, {"up": Linear(mlp.up.weight, device.upload(np.zeros(12, np.float64)))},
    ):  # fmt: skip
        assert not own.fits(x, with_last(**changes)), changes
    assert not own.fits(x, replace(good, router=mlp.gate)), "more scores than experts"
    odd = Linear(WEIGHT_TYPES["dense"](device.upload(np.zeros((4, 8), np.float64))))
    assert not own.fits(x, replace(good, router=odd))

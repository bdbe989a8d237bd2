"""OPS-70 to OPS-72: mixtures of experts computed by kernels, and mixtures that are left to the definition."""

from __future__ import annotations

import weakref
from collections.abc import Callable
from dataclasses import dataclass, replace
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import expert_calls, launch
from ferrum.backends.numba_kernels.launching.memory import address
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.conformance.strategies import FLOAT_KINDS, WEIGHT_TYPES
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.parts import ACTIVATIONS, Experts, GatedMlp, Norm
from ferrum.tensor.weights import Dense, Linear, Weight
from ferrum.testing.blocks import BLOCKS, random_blocks
from tests.backends.company import random_experts

OPS = NumbaOps(2)
KINDS = ("float32", "float16", "bfloat16", *BLOCKS)


def weight_of(kind: str, rows: int, columns: int, random: np.random.Generator) -> Weight:
    size = columns**-0.5
    if kind in FLOAT_KINDS:
        return Dense((size * random.standard_normal((rows, columns))).astype(host_dtype(kind)))
    return WEIGHT_TYPES[kind](random_blocks(kind, (rows, columns), random, size=size))


def linear_of(kind: str, rows: int, columns: int, random: np.random.Generator, biased: bool = False) -> Linear:
    bias = random.standard_normal(rows).astype(np.float32) if biased else None
    return Linear(weight_of(kind, rows, columns, random), bias)


def draw_experts(data: st.DataObject, columns: int, middle: int, seed: int) -> Experts:
    """Draws a mixture whose experts differ in kinds of weights, biases, activations and limits."""
    random, count = np.random.default_rng(seed), data.draw(st.integers(4, 9), "experts")
    kinds = [kind for kind in KINDS if kind in FLOAT_KINDS or not columns % BLOCKS[kind].size]
    inner_kinds = [kind for kind in KINDS if kind in FLOAT_KINDS or not middle % BLOCKS[kind].size]

    def one(rows: int) -> GatedMlp:
        first, biased = data.draw(st.sampled_from(kinds)), data.draw(st.booleans())
        limit, offset = data.draw(st.sampled_from([(None, 0.0), (1.0, 1.0)]))
        linears = [linear_of(first, rows, columns, random, biased) for _ in range(2)]
        down = linear_of(data.draw(st.sampled_from(inner_kinds)), columns, rows, random, biased)
        return GatedMlp(*linears, down, data.draw(st.sampled_from(ACTIVATIONS)), limit, offset)

    shared, gate = data.draw(st.sampled_from([(False, False), (True, False), (True, True)]))
    return Experts(
        linear_of(data.draw(st.sampled_from(kinds)), count, columns, random, data.draw(st.booleans())),
        tuple(one(middle) for _ in range(count)),
        data.draw(st.integers(1, count), "chosen"),
        data.draw(st.booleans(), "normalised"),
        one(middle) if shared else None,
        linear_of(data.draw(st.sampled_from(kinds)), 1, columns, random, data.draw(st.booleans())) if gate else None,
    )


def tokens_of(count: int, columns: int, seed: int) -> np.ndarray:
    return np.random.default_rng(seed).standard_normal((count, columns)).astype(np.float32)


def decided(x: np.ndarray, norm: Norm | None, experts: Experts) -> np.ndarray:
    """For each token, True if rounding cannot change the experts that the router chooses."""
    ops = NumpyOps("float64")
    wide = Norm(norm.weight.astype(np.float64), norm.epsilon) if norm is not None else None
    scores = -np.sort(-ops.linear(ops.normed(x.astype(np.float64), wide), experts.router), -1)
    last = experts.chosen
    return np.ones(len(x), bool) if last == scores.shape[1] else scores[:, last - 1] - scores[:, last] > 1e-4


@pytest.mark.clause("OPS-70")
@settings(max_examples=max(10, settings.default.max_examples // 2))
@given(
    data=st.data(), tokens=st.sampled_from([1, 2, 7, 30, 150, 400]), columns=st.sampled_from([64, 256]),
    middle=st.sampled_from([32, 96, 256, 512]), seed=st.integers(0, 99), normed=st.booleans(),
)  # fmt: skip
def test_kernels_compute_what_the_definition_says(
    data: st.DataObject, tokens: int, columns: int, middle: int, seed: int, normed: bool
) -> None:
    """There are more tokens than an expert takes at a time, more rows than are joined at a time, and any weights."""
    experts, x = draw_experts(data, columns, middle, seed), tokens_of(tokens, columns, seed)
    norm = Norm(1 + tokens_of(1, columns, seed + 1)[0] / 8, 1e-5) if normed else None
    with (
        patch.object(launch, "SERIAL_WORK", -1),
        patch.object(expert_calls, "mixture", wraps=expert_calls.mixture) as ran,
    ):
        ours = OPS.norm_experts(x, norm, experts)
    assert ran.called
    expected = NumpyOps().norm_experts(x, norm, experts)
    clear = decided(x, norm, experts)
    assert clear.mean() > 0.5
    scale = np.abs(expected[clear]).max() + 1
    np.testing.assert_allclose(ours[clear] / scale, expected[clear] / scale, atol=2e-5)


# ---- which experts
@pytest.mark.clause("OPS-70")
@pytest.mark.parametrize("scores", [(0.0,), (0.0, 1.0), (-200.0, 0.0, 200.0)], ids=str)
@given(count=st.integers(4, 40), chosen=st.integers(1, 4), seed=st.integers(0, 99), normalised=st.booleans())
def test_of_equal_experts_the_first_are_chosen(
    scores: tuple[float, ...], count: int, chosen: int, seed: int, normalised: bool
) -> None:
    """The router is only a bias with few different values, so that every token has ties."""
    random = np.random.default_rng(seed)
    bias = random.choice(scores, count).astype(np.float32)
    router = Linear(Dense(np.zeros((count, 32), np.float32)), bias)
    experts = replace(random_experts(count, chosen, 32, 32, random), router=router, normalised=normalised)
    x = tokens_of(3, 32, seed)
    best = np.argsort(-bias, kind="stable")[:chosen]
    chances = np.exp(bias.astype(np.float64) - bias.max())
    weights = chances[best] / (chances[best].sum() if normalised else chances.sum())
    one_by_one = [OPS.linear(OPS.norm_gated(x, None, experts.experts[number]), experts.experts[number].down)
                  for number in best]  # fmt: skip
    expected = sum(weight * result for weight, result in zip(weights, one_by_one, strict=True))
    np.testing.assert_allclose(OPS.norm_experts(x, None, experts), expected, rtol=1e-5, atol=1e-6)


@pytest.mark.clause("OPS-70")
@pytest.mark.filterwarnings("ignore::RuntimeWarning")
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_a_token_that_is_no_number_spoils_no_other(odd: float) -> None:
    random = np.random.default_rng(0)
    experts, x = random_experts(6, 2, 64, 32, random), tokens_of(9, 64, 0)
    expected = OPS.norm_experts(x, None, experts)
    x[4, 7] = odd
    found = OPS.norm_experts(x, None, experts)
    others = np.arange(9) != 4
    assert np.isnan(found[4]).all() and np.isfinite(expected).all()
    np.testing.assert_array_equal(found[others], expected[others])


# ---- bits
@pytest.mark.clause("OPS-71")
@settings(max_examples=max(10, settings.default.max_examples // 2))
@given(data=st.data(), tokens=st.integers(2, 200), middle=st.sampled_from([32, 96, 512]), seed=st.integers(0, 99))
def test_a_token_has_the_bits_that_it_has_alone(data: st.DataObject, tokens: int, middle: int, seed: int) -> None:
    experts, x = draw_experts(data, 64, middle, seed), tokens_of(tokens, 64, seed)
    norm = Norm(np.ones(64, np.float32), 1e-5)
    with patch.object(launch, "SERIAL_WORK", -1):
        together = OPS.norm_experts(x, norm, experts)
    for row in {0, seed % tokens, tokens - 1}:
        np.testing.assert_array_equal(OPS.norm_experts(x[row : row + 1], norm, experts)[0], together[row])


# ---- memory
@pytest.mark.clause("OPS-42")
@pytest.mark.parametrize(("columns", "middle"), [(1024, 32), (64, 1024), (64, 544)])
def test_kernels_stay_within_their_scratch(columns: int, middle: int) -> None:
    """There are several blocks of columns, and more rows than are joined at a time. After each piece of scratch memory
    lies a fence, which must not change."""
    ops, fence, pieces = NumbaOps(1), np.full(1 << 16, 0x5A, np.uint8), list[np.ndarray]()

    def scratch(count: int) -> tuple[int, int]:
        pieces.append(np.concatenate([np.zeros(count, np.uint8), fence]))
        return address(pieces[-1]), count

    experts = random_experts(17, 4, columns, middle, np.random.default_rng(0), shared=True, gate=True)
    x = tokens_of(400, columns, 0)
    expected = OPS.norm_experts(x, None, experts)
    with patch.object(ops._kernels.launcher, "scratch", scratch):
        np.testing.assert_array_equal(ops.norm_experts(x, None, experts), expected)
    assert len(pieces) >= 6
    assert all((piece[-len(fence) :] == fence).all() for piece in pieces)


# ---- what is left to the definition
@dataclass(frozen=True, eq=False)
class LaterExperts(Experts):
    """Experts with a field that no kernel knows."""

    scores_scale: float = 1.0


def change(experts: Experts, name: str) -> Experts:
    """Experts with one change that no kernel supports."""
    random, first = np.random.default_rng(1), experts.experts[0]
    others = experts.experts[1:]
    odd = Dense(random.standard_normal((64, 32)).astype(np.float64))
    narrow = random_experts(6, 2, 64, 64, random).experts[0]
    few = random_experts(3, 2, 64, 32, random)
    changed: dict[str, Callable[[], Experts]] = {
        "one of other weights": lambda: replace(experts, experts=(*others, replace(first, down=Linear(odd)))),
        "one of another size": lambda: replace(experts, experts=(*others, narrow)),
        "a bias of another type": lambda: replace(
            experts, router=replace(experts.router, bias=np.zeros(6, np.float64))
        ),
        "few experts": lambda: few,
        "a middle of half a vector": lambda: random_experts(6, 2, 64, 40, random),
        "a width of half a vector": lambda: random_experts(6, 2, 40, 32, random),
        "an unknown field": lambda: LaterExperts(experts.router, experts.experts, 2, scores_scale=2.0),
        "a gate of other weights": lambda: replace(
            experts, shared=first, shared_weight=Linear(Dense(random.standard_normal((1, 64))))
        ),
    }
    return changed[name]()


@pytest.mark.clause("OPS-72")
@pytest.mark.parametrize(
    "name",
    ["one of other weights", "one of another size", "a bias of another type", "few experts",
     "a middle of half a vector", "a width of half a vector", "an unknown field", "a gate of other weights"],
)  # fmt: skip
def test_what_has_no_kernel_is_left_to_the_definition(name: str) -> None:
    experts = change(random_experts(6, 2, 64, 32, np.random.default_rng(0)), name)
    x = tokens_of(5, experts.router.weight.columns, 0)
    with patch.object(expert_calls, "mixture", side_effect=AssertionError("a kernel took it")):
        found = OPS.norm_experts(x, None, experts)
    np.testing.assert_allclose(found, NumpyOps().norm_experts(x, None, experts), rtol=1e-4, atol=1e-5)


@pytest.mark.clause("OPS-72")
def test_a_field_that_kernels_do_not_know_may_be_there_unused() -> None:
    experts = random_experts(6, 2, 64, 32, np.random.default_rng(0))
    later = LaterExperts(experts.router, experts.experts, 2)
    x = tokens_of(5, 64, 0)
    np.testing.assert_array_equal(OPS.norm_experts(x, None, later), OPS.norm_experts(x, None, experts))


@pytest.mark.clause("OPS-72")
def test_a_shared_expert_may_have_any_weights() -> None:
    """Only the other experts must have weights that kernels support."""
    random = np.random.default_rng(0)
    experts = replace(
        random_experts(6, 2, 64, 32, random, shared=True, gate=True),
        shared=random_experts(4, 1, 64, 10, random).experts[0],
    )
    x = tokens_of(5, 64, 0)
    with patch.object(expert_calls, "mixture", wraps=expert_calls.mixture) as ran:
        found = OPS.norm_experts(x, None, experts)
    assert ran.called
    np.testing.assert_allclose(found, NumpyOps().norm_experts(x, None, experts), rtol=1e-4, atol=1e-5)


@pytest.mark.clause("OPS-72")
def test_no_tokens_give_no_rows() -> None:
    experts = random_experts(6, 2, 64, 32, np.random.default_rng(0))
    assert OPS.norm_experts(tokens_of(0, 64, 0), None, experts).shape == (0, 64)


@pytest.mark.clause("OPS-56")
def test_what_is_kept_of_a_mixture_is_gone_with_it() -> None:
    experts = random_experts(6, 2, 64, 32, np.random.default_rng(0))
    OPS.norm_experts(tokens_of(5, 64, 0), None, experts)
    known, mixture, matrix = (
        len(OPS._kernels.experts._known),
        weakref.ref(experts),
        weakref.ref(experts.experts[0].gate),
    )
    del experts
    assert mixture() is None and matrix() is None
    assert len(OPS._kernels.experts._known) == known - 1

"""The parts of a decoder with any value in every field: on the host, on the backend, and the expected results.

Owns: strategies for norms, MLPs, experts, embeddings and heads, whose every field is drawn, and their oracles in
float64. Refuses to know: which operation takes them.
Specs: OPS-37 to OPS-39. Next: `ferrum.conformance.calls`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.conformance import oracles
from ferrum.conformance.oracles import ACTIVATIONS, Array, Expected
from ferrum.conformance.strategies import LinearCase, floats, lay, linears, siblings
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Experts, GatedMlp, Norm, PlainMlp

EPSILONS = st.sampled_from([1e-6, 1e-5, 1e-3])
activations = st.sampled_from(sorted(ACTIVATIONS))


@dataclass(frozen=True)
class NormCase:
    """weight and bias [n] or [heads, n]."""

    weight: Array
    bias: Array | None
    epsilon: float
    centred: bool

    def place(self, ops: TensorOps) -> Norm:
        bias = None if self.bias is None else lay(ops, self.bias)
        return Norm(lay(ops, self.weight), self.epsilon, bias, self.centred)

    def expect(self, x: Expected) -> Expected:
        return oracles.norm_of(x, self.weight, self.bias, self.epsilon, self.centred)


@st.composite
def norms(draw: st.DrawFn, *shape: int) -> NormCase:
    weight = draw(floats(shape, -3, 3)).astype(np.float64)
    bias = draw(floats(shape, -3, 3)).astype(np.float64) if draw(st.booleans()) else None
    return NormCase(weight, bias, draw(EPSILONS), draw(st.booleans()))


@st.composite
def optional(draw: st.DrawFn, norm: st.SearchStrategy[NormCase]) -> NormCase | None:
    return draw(norm) if draw(st.integers(0, 3)) else None


def place(ops: TensorOps, norm: NormCase | None) -> Norm | None:
    return None if norm is None else norm.place(ops)


def normed(x: Expected, norm: NormCase | None) -> Expected:
    return x if norm is None else norm.expect(x)


def linear_of(x: Expected, case: LinearCase) -> Expected:
    return oracles.linear_of(x, case.weight.values, case.weight.sizes, case.host_bias)


@dataclass(frozen=True)
class GatedCase:
    gate: LinearCase
    up: LinearCase
    down: LinearCase
    activation: str
    limit: float | None
    up_offset: float

    def place(self, ops: TensorOps) -> GatedMlp:
        gate, up, down = (each.place(ops) for each in (self.gate, self.up, self.down))
        return GatedMlp(gate, up, down, self.activation, self.limit, self.up_offset)

    def expect_gated(self, gate: Expected, up: Expected) -> Expected:
        if self.limit is not None:
            gate, up = oracles.clipped(gate, -np.inf, self.limit), oracles.clipped(up, -self.limit, self.limit)
        return oracles.times(oracles.activated(gate, self.activation), up.plus(np.asarray(self.up_offset)))

    def expect_inner(self, x: Expected) -> Expected:
        return self.expect_gated(linear_of(x, self.gate), linear_of(x, self.up))

    def expect(self, x: Expected) -> Expected:
        return linear_of(self.expect_inner(x), self.down)


@st.composite
def gated_mlps(draw: st.DrawFn, width: int, middle: int, plain: bool = False) -> GatedCase:
    """plain: without rare fields, so that other drawn data stay small."""
    gate, up = draw(siblings(2, width, [middle, middle]))
    down = draw(linears(width, middle))
    limit = draw(st.sampled_from([None, None, 7.0, 0.5]))
    offset = draw(st.sampled_from([0.0, 0.0, 1.0]))
    return GatedCase(gate, up, down, draw(activations), None if plain else limit, 0.0 if plain else offset)


@dataclass(frozen=True)
class PlainCase:
    up: LinearCase
    down: LinearCase
    activation: str

    def place(self, ops: TensorOps) -> PlainMlp:
        return PlainMlp(self.up.place(ops), self.down.place(ops), self.activation)

    def expect_inner(self, x: Expected) -> Expected:
        return oracles.activated(linear_of(x, self.up), self.activation)


@st.composite
def plain_mlps(draw: st.DrawFn, width: int, middle: int) -> PlainCase:
    return PlainCase(draw(linears(middle, width)), draw(linears(width, middle)), draw(activations))


@dataclass(frozen=True)
class ExpertsCase:
    router: LinearCase
    experts: tuple[GatedCase, ...]
    chosen: int
    normalised: bool
    shared: GatedCase | None
    shared_weight: LinearCase | None

    def place(self, ops: TensorOps) -> Experts:
        return Experts(
            self.router.place(ops),
            tuple(expert.place(ops) for expert in self.experts),
            self.chosen,
            self.normalised,
            None if self.shared is None else self.shared.place(ops),
            None if self.shared_weight is None else self.shared_weight.place(ops),
        )

    def scores(self, x: Expected) -> Expected:
        return linear_of(x, self.router)

    def is_clear(self, x: Expected) -> bool:
        """True if for no token two experts have almost equal scores at the limit of the chosen ones."""
        return bool(self.clear_tokens(x).all())

    def clear_tokens(self, x: Expected) -> NDArray[np.bool_]:
        """For each token, True unless two experts have almost equal scores at the limit of the chosen ones."""
        scores = self.scores(x)
        ordered = -np.sort(-scores.value, -1)
        doubt = 1e-4 * scores.magnitude.max(-1)
        if self.chosen == ordered.shape[1]:
            return np.ones(len(ordered), bool)
        clear: NDArray[np.bool_] = ordered[:, self.chosen - 1] - ordered[:, self.chosen] > doubt
        return clear

    def expect(self, x: Expected) -> Expected:
        """Token by token."""
        scores = self.scores(x)
        chances = oracles.softmax(scores.value).value
        value, size = np.zeros_like(x.value), np.zeros_like(x.value)
        results = [expert.expect(x) for expert in self.experts]
        for token, row in enumerate(chances):
            best = np.argsort(-row, kind="stable")[: self.chosen]
            weights = row[best] / (row[best].sum() if self.normalised else 1)
            for weight, number in zip(weights, best, strict=True):
                result = results[number]
                # an error d of a score changes its weight by d, and the normalisation by as much again
                blur = 2 + 2 * scores.magnitude[token].max()
                value[token] += weight * result.value[token]
                size[token] += weight * (result.magnitude[token] + np.abs(result.value[token]) * blur)
        terms = max(result.terms for result in results)
        if self.shared is None:
            return Expected(value, size, terms)
        shared = self.shared.expect(x)
        if self.shared_weight is not None:
            door = linear_of(x, self.shared_weight)
            opened = oracles.sigmoid(door.value)
            shared = oracles.times(Expected(opened.value, opened.magnitude + door.magnitude, door.terms), shared)
        return Expected(value + shared.value, size + shared.magnitude, max(terms, shared.terms))


@st.composite
def experts(draw: st.DrawFn, width: int, middle: int) -> ExpertsCase:
    count = draw(st.integers(1, 5))
    shared = draw(gated_mlps(width, draw(st.sampled_from([16, 24])), plain=True)) if draw(st.booleans()) else None
    return ExpertsCase(
        draw(linears(count, width)),
        tuple(draw(gated_mlps(width, middle)) for _ in range(count)),
        draw(st.integers(1, count)),
        draw(st.booleans()),
        shared,
        draw(linears(1, width)) if shared is not None and draw(st.booleans()) else None,
    )

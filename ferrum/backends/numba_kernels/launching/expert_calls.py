"""Launches of the kernels of a mixture of experts.

Owns: the words of a mixture, and its launches. Experts may have different kinds of weights, biases and activations,
because each has its own words; all must have the same sizes.
Specs: OPS-70, OPS-72. Next: `ferrum.backends.numba_kernels.launching.choice_calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from ferrum.backends.numba_kernels import sizes
from ferrum.backends.numba_kernels.launching.memory import address
from ferrum.backends.numba_kernels.launching.operand_words import WeightWords, mlp_words, row_words, weight_words
from ferrum.backends.numba_kernels.launching.weight_units import Units
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Experts, GatedMlp, sets_beyond
from ferrum.tensor.weights import Weight

if TYPE_CHECKING:
    from ferrum.backends.numba_kernels.launching.kernel_calls import Kernels

_KNOWN_OF_EXPERTS = frozenset(["router", "experts", "chosen", "normalised", "shared", "shared_weight"])
NO_SHARED_GATE = (0, 0, 0)


@dataclass(frozen=True, eq=False)
class ExpertWords:
    """The words of a mixture of experts."""

    words: np.ndarray  # int64 [experts, words of an expert], as `layouts` says
    place: int  # address of the words
    count: int  # experts
    chosen: int  # experts of a token
    normalised: bool  # the weights of a token's experts are divided by their sum
    columns: int
    middle: int  # rows of gate and of up
    router: WeightWords
    shared_gate: tuple[int, int, int]  # of the shared expert's gate: row decoder, stored row, bias
    rounded: bool  # the products of the experts take rounded activations


def expert_words(compute: str, units: Callable[[Weight], Units], experts: Experts) -> ExpertWords | None:
    """The words of a mixture; None if kernels cannot compute it. The experts must outlive the words, because the words
    hold addresses of their arrays."""
    # the router is exact: a rounded score could choose another expert
    router, each = weight_words("float32", units, experts.router), [_one(compute, units, e) for e in experts.experts]
    gate = _shared_gate(experts)
    rows = [words for words in each if words is not None]
    if router is None or gate is None or len(rows) < len(each) or sets_beyond(experts, _KNOWN_OF_EXPERTS):
        return None
    if len({rounded for _, rounded in rows}) > 1:
        return None
    shapes = {expert.gate.weight.shape for expert in experts.experts}
    if router.rows != (len(rows),) or not 0 < experts.chosen <= len(rows) or len(shapes) != 1:
        return None
    ((middle, columns),) = shapes
    if columns != router.columns:
        return None
    words = np.stack([own for own, _ in rows])
    facts = len(words), experts.chosen, experts.normalised
    return ExpertWords(words, address(words), *facts, columns, middle, router, gate, rows[0][1])


def _one(compute: str, units: Callable[[Weight], Units], expert: GatedMlp) -> tuple[np.ndarray, bool] | None:
    """int64 [words of an expert], and True if its products take rounded activations. None if kernels cannot compute
    it."""
    inner, down = weight_words(compute, units, expert.gate, expert.up), weight_words(compute, units, expert.down)
    between = mlp_words(expert)
    if inner is None or down is None or between is None or inner.rounded != down.rounded:
        return None
    if inner.rows != (down.columns, down.columns) or down.rows != (inner.columns,):
        return None
    return np.concatenate([inner.descriptors.ravel(), down.descriptors.ravel(), between.words]), inner.rounded


def _shared_gate(experts: Experts) -> tuple[int, int, int] | None:
    """The words of the gate of the shared expert; None if a kernel cannot compute it."""
    gate = experts.shared_weight if experts.shared is not None else None
    if gate is None:
        return NO_SHARED_GATE
    return row_words(gate) if gate.weight.columns == experts.router.weight.columns else None


def mixture(kernels: Kernels, x: Tensor, experts: ExpertWords, shared: Tensor | None) -> Tensor:
    """x [tokens, columns], after the norm -> same shape. shared: the output of the shared expert for x, or None."""
    launcher, chosen, columns, middle = kernels.launcher, experts.chosen, experts.columns, experts.middle
    tokens, pairs = len(x), len(x) * chosen
    weights, numbers = _routed(kernels, x, experts)
    ends, sources, places = (_words(kernels, count) for count in (experts.count, pairs, pairs))
    launcher.launch(
        "routing.group", tokens, chosen, experts.count, *map(address, (numbers, ends, sources, places)),
        work=0, count=1,
    )  # fmt: skip
    inner = launcher.buffer((pairs, middle))
    own = kernels.rounded(x, None) if experts.rounded else x
    size = own.strides[0] if experts.rounded else 4 * columns
    scratch = sizes.expert_scratch(columns) + kernels.product_scratch(columns, sizes.EXPERT_TOKENS)
    launcher.launch(
        "experts.inner",
        address(own), own.strides[0], tokens, size, experts.place, experts.count, chosen, address(ends),
        address(sources), middle, address(inner), *launcher.scratch(scratch), work=2 * inner.size * columns, count=3,
    )  # fmt: skip
    given = kernels.rounded(inner, None) if experts.rounded else inner
    results = launcher.buffer((pairs, columns))
    launcher.launch(
        "experts.outer",
        address(given), tokens, given.strides[0], experts.place, experts.count, chosen, address(ends), columns,
        address(results), *launcher.scratch(kernels.product_scratch(middle, sizes.EXPERT_TOKENS)),
        work=inner.size * columns, count=2,
    )  # fmt: skip
    gates = None if shared is None or experts.shared_gate == NO_SHARED_GATE else _shared_gates(kernels, x, experts)
    shared = None if shared is None else kernels.rows(shared, columns)
    out = launcher.buffer((tokens, columns))
    launcher.launch(
        "experts.combine",
        address(results), address(places), address(weights), tokens, chosen, columns,
        0 if shared is None else address(shared), 0 if shared is None else shared.strides[0],
        0 if gates is None else address(gates), address(out), work=8 * results.size, count=4,
    )  # fmt: skip
    return out


def _routed(kernels: Kernels, x: Tensor, experts: ExpertWords) -> tuple[np.ndarray, np.ndarray]:
    """-> weights float32 [tokens, chosen], and the numbers of the experts, int64 in a buffer of float32."""
    tokens, launcher = len(x), kernels.launcher
    scores = kernels.linears(x, None, experts.router, None)
    weights, numbers = launcher.buffer((tokens, experts.chosen)), _words(kernels, tokens * experts.chosen)
    launcher.launch(
        "routing.route",
        address(scores), tokens, experts.count, experts.chosen, experts.normalised, address(weights), address(numbers),
        *launcher.scratch(sizes.router_scratch(experts.count)), work=scores.size * (8 + experts.chosen), count=2,
    )  # fmt: skip
    return weights, numbers


def _shared_gates(kernels: Kernels, x: Tensor, experts: ExpertWords) -> np.ndarray:
    """The gate of the shared expert: float32 [tokens, 16], the same number in all 16 lanes."""
    launcher = kernels.launcher
    out = launcher.buffer((len(x), sizes.VECTOR))
    launcher.launch(
        "routing.shared_gate",
        address(x), x.strides[0], len(x), experts.columns, *experts.shared_gate, address(out),
        *launcher.scratch(4 * experts.columns), work=x.size, count=3,
    )  # fmt: skip
    return out


def _words(kernels: Kernels, count: int) -> np.ndarray:
    """Memory for this number of words, as an array of float32."""
    return kernels.launcher.buffer((2 * count,))

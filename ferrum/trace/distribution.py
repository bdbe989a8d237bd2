"""How one token is chosen, step by step, by the definition of sampling.

Owns: `explain`: the distribution as the model gives it, after each edit and filter that changes it, and the draw.
Refuses to know: the engine, which chooses in a faster way; a trace shows both tokens.
Specs: TRACE-08, TRACE-09. Next: `ferrum.trace.sequences`.
"""

from __future__ import annotations

import math
from collections.abc import Iterable
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.sample.definition import edits, filters, is_greedy
from ferrum.sample.randomness import random_unit
from ferrum.sample.state import SamplingState
from ferrum.tensor.drawing import draw, weights_of

Floats = NDArray[np.float64]

MOST_LIKELY = 12
"""Tokens that a trace shows of each distribution."""


def explain(row: NDArray[Any], state: SamplingState) -> dict[str, Any]:
    """Logits [vocab] and the state before the token -> the fields `definition` to `stages` of a choice."""
    ops = NumpyOps("float64")
    logits = ops.cast(np.asarray(row).reshape(1, -1), "float64")
    greedy = is_greedy(state.params)
    fields: dict[str, Any] = {"definition": None, "greedy": greedy, "unit": None, "interval": None, "stages": []}
    if not math.isfinite(logits.max()):
        return fields  # the engine ends such a request with an error
    fields["stages"].append(_stage("logits", logits[0]))
    x = _follow(fields["stages"], logits, edits(ops, logits, [state]))
    if x.max() == -math.inf:
        return fields  # no token is left, which is an error of the request
    if greedy:
        return fields | {"definition": int(x.argmax())}
    x = _follow(fields["stages"], x, filters(ops, x, [state]))
    unit = random_unit(state.seed, state.position)
    token = int(draw(ops, x, np.array([[unit]]))[0])
    running = np.concatenate(([0.0], weights_of(ops, x)[0].cumsum()))
    low, high = running[token : token + 2] / running[-1]
    return fields | {"definition": token, "unit": unit, "interval": [short(low), short(high)]}


def _follow(stages: list[dict[str, Any]], x: Floats, steps: Iterable[tuple[str, Floats]]) -> Floats:
    """The logits [1, vocab] after the last of the steps. A step that changes them becomes a stage."""
    for name, after in steps:
        if not np.array_equal(x, after):
            stages.append(_stage(name, after[0]))
        x = after
    return x


def _stage(name: str, logits: Floats) -> dict[str, Any]:
    """A distribution as a trace writes it."""
    left = int((logits > -math.inf).sum())
    best = most_likely(logits, min(MOST_LIKELY, left))
    if not left:
        return {"name": name, "left": 0, "top": []}
    weights = np.exp(logits - logits.max())
    shares = weights[best] / weights.sum()
    top = [
        [int(token), short(logit), short(share)] for token, logit, share in zip(best, logits[best], shares, strict=True)
    ]
    return {"name": name, "left": left, "top": top}


def most_likely(logits: Floats, count: int) -> NDArray[np.int64]:
    """The ids of the `count` largest logits, largest first, of equal ones the lowest id first."""
    if not count:
        return np.zeros(0, np.int64)
    near = np.flatnonzero(logits >= np.partition(logits, len(logits) - count)[len(logits) - count])
    return near[np.argsort(-logits[near], kind="stable")][:count]


def short(value: float) -> float:
    """With 6 significant digits."""
    return float(f"{value:.6g}")

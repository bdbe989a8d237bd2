"""How a token is chosen, the fast way: one row on the host, and work only where a token can still be chosen.

Owns: the same choice as `ferrum.sample.pipeline`, bit for bit, at a tenth of its time: top-k is a selection instead of
a sort, top-p sorts only as many tokens as it needs. Sums run over the same weights in the same order.
Refuses to know: batches and backends.
Specs: SAMPLE-12. Next: `ferrum.sample.randomness`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.types import SamplingParams

Floats = NDArray[np.float64]

FIRST_GUESS = 512
"""Tokens that top-p sorts first; while they do not hold enough probability, it takes eight times as many."""


def choose(row: NDArray[Any], params: SamplingParams, unit: float) -> int:
    """A row of float logits [vocab] with a finite maximum, a number in [0, 1) -> the token's id."""
    ids = _largest(row, params.top_k) if 0 < params.top_k < len(row) else None  # ascending
    logits = (row if ids is None else row[ids]).astype(np.float64) / params.temperature
    weights = np.exp(logits - logits.max())  # the largest is 1
    if params.top_p < 1:
        weights = np.where(_nucleus(logits, weights, params.top_p), weights, 0.0)
    if params.min_p > 0:
        weights = np.where(weights < params.min_p, 0.0, weights)
    running = weights.cumsum()
    index = int(running.searchsorted(unit * running[-1], side="right"))
    return index if ids is None else int(ids[index])


def _largest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Indices, ascending, of exactly `count` largest values; of equal ones the first."""
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    indices = np.flatnonzero(values >= threshold)  # too many only where the threshold occurs more than once
    surplus = len(indices) - count
    if surplus:
        ties = np.flatnonzero(values[indices] == threshold)
        indices = np.delete(indices, ties[len(ties) - surplus :])
    return indices


def _nucleus(logits: Floats, weights: Floats, top_p: float) -> NDArray[np.bool_]:
    """bool [tokens]: the most probable ones, up to and including the one with which their share reaches top_p."""
    wanted = top_p * weights.cumsum()[-1]
    kept = np.zeros(len(logits), np.bool_)
    count = 0
    reached = -1.0
    while reached < wanted and count < len(logits):
        count = min(max(FIRST_GUESS, 8 * count), len(logits))
        ids = _largest(logits, count)
        order = ids[np.argsort(-logits[ids], kind="stable")]  # descending, equal ones by their place
        running = weights[order].cumsum()
        reached = running[-1]
    kept[order[: int(running.searchsorted(wanted, side="left")) + 1]] = True
    return kept

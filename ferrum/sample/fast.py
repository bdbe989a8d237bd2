"""How a token is chosen, the fast way: one row on the host, with work only where a parameter asks for it.

Owns: the same tokens as `ferrum.sample.definition`, bit for bit, in a tenth of the time: an edit touches only the
logits that it changes, top-k is a selection instead of a sort, top-p sorts only as many tokens as it needs. Sums run
over the same numbers in the same order as in the definition, which makes them equal to the last bit.
Refuses to know: batches and backends.
Specs: SAMPLE-03 to SAMPLE-05, SAMPLE-07, SAMPLE-08, SAMPLE-12, SAMPLE-52. Next: `ferrum.sample.logprobs`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams

Floats = NDArray[np.float64]

FIRST_GUESS = 512
"""Number of tokens that top-p sorts first; while their probability is too small, it sorts eight times as many."""

GROUP = 64
"""Size of the groups of which only the maxima are compared first, where few of many values are selected."""


def edited(row: NDArray[Any], state: SamplingState) -> NDArray[np.float64]:
    """A row of float logits [vocab] -> a copy after penalties, bias, grammar mask and min_tokens."""
    params, x = state.params, row.astype(np.float64)
    if params.repetition_penalty != 1:
        ids = state.history.seen()
        values = x[ids]
        x[ids] = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        ids, counts = state.history.counts()
        x[ids] = x[ids] - params.presence_penalty - params.frequency_penalty * counts
    if params.logit_bias:
        ids, values = state.bias
        x[ids] += values
    allowed = state.allowed()
    if allowed is not None:
        x[~allowed] = -math.inf
    banned = state.banned(len(x))
    if banned.size:
        without = x.copy()
        without[banned] = -math.inf
        x = without if without.max() > -math.inf else x
    return x


@dataclass(frozen=True, eq=False)
class Candidates:
    """The tokens that can be drawn, with their probabilities."""

    ids: NDArray[np.int64] | None  # ascending; None: the whole vocabulary
    weights: Floats  # probabilities times one common factor; 0 for a token that cannot be drawn

    def draw(self, unit: float) -> int:
        """The index of the candidate that a number in [0, 1) draws."""
        running = self.weights.cumsum()
        return int(running.searchsorted(unit * running[-1], side="right"))

    def token(self, index: int) -> int:
        return index if self.ids is None else int(self.ids[index])

    def surprise(self, index: int) -> float:
        """-log2 of a candidate's probability."""
        return math.log2(float(self.weights.cumsum()[-1]) / float(self.weights[index]))

    def logprobs(self, vocab_size: int) -> Floats:
        """[vocab]: the logarithms of the probabilities, -inf for tokens that cannot be drawn."""
        with np.errstate(divide="ignore"):
            own: Floats = np.log(self.weights) - np.log(self.weights.cumsum()[-1])
        if self.ids is None:
            return own
        everywhere = np.full(vocab_size, -math.inf)
        everywhere[self.ids] = own
        return everywhere


def find_candidates(row: NDArray[Any], params: SamplingParams, most_surprise: float = math.inf) -> Candidates:
    """A row of float logits [vocab] with a finite maximum; `most_surprise`: the limit of mirostat, in bits."""
    if params.top_n_sigma > 0:
        near = _near_the_largest(row.astype(np.float64) / params.temperature, params.top_n_sigma)
        row = np.where(near, row, -math.inf)
    ids = largest(row, params.top_k) if 0 < params.top_k < len(row) else None  # ascending
    logits = (row if ids is None else row[ids]).astype(np.float64) / params.temperature
    weights = np.exp(logits - logits.max())  # the largest is 1
    if params.top_p < 1:
        logits, weights = _only(_nucleus(logits, weights, params.top_p), logits, weights)
    if params.min_p > 0:
        logits, weights = _only(weights >= params.min_p, logits, weights)
    if params.typical_p < 1:
        logits, _ = _only(_typical(logits, weights, params.typical_p), logits, weights)
        weights = np.exp(logits - logits.max())  # the largest may be another one now
    if not params.mirostat:
        return Candidates(ids, weights)
    kept = (_surprise(logits, weights) / math.log(2) <= most_surprise) | (logits == logits.max())
    return Candidates(ids, np.where(kept, weights, 0.0))


def _only(kept: NDArray[np.bool_], logits: Floats, weights: Floats) -> tuple[Floats, Floats]:
    return np.where(kept, logits, -math.inf), np.where(kept, weights, 0.0)


def largest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """Indices, ascending, of exactly `count` largest values; of equal ones the first."""
    width = len(values) // GROUP
    if count > width // 2:
        return _largest(values, count)
    maxima = values[: GROUP * width].reshape(GROUP, width).max(0)  # of groups: the count-th of them is not above ours
    some = np.flatnonzero(values >= np.partition(maxima, width - count)[width - count])
    return some[_largest(values[some], count)]


def _largest(values: NDArray[Any], count: int) -> NDArray[np.int64]:
    """The same, by a partition of all values."""
    threshold = np.partition(values, len(values) - count)[len(values) - count]
    indices = np.flatnonzero(values >= threshold)  # too many only where the threshold occurs more than once
    surplus = len(indices) - count
    if surplus:
        ties = np.flatnonzero(values[indices] == threshold)
        indices = np.delete(indices, ties[len(ties) - surplus :])
    return indices


def _near_the_largest(logits: Floats, count: float) -> NDArray[np.bool_]:
    """bool [tokens]: those whose logit is at most `count` standard deviations below the largest one."""
    finite = logits > -math.inf
    number = np.count_nonzero(finite)
    mean = np.where(finite, logits, 0.0).cumsum()[-1] / number
    deviation = np.where(finite, logits - mean, 0.0)
    variance = (deviation * deviation).cumsum()[-1] / number
    gap = logits.max() - logits
    near: NDArray[np.bool_] = gap * gap <= count * count * variance
    return near


def _nucleus(logits: Floats, weights: Floats, top_p: float) -> NDArray[np.bool_]:
    """bool [tokens]: the most probable ones, up to and including the one with which their share reaches top_p."""
    wanted = top_p * weights.cumsum()[-1]
    kept = np.zeros(len(logits), np.bool_)
    count = 0
    reached = -1.0
    while reached < wanted and count < len(logits):
        count = min(max(FIRST_GUESS, 8 * count), len(logits))
        ids = largest(logits, count)
        order = ids[np.argsort(-logits[ids], kind="stable")]  # descending, equal ones by their place
        running = weights[order].cumsum()
        reached = running[-1]
    kept[order[: int(running.searchsorted(wanted, side="left")) + 1]] = True
    return kept


def _typical(logits: Floats, weights: Floats, typical_p: float) -> NDArray[np.bool_]:
    """bool [tokens]: the most typical ones, up to and including the one with which their share reaches typical_p."""
    surprise, total = _surprise(logits, weights), weights.cumsum()[-1]
    entropy = (weights / total * np.where(weights > 0, surprise, 0.0)).cumsum()[-1]
    order = np.argsort(np.abs(surprise - entropy), kind="stable")
    running = weights[order].cumsum()
    kept = np.zeros(len(logits), np.bool_)
    kept[order[: int(running.searchsorted(typical_p * total, side="left")) + 1]] = True
    return kept


def _surprise(logits: Floats, weights: Floats) -> Floats:
    """-log of each token's probability, in nats."""
    surprise: Floats = -(logits - logits.max() - np.log(weights.cumsum()[-1]))
    return surprise

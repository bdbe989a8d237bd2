"""One token for every row of logits, and what is told of it.

Owns: which way a row goes: where the largest logit is all that is wanted, `ops.argmax` finds it and the row stays where
it is; any other row is looked at on the host, alone, so that it cannot tell its batch-mates, and fails alone. Each way
waits for the backend once. Refuses to know: requests and scheduling.
Specs: SAMPLE-01, SAMPLE-10, SAMPLE-13, SAMPLE-25, SAMPLE-26. Next: `ferrum.sample.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import ModelError
from ferrum.sample.candidates import find_candidates
from ferrum.sample.edits import edited
from ferrum.sample.logprobs import Ranked, log_softmax, not_finite, ranked
from ferrum.sample.pipeline import is_greedy
from ferrum.sample.randomness import random_unit
from ferrum.sample.state import SamplingState
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token of a row. `surprise`: its bits, where mirostat wants to know; `logprobs`: where they were asked for."""

    token: int
    surprise: float | None = None
    logprobs: Ranked | None = None


Outcome = Sampled | ModelError


def sample(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> list[Outcome]:
    """[rows, vocab] -> one token per row, chosen as states[row] says; no state changes. In the place of a row that
    offers nothing to choose stands the error: its largest logit is NaN or infinite, or no token is left of it. The
    others have their tokens."""
    greedy = [index for index, state in enumerate(states) if _is_argmax(state)]
    others = [index for index, state in enumerate(states) if not _is_argmax(state)]
    found: dict[int, Outcome] = {}
    if greedy:
        found.update(zip(greedy, _largest(ops, _rows(ops, logits, greedy)), strict=True))
    if others:
        for index, row in zip(others, ops.to_numpy(_rows(ops, logits, others)), strict=True):
            found[index] = _outcome(row, states[index])
    return [found[index] for index in range(len(states))]


def _rows(ops: TensorOps, logits: Tensor, rows: Sequence[int]) -> Tensor:
    return logits if len(rows) == logits.shape[0] else ops.take(logits, ops.asarray(np.array(rows, np.int64), "int64"))


def _largest(ops: TensorOps, logits: Tensor) -> Iterator[Outcome]:
    """[rows, vocab] -> the token of each row's largest logit, where that is finite. Both come to the host in one piece:
    float64 holds every token id, and every logit, exactly."""
    best = ops.reshape(ops.argmax(logits, -1), (-1, 1))
    pair = ops.cast(best, "float64"), ops.cast(ops.take_along(logits, best), "float64")
    for token, logit in ops.to_numpy(ops.concat(pair, -1)).tolist():
        yield Sampled(int(token)) if math.isfinite(logit) else not_finite(logit)


def _outcome(row: NDArray[Any], state: SamplingState) -> Outcome:
    largest = float(row[row.argmax()])  # NaN, where there is one
    if not math.isfinite(largest):
        return not_finite(largest)
    try:
        return sample_row(row, state)
    except ModelError as error:
        return error


def _is_argmax(state: SamplingState) -> bool:
    """Is the token of the largest logit all that is wanted?"""
    return is_greedy(state.params) and state.params.logprobs is None and not state.edits_logits


def sample_row(row: NDArray[Any], state: SamplingState) -> Sampled:
    """A row of float logits [vocab] on the host, with a finite maximum. Raises ModelError where no token is left."""
    params = state.params
    logits = edited(row, state) if state.edits_logits else row
    if logits is not row and logits.max() == -np.inf:
        raise ModelError(
            "no token is left that the model could choose: the grammar allows none that goes on with the text"
        )
    token, surprise = int(logits.argmax()), None
    found = None
    if not is_greedy(params):
        found = find_candidates(logits, params, state.most_surprise)
        index = found.draw(random_unit(state.seed, state.position))
        token, surprise = found.token(index), found.surprise(index) if params.mirostat else None
    if params.logprobs is None:
        return Sampled(token, surprise)
    if params.logprobs_mode == "raw_logprobs":
        logprobs = log_softmax(row)
    else:
        logprobs = log_softmax(logits) if found is None else found.logprobs(len(row))
    return Sampled(token, surprise, ranked(logprobs, token, params.logprobs))

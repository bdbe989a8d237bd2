"""One token for every row of logits, and what is told of it.

Owns: which way a batch goes: all greedy, straight to `ops.argmax` without leaving the backend; otherwise row by row on
the host, so that a row cannot tell its batch-mates. Refuses to know: requests and scheduling.
Specs: SAMPLE-01, SAMPLE-10, SAMPLE-13, SAMPLE-25, SAMPLE-26. Next: `ferrum.sample.limits`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import ModelError
from ferrum.sample.candidates import find_candidates
from ferrum.sample.edits import edited
from ferrum.sample.logprobs import Ranked, log_softmax, ranked
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


def sample(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> list[Sampled]:
    """[rows, vocab] -> one token per row, chosen as states[row] says; no state changes. Raises ModelError where a row
    offers nothing to choose: its largest logit is NaN or infinite."""
    best = ops.argmax(logits, -1)
    largest = ops.to_numpy(ops.take_along(logits, ops.reshape(best, (len(states), 1))))
    if not np.isfinite(largest).all():
        row = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise ModelError(f"the model's best logit is {largest[row, 0]}: damaged weights, or numbers out of range")
    tokens: list[int] = ops.to_numpy(best).tolist()
    if all(_is_argmax(state) for state in states):
        return [Sampled(token) for token in tokens]
    rows = ops.to_numpy(logits)
    return [
        Sampled(token) if _is_argmax(state) else sample_row(row, state)
        for token, row, state in zip(tokens, rows, states, strict=True)
    ]


def _is_argmax(state: SamplingState) -> bool:
    """Is the token of the largest logit all that is wanted?"""
    return is_greedy(state.params) and state.params.logprobs is None and not state.edits_logits


def sample_row(row: NDArray[Any], state: SamplingState) -> Sampled:
    """A row of float logits [vocab] on the host, with a finite maximum."""
    params = state.params
    logits = edited(row, state) if state.edits_logits else row
    if logits is not row and logits.max() == -np.inf:
        raise ModelError("no token is left that the model could choose: the grammar allows none that it knows")
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

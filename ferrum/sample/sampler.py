"""One token for every row of logits, with its log probabilities if they are asked for.

Owns: the way that each row takes. Rows that `ops.choose` can sample (and `ops.ranked` describe) go to the backend, all
at once. If all of these are greedy, a backend without a fast `choose` computes their argmax; `numpy` gets rows only if
each row of the step is a plain argmax. All other rows are sampled on the host by `ferrum.sample.fast`, one by one, so
that no row affects another, and a row that fails does so alone. Each way waits for the backend once.
Refuses to know: requests and scheduling.
Specs: SAMPLE-01, SAMPLE-10, SAMPLE-13, SAMPLE-25, SAMPLE-26, SAMPLE-50. Next: `ferrum.sample.limits`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import ModelError
from ferrum.sample.definition import is_greedy
from ferrum.sample.fast import edited, find_candidates
from ferrum.sample.logprobs import Ranked, log_softmax, not_finite, ranked
from ferrum.sample.randomness import random_unit
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import ALL_TOKENS
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

CHOSEN_BY_BACKEND = frozenset({"top_k", "top_p", "min_p"})
"""The filters that are part of `ops.choose`."""


@dataclass(frozen=True, slots=True)
class Sampled:
    """The token of a row."""

    token: int
    surprise: float | None = None  # in bits, for requests with mirostat
    logprobs: Ranked | None = None  # for requests with logprobs


Outcome = Sampled | ModelError


def sample(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> list[Outcome]:
    """[rows, vocab] -> one token per row, by the parameters and history in states[row]; no state changes. A row that
    fails has a ModelError instead of a token: its largest logit is NaN or infinite, or no token is left to choose."""
    by_backend = _chosen_by_backend(ops, states)
    outcomes: dict[int, Outcome] = {}
    if by_backend:
        rows, row_states = _rows(ops, logits, by_backend), [states[index] for index in by_backend]
        tokens = _tokens(ops, rows, row_states)
        outcomes.update(zip(by_backend, _with_logprobs(ops, rows, tokens, row_states), strict=True))
    by_host = [index for index in range(len(states)) if index not in outcomes]
    if by_host:
        for index, row in zip(by_host, ops.to_numpy(_rows(ops, logits, by_host)), strict=True):
            outcomes[index] = _outcome(row, states[index])
    return [outcomes[index] for index in range(len(states))]


def _chosen_by_backend(ops: TensorOps, states: Sequence[SamplingState]) -> list[int]:
    """The indices of the rows whose token the backend chooses. On `numba` and `cupy`: the rows that `choose` and
    `ranked` implement. On `numpy`, which has no fast `choose` and whose logits are on the host in any case: all rows if
    each is a plain argmax, else none."""
    if ops.chooses or not ops.on_host:
        return [index for index, state in enumerate(states) if _is_choice(state)]
    return list(range(len(states))) if all(map(_is_argmax, states)) else []


def _rows(ops: TensorOps, logits: Tensor, rows: Sequence[int]) -> Tensor:
    return logits if len(rows) == logits.shape[0] else ops.take(logits, ops.asarray(np.array(rows, np.int64), "int64"))


def _tokens(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """[rows, vocab] -> int64 [rows]: each row's token, chosen by the backend."""
    if not ops.chooses and all(is_greedy(state.params) for state in states):
        return ops.argmax(logits, -1)
    settings = [
        (state.params.temperature, min(state.params.top_k, logits.shape[1]), state.params.top_p, state.params.min_p,
         0.0 if is_greedy(state.params) else random_unit(state.seed, state.position))
        for state in states
    ]  # fmt: skip
    return ops.choose(logits, ops.asarray(np.array(settings, np.float64), "float64"))


def _with_logprobs(
    ops: TensorOps, logits: Tensor, tokens: Tensor, states: Sequence[SamplingState]
) -> Iterator[Outcome]:
    """[rows, vocab], int64 [rows] -> the outcome of each row. Ids, logits and log probabilities come to the host in one
    transfer, as float64, which holds every id and every logit exactly. A row whose largest logit is not finite has that
    logit's token, so that the token's own logit shows the failure."""
    wanted = [state.params.logprobs for state in states]
    places = ops.reshape(tokens, (-1, 1))
    columns = [ops.cast(places, "float64"), ops.cast(ops.take_along(logits, places), "float64")]
    most = max((count for count in wanted if count is not None), default=None)
    if most is not None:
        most = min(most, logits.shape[1])
        columns.append(ops.ranked(logits, tokens, most))
    for count, (token, logit, *facts) in zip(wanted, ops.to_numpy(ops.concat(columns, -1)).tolist(), strict=True):
        if not math.isfinite(logit):
            yield not_finite(logit)
            continue
        yield Sampled(int(token), None, None if count is None else _ranked(int(token), facts, min(count, most or 0)))


def _ranked(token: int, facts: Sequence[float], count: int) -> Ranked:
    """A row of `ops.ranked`, which has at least `count` tokens, as a mapping."""
    (logprob, rank), best = facts[:2], facts[2:]
    ids, values = best[: len(best) // 2], best[len(best) // 2 :]
    found: Ranked = {token: (logprob, int(rank))}
    for place in range(count):
        found.setdefault(int(ids[place]), (values[place], place + 1))
    return found


def _outcome(row: NDArray[Any], state: SamplingState) -> Outcome:
    largest = float(row[row.argmax()])  # NaN, where there is one
    if not math.isfinite(largest):
        return not_finite(largest)
    try:
        return sample_row(row, state)
    except ModelError as error:
        return error


def _is_argmax(state: SamplingState) -> bool:
    """True if the token is the argmax of the logits as they are, and no log probabilities are asked for."""
    if state.params.logprobs is not None:
        return False
    return is_greedy(state.params) and not state.edits_logits


def _is_choice(state: SamplingState) -> bool:
    """True if `choose` and `ranked` implement everything that the request asks for."""
    params, logprobs = state.params, state.params.logprobs
    as_they_are = is_greedy(params) or params.logprobs_mode == "raw_logprobs"
    can_rank = logprobs is None or (logprobs != ALL_TOKENS and as_they_are)
    return can_rank and not state.edits_logits and state.filters <= CHOSEN_BY_BACKEND


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

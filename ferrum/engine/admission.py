"""What is asked of every request before it is queued.

Owns: the checks of a prompt, its parameters, its priority and its timeout, in which nothing is changed and no thread is
in another's way. Refuses to know: what is done with a request.
Specs: ENGINE-12, ENGINE-24, SAMPLE-31. Next: `ferrum.engine.deadlines`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from ferrum.errors import InvalidParameter, RequestValidation, quoted
from ferrum.given import real
from ferrum.sample.limits import check_against_model
from ferrum.sample.state import Grammar
from ferrum.sampling_params import SamplingParams
from ferrum.sched.scheduler import Scheduler
from ferrum.types import Priority

ENCODER = "the model is an encoder: it makes vectors of texts (LLM.embed), and writes none"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request that was checked. `grammars`: one for each of its choices."""

    prompt_ids: list[int]
    params: SamplingParams
    grammars: Sequence[Grammar | None]


def check_request(
    prompt_ids: Sequence[int], params: SamplingParams, vocab_size: int, scheduler: Scheduler
) -> list[int]:
    """-> the prompt as plain integers. Raises RequestValidation for one that can never be served, InvalidParameter for
    parameters that this model or scheduler cannot follow."""
    if not isinstance(params, SamplingParams):
        raise InvalidParameter("params", f"must be SamplingParams, not {quoted(params)}")
    token_ids = check_ids(prompt_ids, vocab_size)
    longest = scheduler.check(len(token_ids), params.max_tokens)
    most = scheduler.limits.max_waiting
    if params.n > most:
        raise InvalidParameter("n", f"must be at most {most}, not {quoted(params.n)}")
    check_against_model(params, vocab_size=vocab_size, most_tokens=longest, prompt_tokens=len(token_ids))
    return token_ids


def check_ids(token_ids: Sequence[int], vocab_size: int) -> list[int]:
    """-> plain integers. Raises RequestValidation for what is no token, one outside the vocabulary, or none."""
    try:
        ids = [operator.index(token) for token in token_ids]
    except TypeError as error:
        raise RequestValidation(f"a prompt must be token ids: {error}") from None
    if not ids:
        raise RequestValidation("the prompt has no tokens")
    for token in (min(ids), max(ids)):
        if not 0 <= token < vocab_size:
            last = vocab_size - 1
            raise RequestValidation(f"token {quoted(token)} is not in the vocabulary: ids go from 0 to {last}")
    return ids


def check_urgency(priority: object, timeout_s: object) -> None:
    """Raises InvalidParameter for a priority that is none, or a timeout that is no number of seconds."""
    if not isinstance(priority, Priority):
        raise InvalidParameter("priority", f"must be a Priority, not {quoted(priority)}")
    if timeout_s is not None:
        real("timeout_s", timeout_s, 0, math.inf)

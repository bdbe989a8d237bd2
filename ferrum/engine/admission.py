"""From a prompt and its parameters to a request that can be queued.

Owns: the checks of prompt, parameters, priority and timeout, which change nothing and need no turn, and the making of a
request's generations with their seeds. Refuses to know: what the engine does with a request.
Specs: ENGINE-10, ENGINE-12, ENGINE-14, ENGINE-15, ENGINE-24, SAMPLE-31. Next: `ferrum.engine.deadlines`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Sequence
from dataclasses import dataclass

from ferrum.engine.output import OutputText, ending_ids
from ferrum.engine.request import Generation, Request
from ferrum.engine.timing import Clock, Stopwatch
from ferrum.errors import InvalidParameter, RequestValidation, quoted
from ferrum.given import real
from ferrum.sample.limits import check_against_model
from ferrum.sample.randomness import choice_seed, fresh_seed
from ferrum.sample.state import Grammar, SamplingState
from ferrum.sampling_params import SamplingParams
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import Priority

ENCODER = "the model is an encoder: it makes vectors of texts (LLM.embed) and generates no text"


@dataclass(frozen=True, eq=False)
class Prepared:
    """A request that was checked."""

    prompt_ids: list[int]
    max_length: int  # tokens of prompt and answer together, at most
    params: SamplingParams
    grammars: Sequence[Grammar | None]  # one for each of the n choices


def check_request(
    prompt_ids: Sequence[int], params: SamplingParams, vocab_size: int, scheduler: Scheduler
) -> tuple[list[int], int]:
    """-> the prompt as plain integers, and the length at which prompt and answer end at the latest. Raises
    RequestValidation for a prompt that can never be served, InvalidParameter for parameters that this model or
    scheduler cannot follow."""
    if not isinstance(params, SamplingParams):
        raise InvalidParameter("params", f"must be SamplingParams, not {quoted(params)}")
    token_ids = check_ids(prompt_ids, vocab_size)
    longest = scheduler.check(len(token_ids), params.max_tokens)
    limit = scheduler.limits.max_waiting
    if params.n > limit:
        raise InvalidParameter("n", f"must be at most {limit}, not {quoted(params.n)}")
    check_against_model(params, vocab_size=vocab_size, most_tokens=longest, prompt_tokens=len(token_ids))
    return token_ids, longest


def check_ids(token_ids: Sequence[int], vocab_size: int) -> list[int]:
    """-> plain integers. Raises RequestValidation if one is no integer or not in the vocabulary, and for no tokens."""
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
    """Raises InvalidParameter for a priority that is not a Priority, or a timeout that is not a number of seconds."""
    if not isinstance(priority, Priority):
        raise InvalidParameter("priority", f"must be a Priority, not {quoted(priority)}")
    if timeout_s is not None:
        real("timeout_s", timeout_s, 0, math.inf)


def open_request(prepared: Prepared, priority: Priority, tokenizer: Tokenizer, clock: Clock) -> Request:
    """A request with its n generations, not yet queued. The first has the seed that was given or drawn, the others have
    seeds that follow from it."""
    prompt_ids, params = prepared.prompt_ids, prepared.params
    seed = fresh_seed() if params.seed is None else params.seed
    first = TokenSequence(prompt_ids, params, choice_seed(seed, 0), priority)
    siblings = [TokenSequence(prompt_ids, params, choice_seed(seed, i), priority, first) for i in range(1, params.n)]
    ends = ending_ids(params, tokenizer.eos_token_ids)
    generations = []
    for sequence, grammar in zip((first, *siblings), prepared.grammars, strict=True):
        state = SamplingState(params, sequence.seed, prompt_ids, ends, grammar)
        output = OutputText(tokenizer, params, prompt_ids, prepared.max_length - len(prompt_ids))
        generations.append(Generation(sequence, state, output, tokenizer.token_text, []))
    return Request(generations, Stopwatch(clock))

"""Checks of a request's parameters against one model: its vocabulary, its context, the memory of an answer.

Owns: every check that needs the model; `SamplingParams` itself makes those that hold for all models. Refuses to know:
engines, and grammars, which are checked when they are made.
Specs: SAMPLE-31, SAMPLE-33. Next: `ferrum.sample.grammars.refusals`.
"""

from __future__ import annotations

from collections.abc import Iterable

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import ALL_TOKENS, SamplingParams

MOST_LOGPROBS = 1 << 20
"""Log probabilities in the answer to one request, with those of its prompt, at most: each takes some 400 bytes."""


def check_against_model(params: SamplingParams, *, vocab_size: int, most_tokens: int, prompt_tokens: int) -> None:
    """Raises InvalidParameter for parameters that a model of `vocab_size` tokens cannot serve with a prompt of
    `prompt_tokens` tokens in a context of `most_tokens`. Takes time in proportion to the size of the parameters."""
    for name, tokens in (("logit_bias", params.logit_bias), ("stop_token_ids", params.stop_token_ids)):
        _check_ids(name, tokens, vocab_size)
    room = max(0, most_tokens - prompt_tokens)
    generated = room if params.max_tokens is None else min(params.max_tokens, room)
    _check_logprobs(params, vocab_size, prompt_tokens, params.n * generated)


def _check_ids(name: str, tokens: Iterable[int], vocab_size: int) -> None:
    largest = max(tokens, default=0)  # none is negative
    if largest >= vocab_size:
        raise InvalidParameter(name, f"names token {largest}, but the ids of this model go from 0 to {vocab_size - 1}")


def _check_logprobs(params: SamplingParams, vocab_size: int, prompt_tokens: int, generated: int) -> None:
    """`generated`: the largest possible number of generated tokens, of all choices together."""
    asked = {
        "logprobs": generated * _entries(params.logprobs, vocab_size),
        "prompt_logprobs": prompt_tokens * _entries(params.prompt_logprobs, vocab_size),
    }
    total = sum(asked.values())
    if total > MOST_LOGPROBS:
        name = max(asked, key=lambda each: asked[each])
        raise InvalidParameter(
            name,
            f"asks for {getattr(params, name)} of each token, with which the answer could hold {total} log "
            f"probabilities, and at most {MOST_LOGPROBS} are told: lower {name}, max_tokens or n",
        )


def _entries(count: int | None, vocab_size: int) -> int:
    """The number of log probabilities for one token: those of the likeliest tokens, and its own if it is not one."""
    if count is None:
        return 0
    return vocab_size if count == ALL_TOKENS else min(count + 1, vocab_size)

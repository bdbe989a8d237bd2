"""The fields that all answers share: an id, a date, a name; and log probabilities in the form of the API.

Refuses to know: where they come from.
Specs: API-05, API-14. Next: `ferrum.api.prompts`.
"""

from __future__ import annotations

import secrets
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from ferrum.api.protocol.chat import ChatLogprobs, TokenLogprob, TopLogprob
from ferrum.api.protocol.usage import PromptLogprob, PromptLogprobs
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import Logprob, Logprobs

LEAST = -9999.0
"""Stands for the logarithm of 0, which JSON cannot write."""


@dataclass(frozen=True)
class Head:
    """The first fields of an answer and of every chunk of it."""

    id: str
    created: int
    model: str
    fingerprint: str

    def fields(self, kind: str) -> dict[str, Any]:
        return {
            "id": self.id,
            "object": kind,
            "created": self.created,
            "model": self.model,
            "system_fingerprint": self.fingerprint,
        }


def call_id() -> str:
    """A new id for a call. The client sends it back with the call's result."""
    return f"call_{secrets.token_hex(12)}"


def written(logprob: float) -> float:
    return max(logprob, LEAST)


def token_logprob(tokenizer: Tokenizer, ranked: Logprobs, top: int) -> TokenLogprob:
    """The token at a place, which is the first of `ranked`, and the `top` most likely tokens."""
    (token, score), *_ = ranked.items()
    best = sorted(ranked.items(), key=lambda item: item[1].rank)[:top]
    return TokenLogprob(
        **_entry(tokenizer, token, score), top_logprobs=[TopLogprob(**_entry(tokenizer, *each)) for each in best]
    )


def _entry(tokenizer: Tokenizer, token: int, score: Logprob) -> dict[str, Any]:
    return {
        "token": score.decoded_token or "",
        "logprob": written(score.logprob),
        "bytes": list(tokenizer.token_bytes(token)),
    }


def chat_logprobs(scores: list[TokenLogprob]) -> ChatLogprobs:
    return ChatLogprobs(content=scores, refusal=None)


def prompt_scores(scores: Sequence[Logprobs | None] | None, top: int) -> PromptLogprobs:
    """The log probabilities of the tokens of a prompt: of each token, and of the `top` most likely ones at its
    place."""
    return [None if found is None else _of_place(found, top) for found in scores or ()]


def _of_place(found: Logprobs, top: int) -> dict[str, PromptLogprob]:
    first = next(iter(found))
    return {
        str(token): PromptLogprob(
            logprob=written(score.logprob), rank=score.rank, decoded_token=score.decoded_token or ""
        )
        for token, score in found.items()
        if token == first or score.rank <= top
    }

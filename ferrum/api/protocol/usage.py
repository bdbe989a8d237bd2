"""Counts of tokens, which every answer has; log probabilities of the tokens of a prompt.

Refuses to know: where they come from.
Specs: API-05. Next: `ferrum.api.protocol.tools`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from ferrum.api.protocol.base import Answer
from ferrum.types import Usage


class PromptDetails(Answer):
    """Details of the tokens of a prompt."""

    cached_tokens: int  # tokens whose keys and values were in the prefix cache


class CompletionDetails(Answer):
    """Tokens of drafts: those that were accepted, and those that were rejected."""

    accepted_prediction_tokens: int
    rejected_prediction_tokens: int


class PromptLogprob(Answer):
    """Of a token at its place. `rank`: 1 is the most likely."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""vLLM's form: by token id, for each token of the prompt; null for the first token."""


class UsageCounts(Answer):
    """Tokens of all prompts and all choices of an answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None
    completion_tokens_details: CompletionDetails | None = None


def usage_counts(prompt: int, completion: int, usages: Sequence[Usage] = ()) -> UsageCounts:
    """`usages`: the usage of each prompt, when it is known."""
    details: dict[str, Any] = {}
    if usages:
        details["prompt_tokens_details"] = PromptDetails(cached_tokens=sum(usage.cached_tokens for usage in usages))
    proposed, accepted = sum(usage.draft_tokens for usage in usages), sum(usage.accepted_tokens for usage in usages)
    if proposed:
        details["completion_tokens_details"] = CompletionDetails(
            accepted_prediction_tokens=accepted, rejected_prediction_tokens=proposed - accepted
        )
    total = prompt + completion
    return UsageCounts(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, **details)

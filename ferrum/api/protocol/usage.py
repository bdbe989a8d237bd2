"""Counts of tokens, as every answer tells them; what is known of the tokens of a prompt.

Refuses to know: where they come from. Specs: API-05. Next: `ferrum.api.protocol.tools`.
"""

from __future__ import annotations

from ferrum.api.protocol.base import Answer


class PromptDetails(Answer):
    """Of the tokens of a prompt."""

    cached_tokens: int  # that were in memory already


class PromptLogprob(Answer):
    """Of a token in its place. `rank`: 1 is the most likely."""

    logprob: float
    rank: int
    decoded_token: str


PromptLogprobs = list[dict[str, PromptLogprob] | None]
"""vLLM's form: by token id, for each token of the prompt; of the first nothing is known: null."""


class UsageCounts(Answer):
    """Tokens of all prompts and all choices of an answer."""

    prompt_tokens: int
    completion_tokens: int
    total_tokens: int
    prompt_tokens_details: PromptDetails | None = None


def usage_counts(prompt: int, completion: int, cached: int | None = None) -> UsageCounts:
    """`cached`: None while it is not known."""
    total = prompt + completion
    if cached is None:
        return UsageCounts(prompt_tokens=prompt, completion_tokens=completion, total_tokens=total)
    details = PromptDetails(cached_tokens=cached)
    return UsageCounts(
        prompt_tokens=prompt, completion_tokens=completion, total_tokens=total, prompt_tokens_details=details
    )

"""`/v1/completions`: raw prompts are continued.

Refuses to know: how an answer is made.
Specs: API-20 to API-22. Source: OpenAI's API reference, "Completions (legacy)". Next: `ferrum.api.protocol.responses`.
"""

from __future__ import annotations

from typing import Annotated, Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Many, unsupported
from ferrum.api.protocol.sampling import MOST_LOGPROBS, SamplingBody
from ferrum.api.protocol.usage import PromptLogprobs, UsageCounts

CompletionFinish = Literal["stop", "length", "cancelled", "error"]
Prompts = str | Many[int] | Many[str | Many[int]]


class CompletionRequest(SamplingBody):
    """Prompts: a text, a list of texts, token ids, or a list of lists of token ids."""

    prompt: Prompts = Field(
        union_mode="left_to_right",
        description="A text, a list of texts, a list of token ids, or a list of lists of token ids.",
    )
    echo: bool | None = Field(None, description="The text begins with the prompt.")
    logprobs: int | None = Field(
        None,
        ge=0,
        le=MOST_LOGPROBS,
        description="Report the log probability of each token and those of this many most likely tokens at "
        "its place. Default: no report.",
    )
    best_of: Annotated[int, Field(ge=1, le=1)] | None = unsupported("is not supported: say n, and choose")
    suffix: None = unsupported()


class CompletionLogprobs(Answer):
    """Lists with one entry per token. The first token of a prompt has no log probability: null."""

    tokens: list[str]
    token_logprobs: list[float | None]
    top_logprobs: list[dict[str, float] | None]
    text_offset: list[int]


class CompletionChoice(Answer):
    index: int
    text: str
    logprobs: CompletionLogprobs | None
    finish_reason: CompletionFinish | None
    token_ids: list[int] | None = None
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Completions(Answer):
    """The answer; the chunks of a stream have the same form."""

    id: str
    object: Literal["text_completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[CompletionChoice]
    usage: UsageCounts | None = None

"""`/v1/chat/completions`: the request, the answer, and the chunks of a stream.

Refuses to know: how an answer is made.
Specs: API-10 to API-14. Source: OpenAI's API reference, "Chat". Next: `ferrum.api.protocol.completion`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Body, Many, unsupported
from ferrum.api.protocol.sampling import MOST_LOGPROBS, SamplingBody, number_field
from ferrum.api.protocol.tools import (
    Call,
    CallDelta,
    NamedTool,
    PastCall,
    ToolSpec,
    parallel_calls_field,
    tool_choice_field,
    tools_field,
)
from ferrum.api.protocol.usage import PromptLogprobs, UsageCounts

UNTIL_FULL = "as many as the context has room for"
FinishName = Literal["stop", "length", "tool_calls", "cancelled", "error"]


class Part(Body):
    """A part of a message's content. Only text is supported."""

    type: Literal["text", "refusal", "input_text", "output_text"] = Field(description="The kind of the part.")
    text: str | None = Field(None, description="The text of the part.")
    refusal: str | None = Field(None, description="The text of a part in which the assistant refused to answer.")


class ChatMessage(Body):
    """One message of a conversation."""

    role: Literal["system", "developer", "user", "assistant", "tool"] = Field(
        description="The author of the message; tool: the message is the result of a call."
    )
    content: str | Many[Part] | None = Field(
        None,
        description="The text of the message, or its parts. An assistant's message with calls or thoughts may"
        " have none.",
    )
    name: str | None = Field(None, description="The author's name, for chat templates that read it.")
    tool_calls: Many[PastCall] | None = Field(None, description="The calls that the assistant made in this message.")
    tool_call_id: str | None = Field(
        None, description="The id of the call whose result this message is, for the role tool."
    )
    reasoning_content: str | None = Field(
        None, description="The assistant's thoughts before its answer, for chat templates that read them."
    )
    reasoning: str | None = Field(None, description="As `reasoning_content`, for chat templates that read this name.")
    refusal: str | None = Field(
        None, description="The text in which the assistant refused to answer; it is the content if there is no other."
    )
    annotations: list[Any] | None = Field(
        None,
        max_length=0,
        description="Must be empty: answers of OpenAI's API have an empty list, which may be sent back.",
    )
    audio: None = unsupported()
    function_call: None = unsupported("is not supported: say tool_calls")


class ChatRequest(SamplingBody):
    """A conversation to continue, and the parameters."""

    messages: Many[ChatMessage] = Field(min_length=1, description="The conversation, the oldest message first.")
    max_completion_tokens: int | None = number_field("max_tokens", default=UNTIL_FULL, ge=1)
    max_tokens: int | None = number_field(
        "max_tokens", "The older name of `max_completion_tokens`.", default=UNTIL_FULL, ge=1
    )
    logprobs: bool | None = Field(
        None, description="True: report the log probability of each token of the answer. Default: false."
    )
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=MOST_LOGPROBS,
        description="Report also this many most likely tokens at each place; needs `logprobs`. Default: 0.",
    )
    tools: Many[ToolSpec] | None = tools_field()
    tool_choice: Literal["none", "auto", "required"] | NamedTool | None = tool_choice_field()
    parallel_tool_calls: bool | None = parallel_calls_field()
    chat_template: str | None = Field(None, description="The name of one of the model's templates.")
    chat_template_kwargs: dict[str, Any] | None = Field(
        None,
        description="Variables of the chat template, by name; a variable that the template does not read is refused.",
    )
    documents: Many[dict[str, Any]] | None = Field(
        None, description="Texts that the answer may use; refused if the chat template does not read them."
    )
    add_generation_prompt: bool | None = Field(
        None,
        description="True: the prompt ends with the beginning of an assistant's message. Default: true, "
        "unless `continue_final_message` is true.",
    )
    continue_final_message: bool | None = Field(
        None, description="True: the answer continues the last message instead of beginning a new one. Default: false."
    )
    reasoning_effort: Literal["none", "minimal", "low", "medium", "high"] | None = Field(
        None, description="Goes to the chat template, and is refused where that does not read it."
    )
    modalities: Many[Literal["text"]] | None = unsupported('can only be ["text"]')
    audio: None = unsupported()
    functions: None = unsupported("is not supported: say tools")
    function_call: None = unsupported("is not supported: say tool_choice")
    prediction: None = unsupported()
    prompt_cache_retention: None = unsupported()
    verbosity: None = unsupported()
    web_search_options: None = unsupported()


class TopLogprob(Answer):
    """A token that was possible at this place. A probability of 0 has the logarithm -9999."""

    token: str
    logprob: float
    bytes: list[int] | None


class TokenLogprob(TopLogprob):
    """The token at this place, and the most likely ones."""

    top_logprobs: list[TopLogprob]


class ChatLogprobs(Answer):
    content: list[TokenLogprob] | None
    refusal: list[TokenLogprob] | None = None


class AnswerMessage(Answer):
    role: Literal["assistant"]
    content: str | None
    refusal: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[Call] | None = None


class ChatChoice(Answer):
    index: int
    message: AnswerMessage
    logprobs: ChatLogprobs | None
    finish_reason: FinishName
    token_ids: list[int] | None = None


class ChatCompletion(Answer):
    """The answer."""

    id: str
    object: Literal["chat.completion"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[ChatChoice]
    usage: UsageCounts
    prompt_token_ids: list[int] | None = None
    prompt_logprobs: PromptLogprobs | None = None


class Delta(Answer):
    """The new content of a chunk. The first of a choice has the role and no content, the last of a choice is empty."""

    role: Literal["assistant"] | None = None
    content: str | None = None
    reasoning_content: str | None = None
    tool_calls: list[CallDelta] | None = None


class DeltaChoice(Answer):
    index: int
    delta: Delta
    logprobs: ChatLogprobs | None = None
    finish_reason: FinishName | None
    token_ids: list[int] | None = None


class ChatChunk(Answer):
    """A chunk of a stream."""

    id: str
    object: Literal["chat.completion.chunk"]
    created: int
    model: str
    system_fingerprint: str
    choices: list[DeltaChoice]
    usage: UsageCounts | None = None
    prompt_token_ids: list[int] | None = None  # in the first chunk

"""`/v1/responses`: the newer form of a chat, without a memory of earlier ones.

Refuses to know: how an answer is made.
Specs: API-44, API-45. Source: OpenAI's API reference, "Responses". Next: `ferrum.api.protocol.embedding`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Body, Many, Off, unsupported
from ferrum.api.protocol.chat import Part, TokenLogprob
from ferrum.api.protocol.sampling import MOST_LOGPROBS
from ferrum.api.protocol.tools import NAME

Status = Literal["in_progress", "completed", "incomplete", "cancelled", "failed"]


class ReasoningPart(Body):
    type: Literal["reasoning_text", "summary_text"]
    text: str


class ItemPart(Part):
    """A part of a content. The other fields of an answer's part are accepted and ignored."""

    annotations: list[Any] | None = Field(None, max_length=0)
    logprobs: Many[Any] | None = None


class InputItem(Body):
    """A message, a call, the result of a call, or reasoning. Items of an answer's `output` may be sent back as they
    are."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = "message"
    role: Literal["system", "developer", "user", "assistant"] | None = None
    content: str | Many[ItemPart | ReasoningPart] | None = None
    id: str | None = None
    status: str | None = None
    phase: str | None = None
    call_id: str | None = None
    name: str | None = None
    arguments: str | None = None
    output: str | Many[Part] | None = None
    summary: Many[ReasoningPart] | None = None
    encrypted_content: None = unsupported()


class ResponseTool(Body):
    """A function: the only kind of tool."""

    type: Literal["function"]
    name: str = Field(min_length=1, max_length=64, pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolName(Body):
    type: Literal["function"]
    name: str


class TextFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"]
    name: str | None = None
    schema_: dict[str, Any] | None = Field(None, alias="schema")
    description: str | None = None
    strict: bool | None = None


class TextConfig(Body):
    format: TextFormat | None = None
    verbosity: None = unsupported()


class ReasoningConfig(Body):
    effort: Literal["none", "minimal", "low", "medium", "high"] | None = None
    summary: None = unsupported()
    generate_summary: None = unsupported()
    context: None = unsupported()


class ResponseStreamOptions(Body):
    include_obfuscation: Off | None = unsupported("is not supported: nothing is obfuscated")


class ResponsesRequest(Body):
    """A text, or items of a conversation, to be answered."""

    input: str | Many[InputItem]
    model: str | None = None
    instructions: str | None = None
    max_output_tokens: int | None = Field(None, ge=1)
    temperature: float | None = None
    top_p: float | None = None
    top_logprobs: int | None = Field(None, ge=0, le=MOST_LOGPROBS)
    include: Many[Literal["message.output_text.logprobs"]] | None = None
    tools: Many[ResponseTool] | None = None
    tool_choice: Literal["none", "auto", "required"] | ToolName | None = None
    parallel_tool_calls: bool | None = None
    reasoning: ReasoningConfig | None = None
    text: TextConfig | None = None
    stream: bool | None = None
    stream_options: ResponseStreamOptions | None = None
    store: Off | None = unsupported("can only be false: this server keeps nothing")
    truncation: Literal["disabled"] | None = unsupported('can only be "disabled": nothing is left out')
    service_tier: Literal["auto", "default"] | None = unsupported('can only be "auto" or "default" here')
    background: Off | None = unsupported("can only be false: this server keeps nothing")
    previous_response_id: None = unsupported("is not supported, since nothing is kept: send the whole conversation")
    conversation: None = unsupported("is not supported, since nothing is kept: send the whole conversation")
    prompt: None = unsupported()
    max_tool_calls: None = unsupported()
    context_management: None = unsupported()
    moderation: None = unsupported()
    prompt_cache_options: None = unsupported()
    prompt_cache_retention: None = unsupported()

    # vLLM's fields
    seed: int | None = None
    top_k: int | None = None
    min_p: float | None = None
    repetition_penalty: float | None = None
    chat_template_kwargs: dict[str, Any] | None = None
    priority: Literal["low", "normal", "high", "critical"] | None = None
    speculate: str | None = Field(None, max_length=16)

    # labels
    user: str | None = None
    metadata: dict[str, str] | None = None
    safety_identifier: str | None = None
    prompt_cache_key: str | None = None


class OutputText(Answer):
    type: Literal["output_text"]
    text: str
    annotations: list[Any]
    logprobs: list[TokenLogprob]


class ReasoningText(Answer):
    type: Literal["reasoning_text"]
    text: str


class MessageItem(Answer):
    id: str
    type: Literal["message"]
    role: Literal["assistant"]
    status: Status
    content: list[OutputText]


class ReasoningItem(Answer):
    id: str
    type: Literal["reasoning"]
    status: Status
    summary: list[Any]
    content: list[ReasoningText]


class CallItem(Answer):
    id: str
    type: Literal["function_call"]
    status: Status
    call_id: str
    name: str
    arguments: str


Item = MessageItem | ReasoningItem | CallItem


class InputDetails(Answer):
    cached_tokens: int
    cache_write_tokens: int


class OutputDetails(Answer):
    reasoning_tokens: int


class ResponseUsage(Answer):
    input_tokens: int
    input_tokens_details: InputDetails
    output_tokens: int
    output_tokens_details: OutputDetails
    total_tokens: int


class Response(Answer):
    """The answer. It repeats the fields of the request that clients expect."""

    id: str
    object: Literal["response"]
    created_at: float
    status: Status
    model: str
    output: list[Item]
    error: dict[str, Any] | None
    incomplete_details: dict[str, str] | None
    instructions: str | None
    metadata: dict[str, str]
    parallel_tool_calls: bool
    temperature: float
    top_p: float
    top_logprobs: int
    tool_choice: str | dict[str, Any]
    tools: list[dict[str, Any]]
    text: dict[str, Any]
    reasoning: dict[str, Any]
    max_output_tokens: int | None
    previous_response_id: None
    background: bool
    store: bool
    truncation: Literal["disabled"]
    service_tier: Literal["default"]
    usage: ResponseUsage | None


class ResponseEvent(Answer):
    """An event of a stream. Its fields depend on its type."""

    type: str
    sequence_number: int
    response: Response | None = None
    output_index: int | None = None
    item: Item | None = None
    item_id: str | None = None
    content_index: int | None = None
    part: OutputText | ReasoningText | None = None
    delta: str | None = None
    text: str | None = None
    logprobs: list[TokenLogprob] | None = None
    arguments: str | None = None
    name: str | None = None

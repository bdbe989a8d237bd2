"""`/v1/responses`: the newer form of a chat, without a memory of earlier ones.

Refuses to know: how an answer is made.
Specs: API-44, API-45. Source: OpenAI's API reference, "Responses". Next: `ferrum.api.protocol.embedding`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Body, Many, Off, label, unsupported
from ferrum.api.protocol.chat import UNTIL_FULL, Part, TokenLogprob
from ferrum.api.protocol.sampling import MOST_LOGPROBS, number_field, priority_field, speculate_field
from ferrum.api.protocol.tools import Function, parallel_calls_field, tool_choice_field, tools_field

Status = Literal["in_progress", "completed", "incomplete", "cancelled", "failed"]


class ReasoningPart(Body):
    type: Literal["reasoning_text", "summary_text"] = Field(description="The kind of the part.")
    text: str = Field(description="The text of the part.")


class ItemPart(Part):
    """A part of a content. The other fields of an answer's part are accepted and ignored."""

    annotations: list[Any] | None = Field(
        None,
        max_length=0,
        description="Must be empty: the parts of an answer have an empty list, which may be sent back.",
    )
    logprobs: Many[Any] | None = Field(
        None, description="Accepted, because parts of an answer have it; it changes nothing."
    )


class InputItem(Body):
    """A message, a call, the result of a call, or reasoning. Items of an answer's `output` may be sent back as they
    are."""

    type: Literal["message", "function_call", "function_call_output", "reasoning"] = Field(
        "message", description="The kind of the item. Default: message."
    )
    role: Literal["system", "developer", "user", "assistant"] | None = Field(
        None, description="The author of a message."
    )
    content: str | Many[ItemPart | ReasoningPart] | None = Field(
        None, description="The text or the parts of a message; the parts of reasoning."
    )
    id: str | None = Field(None, description="The id of the item; it changes nothing.")
    status: str | None = Field(None, description="The state of the item; it changes nothing.")
    phase: str | None = Field(None, description="Accepted as a part of an item; it changes nothing.")
    call_id: str | None = Field(None, description="The id of a call, which its result repeats.")
    name: str | None = Field(None, description="The name of the function that was called.")
    arguments: str | None = Field(None, description="The arguments of a call, as the text of a JSON object.")
    output: str | Many[Part] | None = Field(None, description="The result of a call, as text or parts.")
    summary: Many[ReasoningPart] | None = Field(None, description="The parts of reasoning, if it has no content.")
    encrypted_content: None = unsupported()


class ResponseTool(Function):
    """A function: the only kind of tool."""

    type: Literal["function"] = Field(description="The kind of the tool.")


class ToolName(Body):
    type: Literal["function"] = Field(description="The kind of the tool.")
    name: str = Field(description="The name of the function that must be called.")


class TextFormat(Body):
    """The form of the answer."""

    type: Literal["text", "json_object", "json_schema"] = Field(
        description="text: any text; json_object: a JSON object; json_schema: JSON that matches `schema`."
    )
    name: str | None = Field(None, description="A name for the schema; it changes nothing.")
    schema_: dict[str, Any] | None = Field(
        None, alias="schema", description="The schema, for the type json_schema. Default: that of any object."
    )
    description: str | None = Field(None, description="An explanation of the schema for people; it changes nothing.")
    strict: bool | None = Field(None, description="No effect: the answer always fits its schema.")


class TextConfig(Body):
    format: TextFormat | None = Field(None, description="The form that the answer must have. Default: any text.")
    verbosity: None = unsupported()


class ReasoningConfig(Body):
    effort: Literal["none", "minimal", "low", "medium", "high"] | None = Field(
        None,
        description="How much the model should think: goes to the chat template, and is refused if that does "
        "not read it.",
    )
    summary: None = unsupported()
    generate_summary: None = unsupported()
    context: None = unsupported()


class ResponseStreamOptions(Body):
    include_obfuscation: Off | None = unsupported("is not supported: nothing is obfuscated")


class ResponsesRequest(Body):
    """A text, or items of a conversation, to be answered."""

    input: str | Many[InputItem] = Field(
        description="The question as text, or the items of a conversation, the oldest first."
    )
    model: str | None = Field(None, description="A served model name; default: the first.")
    instructions: str | None = Field(None, description="A system message before the input.")
    max_output_tokens: int | None = Field(
        None, ge=1, description=f"The answer has at most this many tokens. Default: {UNTIL_FULL}."
    )
    temperature: float | None = number_field("temperature")
    top_p: float | None = number_field("top_p")
    top_logprobs: int | None = Field(
        None,
        ge=0,
        le=MOST_LOGPROBS,
        description="Report this many most likely tokens at each place; needs `include`. Default: 0.",
    )
    include: Many[Literal["message.output_text.logprobs"]] | None = Field(
        None, description="message.output_text.logprobs: report the log probability of each token of the answer."
    )
    tools: Many[ResponseTool] | None = tools_field()
    tool_choice: Literal["none", "auto", "required"] | ToolName | None = tool_choice_field()
    parallel_tool_calls: bool | None = parallel_calls_field()
    reasoning: ReasoningConfig | None = Field(None, description="Parameters of the thoughts before the answer.")
    text: TextConfig | None = Field(None, description="Parameters of the text of the answer.")
    stream: bool | None = Field(None, description="True: the answer is sent as server-sent events. Default: false.")
    stream_options: ResponseStreamOptions | None = Field(None, description="Options of the stream.")
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

    # a field of OpenAI's chats
    seed: int | None = Field(
        None,
        description="Start of the random numbers: the same seed, prompt and parameters give the same answer. "
        "Default: a number that is drawn.",
    )

    # fields of vLLM's API
    top_k: int | None = number_field("top_k")
    min_p: float | None = number_field("min_p")
    repetition_penalty: float | None = number_field("repetition_penalty")
    chat_template_kwargs: dict[str, Any] | None = Field(
        None,
        description="Variables of the chat template, by name; a variable that the template does not read is refused.",
    )
    priority: Literal["low", "normal", "high", "critical"] | None = priority_field()

    # a field of this server alone
    speculate: str | None = speculate_field()

    # labels
    user: str | None = label()
    metadata: dict[str, str] | None = Field(
        None, description="Labels of the caller, which the answer repeats; they change nothing else."
    )
    safety_identifier: str | None = label()
    prompt_cache_key: str | None = label()


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

"""`/v1/responses`: the newer form of a chat, whole or in events.

Owns: the translation of a request to a chat, and of the chat's news to items and events. Nothing is kept between
requests. Refuses to know: HTTP, and how a chat is answered.
Specs: API-44, API-45. Next: `ferrum.api.embeddings`.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator
from dataclasses import dataclass, replace
from typing import Any

from ferrum.api.answers import Head
from ferrum.api.chat import Chat
from ferrum.api.errors import ApiError, as_api_error, invalid
from ferrum.api.open_requests import Opened
from ferrum.api.protocol.base import read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.responses import (
    InputDetails,
    InputItem,
    OutputDetails,
    Response,
    ResponseEvent,
    ResponsesRequest,
    ResponseTool,
    ResponseUsage,
    Status,
    ToolName,
)
from ferrum.api.response_items import ResponseItems
from ferrum.api.served import Served
from ferrum.errors import InvalidParameter

SAME = ("model", "temperature", "top_p", "parallel_tool_calls", "seed", "top_k", "min_p", "repetition_penalty",
        "chat_template_kwargs", "priority", "speculate")  # fmt: skip
"""Fields that have the same name in a chat."""
LOGPROBS = "message.output_text.logprobs"
OWN_NAMES = {
    "messages": "input", "max_tokens": "max_output_tokens", "max_completion_tokens": "max_output_tokens",
    "response_format": "text.format", "reasoning_effort": "reasoning.effort",
}  # fmt: skip
"""Fields of a chat, and their names here."""


def as_chat(body: ResponsesRequest) -> ChatRequest:
    """The equivalent chat. Raises ApiError that names the field."""
    asked: dict[str, Any] = {name: value for name in SAME if (value := getattr(body, name)) is not None}
    if body.top_logprobs and LOGPROBS not in (body.include or ()):
        raise invalid(f'top_logprobs needs "{LOGPROBS}" in include', "top_logprobs", "invalid_value")
    if LOGPROBS in (body.include or ()):
        asked |= {"logprobs": True, "top_logprobs": body.top_logprobs or 0}
    if body.max_output_tokens is not None:
        asked["max_completion_tokens"] = body.max_output_tokens
    if body.tools:
        fields = ("name", "description", "parameters", "strict")
        asked["tools"] = [
            {"type": "function", "function": tool.model_dump(include=set(fields), exclude_none=True)}
            for tool in body.tools
        ]
    if isinstance(body.tool_choice, ToolName):
        asked["tool_choice"] = {"type": "function", "function": {"name": body.tool_choice.name}}
    elif body.tool_choice is not None:
        asked["tool_choice"] = body.tool_choice
    if body.reasoning is not None and body.reasoning.effort is not None:
        asked["reasoning_effort"] = body.reasoning.effort
    if body.text is not None and body.text.format is not None:
        asked["response_format"] = _format(body)
    return read(ChatRequest, {**asked, "messages": _messages(body)})


def in_own_words(error: ApiError) -> ApiError:
    """An error of the equivalent chat, with the field's name in this request."""
    name = next(iter(re.split(r"[.\[]", error.param or "")))
    if name not in OWN_NAMES:
        return error
    return replace(error, param=OWN_NAMES[name], message=f"{OWN_NAMES[name]}, as a chat has it: {error.message}")


def _format(body: ResponsesRequest) -> dict[str, Any]:
    assert body.text is not None and body.text.format is not None
    form = body.text.format
    if form.type != "json_schema":
        return {"type": form.type}
    named = {"name": form.name, "schema": form.schema_, "description": form.description, "strict": form.strict}
    return {"type": form.type, "json_schema": {key: value for key, value in named.items() if value is not None}}


def _messages(body: ResponsesRequest) -> list[dict[str, Any]]:
    messages: list[dict[str, Any]] = []
    if body.instructions is not None:
        messages.append({"role": "system", "content": body.instructions})
    if isinstance(body.input, str):
        return [*messages, {"role": "user", "content": body.input}]
    if not body.input:
        raise invalid("input holds nothing", "input", "invalid_value")
    for number, item in enumerate(body.input):
        _add(messages, item, f"input[{number}]")
    return messages


def _add(messages: list[dict[str, Any]], item: InputItem, place: str) -> None:
    """Adds an item to the conversation. Reasoning, text and calls of one turn become one message."""
    match item.type:
        case "message":
            if item.role is None or item.content is None:
                lacks = "role" if item.role is None else "content"
                raise invalid(f"{place}.{lacks} is missing", f"{place}.{lacks}", "missing_required_parameter")
            _turn(messages, item.role, "content")["content"] = _content(item)
        case "reasoning":
            parts = item.content if isinstance(item.content, list) and item.content else item.summary or []
            if thoughts := "".join(part.text or "" for part in parts):
                _turn(messages, "assistant", "reasoning_content")["reasoning_content"] = thoughts
        case "function_call":
            if item.call_id is None or item.name is None:
                lacks = "call_id" if item.call_id is None else "name"
                raise invalid(f"{place}.{lacks} is missing", f"{place}.{lacks}", "missing_required_parameter")
            function = {"name": item.name, "arguments": item.arguments or "{}"}
            call = {"id": item.call_id, "type": "function", "function": function}
            _turn(messages, "assistant", "").setdefault("tool_calls", []).append(call)
        case "function_call_output":
            if item.call_id is None or item.output is None:
                lacks = "call_id" if item.call_id is None else "output"
                raise invalid(f"{place}.{lacks} is missing", f"{place}.{lacks}", "missing_required_parameter")
            parts_or_text = item.output
            if not isinstance(parts_or_text, str):
                parts_or_text = "\n".join(part.text or part.refusal or "" for part in parts_or_text)
            messages.append({"role": "tool", "tool_call_id": item.call_id, "content": parts_or_text})


def _turn(messages: list[dict[str, Any]], role: str, field: str) -> dict[str, Any]:
    """The message that a field of this role goes to: the last one, if it is the assistant's and does not have the
    field."""
    last = messages[-1] if messages else None
    if last is not None and last["role"] == role == "assistant" and field not in last and "tool_calls" not in last:
        return last
    if last is not None and last["role"] == role == "assistant" and not field:
        return last
    messages.append({"role": role})
    return messages[-1]


def _content(item: InputItem) -> Any:
    if isinstance(item.content, str):
        return item.content
    return [part.model_dump(exclude_none=True, exclude={"annotations", "logprobs"}) for part in item.content or []]


def _told(tool: ResponseTool) -> dict[str, Any]:
    """A tool in the form in which clients expect it in the response."""
    return {"strict": None, "parameters": None, **tool.model_dump(exclude_none=True)}


@dataclass
class Responding:
    """A chat whose answer is written as a response."""

    body: ResponsesRequest
    chat: Chat
    head: Head

    @classmethod
    async def begin(
        cls, served: Served, body: ResponsesRequest, head: Head, opened: Opened, timeout_s: float | None
    ) -> Responding:
        """Validates a request and submits it."""
        try:
            return cls(body, await Chat.begin(served, as_chat(body), head, opened, timeout_s), head)
        except (ApiError, InvalidParameter) as error:
            raise in_own_words(as_api_error(error)) from error

    async def answer(self) -> Response:
        """The whole response, when it is complete."""
        items = self._items()
        async for _, news in self.chat.news():
            items.push(news)
        return self._response(items, final=True)

    async def stream(self) -> AsyncIterator[ResponseEvent]:
        """The events of the response."""
        items = self._items()
        number = 0

        def numbered(kind: str, **fields: Any) -> ResponseEvent:
            nonlocal number
            number += 1
            return ResponseEvent(type=kind, sequence_number=number - 1, **fields)

        begun = self._response(items, final=False)
        yield numbered("response.created", response=begun)
        yield numbered("response.in_progress", response=begun)
        async for _, news in self.chat.news():
            for kind, fields in items.push(news):
                yield numbered(kind, **fields)
        ended = self._response(items, final=True)
        kind = "response.completed" if ended.status == "completed" else "response.incomplete"
        yield numbered(kind, response=ended)

    def _items(self) -> ResponseItems:
        return ResponseItems(self.chat.score if self.chat.body.logprobs else None)

    def _response(self, items: ResponseItems, *, final: bool) -> Response:
        body, params = self.body, self.chat.asked.params
        status: Status = items.status if final else "in_progress"
        choice = body.tool_choice
        details = {"incomplete": {"reason": "max_output_tokens"}}.get(status)
        form = body.text.format if body.text is not None else None
        effort = body.reasoning.effort if body.reasoning is not None else None
        return Response(
            id=self.head.id,
            object="response",
            created_at=float(self.head.created),
            status=status,
            model=self.head.model,
            output=items.items if final else [],
            error=None,
            incomplete_details=details,
            instructions=body.instructions,
            metadata=body.metadata or {},
            parallel_tool_calls=body.parallel_tool_calls is not False,
            temperature=params.temperature,
            top_p=params.top_p,
            top_logprobs=body.top_logprobs or 0,
            tool_choice=choice.model_dump() if isinstance(choice, ToolName) else choice or "auto",
            tools=[_told(tool) for tool in body.tools or ()],
            text={"format": form.model_dump(exclude_none=True, by_alias=True) if form else {"type": "text"}},
            reasoning={"effort": effort, "summary": None},
            max_output_tokens=body.max_output_tokens,
            previous_response_id=None,
            background=False,
            store=False,
            truncation="disabled",
            service_tier="default",
            usage=self._usage(items) if final else None,
        )

    def _usage(self, items: ResponseItems) -> ResponseUsage:
        usage = self.chat.answering.completion().usage
        return ResponseUsage(
            input_tokens=usage.prompt_tokens,
            input_tokens_details=InputDetails(cached_tokens=usage.cached_tokens, cache_write_tokens=0),
            output_tokens=usage.completion_tokens,
            output_tokens_details=OutputDetails(reasoning_tokens=items.reasoning_tokens),
            total_tokens=usage.prompt_tokens + usage.completion_tokens,
        )

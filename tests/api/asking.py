"""Shared by the tests of the API: a model that repeats a text of its prompt, and functions that send requests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

import pytest

from ferrum.api.errors import ApiError, as_api_error
from ferrum.api.protocol.base import read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.completion import CompletionRequest
from ferrum.api.protocol.responses import ResponsesRequest
from ferrum.api.service import Call, Service
from ferrum.api.stub import Script, stub
from ferrum.config import EngineConfig

Json = dict[str, Any]
PATIENCE = 60.0
WEATHER: Json = {
    "type": "function",
    "function": {
        "name": "get_weather",
        "description": "The weather in a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}, "days": {"type": "integer"}},
            "required": ["city"],
            "additionalProperties": False,
        },
    },
}
TIME: Json = {"type": "function", "function": {"name": "get_time"}}


@dataclass(frozen=True)
class Parrot(Script):
    """A model that answers with the text that its prompt has in base64 between stars."""

    def answer(self, prompt: str) -> str:
        return base64.b64decode(prompt.rsplit("*", 2)[1]).decode()


def hidden(text: str) -> str:
    """A prompt that a `Parrot` answers with this text."""
    return f"*{base64.b64encode(text.encode()).decode()}*"


def parrot(config: EngineConfig | None = None, **more: Any) -> Service:
    return Service(stub(Parrot((), ""), config=config, **more))


def asked(use: Callable[[Service], Coroutine[Any, Any, Any]], make: Callable[[], Service] = parrot) -> Any:
    """The result of `use` for a new service, which is closed afterwards."""

    async def run() -> Any:
        service = make()
        try:
            async with asyncio.timeout(PATIENCE):
                return await use(service)
        finally:
            service.close()

    return asyncio.run(run())


async def whole(service: Service, kind: str, body: Json) -> Json:
    """An answer as JSON."""
    requests: dict[str, tuple[Any, Callable[..., Awaitable[Any]]]] = {
        "chat": (ChatRequest, service.chat),
        "completion": (CompletionRequest, service.complete),
        "response": (ResponsesRequest, service.respond),
    }
    model, call = requests[kind]
    answer: Json = json.loads((await call(read(model, body), Call())).json_text())
    return answer


async def chunks(service: Service, kind: str, body: Json) -> list[Json]:
    """The chunks of a streamed answer as JSON."""
    requests: dict[str, tuple[Any, Callable[..., Awaitable[Any]]]] = {
        "chat": (ChatRequest, service.chat_stream),
        "completion": (CompletionRequest, service.complete_stream),
        "response": (ResponsesRequest, service.respond_stream),
    }
    model, call = requests[kind]
    stream = await call(read(model, {**body, "stream": True}), Call())
    return [json.loads(chunk.json_text()) async for chunk in stream]


def chat(say: str, **more: Any) -> Json:
    """The body of a chat that a `Parrot` answers with this text."""
    return {"messages": [{"role": "user", "content": hidden(say)}], **more}


def refusal(kind: str, body: Json, make: Callable[[], Service] = parrot) -> ApiError:
    """The error with which the request is refused."""

    async def ask(service: Service) -> ApiError:
        with pytest.raises(Exception) as caught:
            await whole(service, kind, body)
        return as_api_error(caught.value)

    error: ApiError = asked(ask, make)
    return error

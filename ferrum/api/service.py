"""All requests that a served model answers: the one object that HTTP and batch files use.

Owns: the calls. Each raises its errors before the first part of its answer. Refuses to know: HTTP, files.
Specs: API-05 to API-07, API-50, API-51. Next: `ferrum.api.stub`.
"""

from __future__ import annotations

import asyncio
import secrets
import time
from collections.abc import AsyncIterator, Awaitable, Callable, Iterator
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass
from typing import Protocol, TypeVar

from ferrum.api.answers import Head
from ferrum.api.chat import Chat
from ferrum.api.completions import CompletionCall
from ferrum.api.embeddings import embed
from ferrum.api.open_requests import Opened, OpenRequests
from ferrum.api.protocol.base import Answer
from ferrum.api.protocol.chat import ChatChunk, ChatCompletion, ChatRequest
from ferrum.api.protocol.completion import CompletionRequest, Completions
from ferrum.api.protocol.embedding import EmbeddingList, EmbeddingRequest
from ferrum.api.protocol.responses import Response, ResponseEvent, ResponsesRequest
from ferrum.api.protocol.tokens import (
    DetokenizedText,
    DetokenizeRequest,
    ModelCard,
    ModelList,
    TokenizeRequest,
    TokenizerInfo,
    TokenList,
)
from ferrum.api.responses import Responding
from ferrum.api.served import Served
from ferrum.api.tokens import detokenize, tokenize, tokenizer_info
from ferrum.engine.metrics import EngineMetrics
from ferrum.engine.statistics import EngineStats

Item = TypeVar("Item", bound=Answer, covariant=True)
Whole = TypeVar("Whole", bound=Answer, covariant=True)
Text = TypeVar("Text", ChatRequest, CompletionRequest, ResponsesRequest)


class Begun(Protocol[Whole, Item]):
    """A request that the engine is answering. Its answer is returned whole, or in chunks."""

    async def answer(self) -> Whole: ...

    def stream(self) -> AsyncIterator[Item]: ...


Begin = Callable[[Served, Text, Head, Opened, float | None], Awaitable[Begun[Whole, Item]]]
"""Validates a request and submits it."""


@dataclass(frozen=True)
class Call:
    """One request, from any source. `request_id`: the caller's name for it, by which it can be cancelled; `timeout_s`:
    after so many seconds it ends with an error."""

    request_id: str | None = None
    timeout_s: float | None = None


@dataclass(frozen=True)
class Health:
    """Whether the service accepts requests, and if not, why."""

    ready: bool
    reason: str | None = None


class Service:
    """A model that answers requests, on one event loop."""

    def __init__(self, served: Served) -> None:
        self._served = served
        self._requests = OpenRequests()
        self._closed = False

    # ---- what it is
    @property
    def served(self) -> Served:
        """The model and its engine, for programs that observe them."""
        return self._served

    @property
    def names(self) -> tuple[str, ...]:
        return self._served.names

    @property
    def metrics(self) -> EngineMetrics:
        return self._served.metrics

    def stats(self) -> EngineStats:
        return self._served.thread.engine.stats()

    def health(self) -> Health:
        if self._closed:
            return Health(False, "the engine is closed")
        if self._requests.draining:
            return Health(False, "the server is shutting down")
        defect = self._served.thread.defect
        return Health(defect is None, None if defect is None else str(defect))

    def models(self) -> ModelList:
        return ModelList(object="list", data=[self._card(name) for name in self.names])

    def model(self, name: str) -> ModelCard:
        """Raises ApiError for an unknown name."""
        return self._card(self._served.check_name(name))

    # ---- text
    async def chat(self, body: ChatRequest, call: Call) -> ChatCompletion:
        return await self._whole(Chat.begin, "chatcmpl-", body, call)

    async def chat_stream(self, body: ChatRequest, call: Call) -> AsyncIterator[ChatChunk]:
        return await self._streamed(Chat.begin, "chatcmpl-", body, call)

    async def complete(self, body: CompletionRequest, call: Call) -> Completions:
        return await self._whole(CompletionCall.begin, "cmpl-", body, call)

    async def complete_stream(self, body: CompletionRequest, call: Call) -> AsyncIterator[Completions]:
        return await self._streamed(CompletionCall.begin, "cmpl-", body, call)

    async def respond(self, body: ResponsesRequest, call: Call) -> Response:
        return await self._whole(Responding.begin, "resp_", body, call)

    async def respond_stream(self, body: ResponsesRequest, call: Call) -> AsyncIterator[ResponseEvent]:
        return await self._streamed(Responding.begin, "resp_", body, call)

    async def _whole(self, begin: Begin[Text, Whole, Item], prefix: str, body: Text, call: Call) -> Whole:
        with self._opened(prefix, body.model, call) as (head, opened):
            return await (await begin(self._served, body, head, opened, call.timeout_s)).answer()

    async def _streamed(
        self, begin: Begin[Text, Whole, Item], prefix: str, body: Text, call: Call
    ) -> AsyncIterator[Item]:
        """The chunks. Errors of the request are raised at once, before the first chunk."""
        with ExitStack() as until_begun:
            head, opened = until_begun.enter_context(self._opened(prefix, body.model, call))
            begun = await begin(self._served, body, head, opened, call.timeout_s)
            return _OpenStream(begun.stream(), until_begun.pop_all())

    # ---- vectors and tokens
    async def embed(self, body: EmbeddingRequest, call: Call) -> EmbeddingList:
        with self._opened("embd-", body.model, call) as (head, opened):
            return await embed(self._served, body, head.model, opened, call.timeout_s)

    async def tokenize(self, body: TokenizeRequest) -> TokenList:
        self._served.check_name(body.model)
        return await asyncio.to_thread(tokenize, self._served, body)

    async def detokenize(self, body: DetokenizeRequest) -> DetokenizedText:
        self._served.check_name(body.model)
        return await asyncio.to_thread(detokenize, self._served, body)

    def tokenizer_info(self) -> TokenizerInfo:
        return tokenizer_info(self._served)

    # ---- open requests
    def cancel(self, request_id: str) -> bool:
        """Cancels an open request by the caller's name or by the id of its answer; False if there is none. Its answer
        is what has come so far, with the finish_reason "cancelled"."""
        return self._requests.cancel(request_id)

    def drain(self) -> None:
        """From now on new requests are refused; open ones go on."""
        self._requests.drain()

    async def idle(self) -> None:
        """Waits until no request is open."""
        await self._requests.none_left()

    def close(self) -> None:
        """Ends open requests as cancelled, and the engine's thread."""
        self._closed = True
        self._requests.drain()
        self._served.thread.close()

    @contextmanager
    def _opened(self, prefix: str, model: str | None, call: Call) -> Iterator[tuple[Head, Opened]]:
        """A request that is open while the block runs. Also raises ApiError for an unknown model."""
        name = self._served.check_name(model)
        head = Head(f"{prefix}{secrets.token_hex(16)}", int(time.time()), name, self._served.fingerprint)
        names = [head.id] if call.request_id is None else [head.id, call.request_id]
        with self._requests.opened(names) as opened:
            yield head, opened

    def _card(self, name: str) -> ModelCard:
        served = self._served
        return ModelCard(
            id=name, object="model", created=served.created, owned_by="ferrum", max_model_len=served.max_model_len
        )


class _OpenStream(AsyncIterator[Item]):
    """The chunks of a request that stays open until they end or the client is gone. A class and not a generator,
    because a generator that was never started cannot clean up."""

    def __init__(self, chunks: AsyncIterator[Item], open_request: ExitStack) -> None:
        self._chunks = chunks
        self._open_request = open_request
        self._closed = False

    async def __anext__(self) -> Item:
        if self._closed:
            raise StopAsyncIteration
        try:
            return await anext(self._chunks)
        except BaseException:
            self._open_request.close()
            raise

    async def aclose(self) -> None:
        """The client is gone."""
        self._closed = True
        self._open_request.close()

    def __del__(self) -> None:
        self._open_request.close()

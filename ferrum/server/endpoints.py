"""The paths that answer requests: the form of the body, the function of the service, and the form of the answer.

Owns: the table of endpoints, and the way from an HTTP request through the service to a response. Refuses to know: how a
request is answered. Specs: SERVER-04, SERVER-05. Next: `ferrum.server.questions`.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Awaitable, Callable, Coroutine
from dataclasses import dataclass
from typing import Any

from starlette.requests import Request
from starlette.responses import Response

from ferrum.api.errors import as_api_error
from ferrum.api.protocol.base import Answer, Body
from ferrum.api.protocol.chat import ChatCompletion, ChatRequest
from ferrum.api.protocol.completion import CompletionRequest, Completions
from ferrum.api.protocol.embedding import EmbeddingList, EmbeddingRequest
from ferrum.api.protocol.responses import Response as ResponseBody
from ferrum.api.protocol.responses import ResponsesRequest
from ferrum.api.protocol.tokens import DetokenizedText, DetokenizeRequest, TokenizeRequest, TokenList
from ferrum.api.service import Call, Service
from ferrum.server.answers import answered, client_gone, refused
from ferrum.server.envelope import request_id
from ferrum.server.event_stream import EventStream
from ferrum.server.presence import ClientGone, while_connected
from ferrum.server.request_body import read_body
from ferrum.server.settings import ServerSettings

Handler = Callable[[Request], Awaitable[Response]]


@dataclass(frozen=True)
class Endpoint:
    """A path to which a body is posted."""

    path: str
    summary: str
    request: type[Body]
    answer: type[Answer]
    answers: Callable[[Any, Call], Coroutine[Any, Any, Answer]]
    streams: Callable[[Any, Call], Coroutine[Any, Any, AsyncIterator[Answer]]] | None = None  # where the body says so
    named_events: bool = False


def endpoints(service: Service) -> tuple[Endpoint, ...]:
    """All of them."""
    return (
        Endpoint("/v1/chat/completions", "Answer a conversation.", ChatRequest, ChatCompletion,
                 service.chat, service.chat_stream),
        Endpoint("/v1/completions", "Go on with a text.", CompletionRequest, Completions,
                 service.complete, service.complete_stream),
        Endpoint("/v1/responses", "Answer a conversation, in the newer form.", ResponsesRequest, ResponseBody,
                 service.respond, service.respond_stream, named_events=True),
        Endpoint("/v1/embeddings", "Make vectors of texts.", EmbeddingRequest, EmbeddingList, service.embed),
        Endpoint("/tokenize", "Cut a text into tokens.", TokenizeRequest, TokenList,
                 lambda body, _call: service.tokenize(body)),
        Endpoint("/detokenize", "Join tokens to a text.", DetokenizeRequest, DetokenizedText,
                 lambda body, _call: service.detokenize(body)),
    )  # fmt: skip


def handler(endpoint: Endpoint, settings: ServerSettings) -> Handler:
    """The function that answers requests to the endpoint."""

    async def handle(request: Request) -> Response:
        try:
            return await respond(request, endpoint, settings)
        except ClientGone:
            return client_gone()
        except Exception as error:
            return refused(as_api_error(error))

    return handle


async def respond(request: Request, endpoint: Endpoint, settings: ServerSettings) -> Response:
    """The response. Errors of a request are found before the first byte of a stream."""
    body = await read_body(request, endpoint.request, settings.max_body_bytes)
    call = Call(request_id(request.scope), settings.request_timeout_s)
    if endpoint.streams is not None and getattr(body, "stream", False):
        parts = await while_connected(request.receive, endpoint.streams(body, call))
        return EventStream(parts, named=endpoint.named_events, keep_alive_s=settings.keep_alive_s)
    return answered(await while_connected(request.receive, endpoint.answers(body, call)))

"""The paths that describe the server, and the path that cancels an answer.

Owns: health, version, models, the tokenizer's facts, metrics, the page, cancelling. Refuses to know: how answers are
made. Specs: SERVER-07 to SERVER-09. Next: `ferrum.server.openapi`.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from typing import Literal

from starlette.requests import Request
from starlette.responses import Response

from ferrum import __version__
from ferrum.api.errors import ApiError, as_api_error
from ferrum.api.protocol.base import Answer
from ferrum.api.protocol.tokens import ModelCard, ModelList, TokenizerInfo
from ferrum.api.service import Service
from ferrum.server.answers import answered, refused
from ferrum.server.glass import Glass
from ferrum.server.metrics import Published
from ferrum.server.page import page

Asked = Callable[[Request], Answer | Response | Awaitable[Response]]


class Ready(Answer):
    """The server takes requests."""

    status: Literal["ok"]


class Version(Answer):
    """Of this program."""

    version: str


class Cancelled(Answer):
    """The answer to this request ends within a step of the engine."""

    id: str
    object: Literal["request.cancelled"]


@dataclass(frozen=True)
class Question:
    """A path without a body. `answer` is None where it is no JSON: then `media_type` says what."""

    path: str
    summary: str
    answer: type[Answer] | None
    asked: Asked
    method: str = "GET"
    media_type: str = "application/json"


def questions(service: Service, published: Published, glass: Glass) -> tuple[Question, ...]:
    """All of them."""
    start = page()
    return (
        Question("/", "A page to talk to the model.", None, lambda _: start, media_type="text/html"),
        Question("/glass", "A page that plays what the engine does, step by step.", None, lambda _: glass.page(),
                 media_type="text/html"),
        Question("/glass/events", "The steps of the engine, for that page.", None, glass.events),
        Question("/health", "Is the server ready for requests?", Ready, lambda _: health(service)),
        Question("/version", "The version of this program.", Version, lambda _: Version(version=__version__)),
        Question("/metrics", "Counts and times, for Prometheus.", None, lambda _: published.response(),
                 media_type="text/plain"),
        Question("/v1/models", "The names of the model.", ModelList, lambda _: service.models()),
        Question("/v1/models/{model}", "One of them.", ModelCard, lambda asked: service.model(named(asked, "model"))),
        Question("/tokenizer_info", "What is to be known of the tokenizer.", TokenizerInfo,
                 lambda _: service.tokenizer_info()),
        Question("/v1/requests/{id}/cancel", "End the answer to a request, by its X-Request-Id or the answer's id.",
                 Cancelled, lambda asked: cancel(service, named(asked, "id")), method="POST"),
    )  # fmt: skip


def handler(question: Question) -> Callable[[Request], Awaitable[Response]]:
    """The function that answers it."""

    async def handle(request: Request) -> Response:
        try:
            result = question.asked(request)
            if isinstance(result, Awaitable):
                result = await result
        except Exception as error:
            return refused(as_api_error(error))
        return result if isinstance(result, Response) else answered(result)

    return handle


def health(service: Service) -> Ready:
    """Raises ApiError where the server is not ready, with the reason."""
    state = service.health()
    if not state.ready:
        raise ApiError(503, state.reason or "the server is not ready", "server_error", code="not_ready")
    return Ready(status="ok")


def cancel(service: Service, request_id: str) -> Cancelled:
    """Raises ApiError where there is no such request, or no longer."""
    if not service.cancel(request_id):
        raise ApiError(404, "no request with this id is being answered", "not_found_error", code="not_found")
    return Cancelled(id=request_id, object="request.cancelled")


def named(request: Request, name: str) -> str:
    """A part of the path."""
    return str(request.path_params[name])

"""Answers and errors as HTTP responses.

Owns: status, headers and bytes of a complete answer. Refuses to know: its content.
Specs: SERVER-02, SERVER-03. Next: `ferrum.server.endpoints`.
"""

from __future__ import annotations

from collections.abc import Mapping
from http import HTTPStatus

from starlette.requests import Request
from starlette.responses import JSONResponse, Response

from ferrum.api.errors import ApiError, as_api_error
from ferrum.api.protocol.base import Answer

RETRY_AFTER_S = 1
_LATER = (HTTPStatus.TOO_MANY_REQUESTS, HTTPStatus.SERVICE_UNAVAILABLE)
GONE = 499
"""The status in logs of a request whose client has disconnected, as in nginx."""


def answered(answer: Answer) -> Response:
    return Response(answer.json_text(), media_type="application/json")


def refused(error: ApiError, headers: Mapping[str, str] | None = None) -> Response:
    """An error in OpenAI's form, with Retry-After if the same request may succeed later."""
    later = {"retry-after": str(RETRY_AFTER_S)} if error.status in _LATER else {}
    return JSONResponse(error.body(), error.status, {**later, **(headers or {})})


def client_gone() -> Response:
    return Response(status_code=GONE)


async def refused_by_route(request: Request, error: Exception) -> Response:
    """The answer to an unknown path or method."""
    status = getattr(error, "status_code", 500)
    headers = getattr(error, "headers", None)
    if status == HTTPStatus.NOT_FOUND:
        sentence = "there is nothing at this path: /openapi.json names those that there are"
        return refused(ApiError(status, sentence, "not_found_error", code="not_found"))
    if status == HTTPStatus.METHOD_NOT_ALLOWED:
        allowed = ", ".join(sorted((headers or {}).get("Allow", "").split(", ")))
        message = f"{request.method} has no meaning here{allowed and f': ask by {allowed}'}"
        return refused(ApiError(status, message, code="method_not_allowed"), {"Allow": allowed})
    return refused(ApiError(status, str(getattr(error, "detail", "")) or HTTPStatus(status).phrase), headers)


async def refused_by_defect(request: Request, error: Exception) -> Response:
    """The answer to an unexpected exception."""
    return refused(as_api_error(error))

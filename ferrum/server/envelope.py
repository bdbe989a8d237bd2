"""The envelope of every response: a request id and common headers.

Owns: the id of a request, which clients may choose, also on errors, and the headers that all responses have. Refuses to
know: the content. Specs: SERVER-06. Next: `ferrum.server.access`.
"""

from __future__ import annotations

import re
from uuid import uuid4

from starlette.datastructures import Headers, MutableHeaders
from starlette.types import ASGIApp, Message, Receive, Scope, Send

ID_HEADER = "x-request-id"
_PLAIN = re.compile(r"[A-Za-z0-9._:-]{1,128}")
_KEY = "ferrum.request_id"


class Envelope:
    """Middleware: gives each request its id, and each response its common headers."""

    def __init__(self, app: ASGIApp) -> None:
        self._app = app

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        if scope["type"] != "http":
            await self._app(scope, receive, send)
            return
        chosen = Headers(scope=scope).get(ID_HEADER, "")
        scope[_KEY] = chosen if _PLAIN.fullmatch(chosen) else uuid4().hex

        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                headers = MutableHeaders(scope=message)
                headers[ID_HEADER] = scope[_KEY]
                headers["x-content-type-options"] = "nosniff"
            await send(message)

        await self._app(scope, receive, send_with_headers)


def request_id(scope: Scope) -> str:
    """The request's id: the client's X-Request-Id if it is short and plain, else one of ours."""
    return str(scope[_KEY])

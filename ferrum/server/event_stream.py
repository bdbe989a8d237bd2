"""Server-sent events: one for each part of an answer, sent as soon as the part is ready.

Owns: the form of events, the comments that keep a silent stream open, and the end: `[DONE]`, an error, or a client that
has disconnected, whose answer is then cancelled. Refuses to know: the content of the parts. Specs: SERVER-21 to
SERVER-24. Source: HTML standard, "Server-sent events"; OpenAI's API reference, "Streaming".
Next: `ferrum.server.answers`.
Next: `ferrum.server.answers`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator
from contextlib import suppress

from starlette.responses import Response
from starlette.types import Receive, Scope, Send

from ferrum.api.errors import ApiError, as_api_error
from ferrum.api.protocol.base import Answer
from ferrum.server.presence import ClientGone, while_connected

HEADERS = {"cache-control": "no-cache", "x-accel-buffering": "no"}  # proxies must pass on each event at once
DONE = b"data: [DONE]\n\n"
COMMENT = b": the answer goes on\n\n"


class EventStream(Response):
    """Sends the parts of an answer. `named`: each event has a name, which is its part's `type`, as in /v1/responses;
    otherwise events have no names and `[DONE]` is the last."""

    media_type = "text/event-stream"

    def __init__(self, parts: AsyncIterator[Answer], *, named: bool, keep_alive_s: float) -> None:
        super().__init__(headers=HEADERS)
        del self.headers["content-length"]
        self._parts = parts
        self._named = named
        self._keep_alive_s = keep_alive_s
        self._last_s = 0.0

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": self.raw_headers})
        self._last_s = asyncio.get_running_loop().time()
        comments = asyncio.create_task(self._comment(send))
        try:
            with suppress(ClientGone):
                await while_connected(receive, self._send_all(send))
        finally:
            comments.cancel()
            close = getattr(self._parts, "aclose", None)
            if close is not None:
                await close()

    async def _send_all(self, send: Send) -> None:
        last, count = b"" if self._named else DONE, 0
        try:
            async for part in self._parts:
                await self._send(send, self._event(part))
                count += 1
        except Exception as error:
            last = self._error(as_api_error(error), count)
        await self._send(send, last, more=False)

    async def _send(self, send: Send, event: bytes, more: bool = True) -> None:
        self._last_s = asyncio.get_running_loop().time()
        await send({"type": "http.response.body", "body": event, "more_body": more})
        await asyncio.sleep(0)  # sending does not wait while buffers have room; this lets other streams send

    async def _comment(self, send: Send) -> None:
        """A comment, since proxies and clients close connections that are silent."""
        while True:
            silent_s = asyncio.get_running_loop().time() - self._last_s
            if silent_s >= self._keep_alive_s:
                await self._send(send, COMMENT)
            else:
                await asyncio.sleep(self._keep_alive_s - silent_s)

    def _event(self, part: Answer) -> bytes:
        name = f"event: {part.type}\n" if self._named else ""  # type: ignore[attr-defined]  # each of these has one
        return f"{name}data: {part.json_text()}\n\n".encode()

    def _error(self, error: ApiError, number: int) -> bytes:
        if self._named:
            payload = {"type": "error", "sequence_number": number, "code": error.code, "message": error.message}
            payload["param"] = error.param
            return f"event: error\ndata: {json.dumps(payload)}\n\n".encode()
        return f"data: {json.dumps(error.body())}\n\n".encode()

"""The body of a request: from bytes to a checked object.

Owns: the largest size, the accepted content types, and parsing a large body outside of the event loop. Refuses to know:
the content. Specs: SERVER-14 to SERVER-16. Next: `ferrum.server.presence`.
"""

from __future__ import annotations

import asyncio
from typing import TypeVar

from starlette.requests import Request

from ferrum.api.errors import ApiError
from ferrum.api.protocol.base import Body, read
from ferrum.api.strict_json import parse_object
from ferrum.server.presence import ClientGone

LARGE = 64 << 10
"""Bytes; taking apart so many takes about a millisecond, for which other streams can wait."""
Wanted = TypeVar("Wanted", bound=Body)


async def read_body(request: Request, wanted: type[Wanted], most: int) -> Wanted:
    """The body as `wanted`. Raises ApiError, or ClientGone."""
    check_form(request)
    raw = await read_bytes(request, most)
    if len(raw) > LARGE:
        return await asyncio.to_thread(lambda: read(wanted, parse_object(raw)))
    return read(wanted, parse_object(raw))


def check_form(request: Request) -> None:
    """JSON is what it must be, whatever it is called: `curl -d` calls it a form. What cannot be JSON is refused."""
    kind = request.headers.get("content-type", "").strip().lower()
    if kind.startswith("multipart/"):
        raise ApiError(415, "the body must be JSON (content-type: application/json), not a form with files")
    coding = request.headers.get("content-encoding", "identity").strip().lower()
    if coding not in ("", "identity"):
        raise ApiError(415, "the body must not be compressed: leave out content-encoding")


async def read_bytes(request: Request, most: int) -> bytes:
    """The whole body, if it is not larger than `most`."""
    declared = request.headers.get("content-length", "")
    if declared.isdecimal() and int(declared[:20]) > most:
        raise too_large(most)
    parts, size = [], 0
    while True:
        message = await request.receive()
        if message["type"] == "http.disconnect":
            raise ClientGone
        part = message.get("body", b"")
        size += len(part)
        if size > most:
            raise too_large(most)
        parts.append(part)
        if not message.get("more_body", False):
            return b"".join(parts)


def too_large(most: int) -> ApiError:
    return ApiError(413, f"the body is larger than {most} bytes", code="request_too_large")

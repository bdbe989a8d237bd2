"""Work for a client, which is cancelled when the client disconnects.

Owns: noticing that a client has disconnected, and cancelling its work. Refuses to know: the work.
Specs: SERVER-20. Source: the ASGI specification, "http.disconnect". Next: `ferrum.server.event_stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

Result = TypeVar("Result")


class ClientGone(Exception):
    """The client has disconnected: no answer can be sent."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """The result of the work. Raises ClientGone after the client has disconnected and the work is cancelled and ended.
    The request's body must have been read: the next message of the connection is the disconnection."""
    working = asyncio.create_task(work)
    leaving = asyncio.create_task(_leave(receive))
    try:
        await asyncio.wait({working, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if not working.done():
            raise ClientGone
        return working.result()
    finally:
        working.cancel()
        leaving.cancel()
        await asyncio.gather(working, leaving, return_exceptions=True)


async def _leave(receive: Receive) -> None:
    while (await receive())["type"] != "http.disconnect":
        pass

"""Work that is done for somebody, and only as long as he is there.

Owns: noticing that a client has gone, and ending what was done for it. Refuses to know: what is done.
Specs: SERVER-20. Source: the ASGI specification, "http.disconnect". Next: `ferrum.server.event_stream`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, TypeVar

from starlette.types import Receive

Result = TypeVar("Result")


class ClientGone(Exception):
    """Nobody is there any more who could be answered."""


async def while_connected(receive: Receive, work: Coroutine[Any, Any, Result]) -> Result:
    """What the work gives, or ClientGone, with the work cancelled and ended, once the client has left. The request's
    body must have been read: whatever comes after it means that the client is gone."""
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

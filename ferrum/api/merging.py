"""Several streams as one: the items of all of them, as they come.

Refuses to know: what the items are.
Specs: API-20. Next: `ferrum.api.completions`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence
from typing import TypeVar

T = TypeVar("T")


async def _next(stream: AsyncIterator[T]) -> T | None:
    return await anext(stream, None)


async def merged(streams: Sequence[AsyncIterator[T]]) -> AsyncIterator[tuple[int, T]]:
    """(number of the stream, item), until all have ended. Raises the first error of any stream; the others are then not
    awaited."""
    if len(streams) == 1:
        async for item in streams[0]:
            yield 0, item
        return
    waiting: dict[asyncio.Future[T | None], int] = {
        asyncio.ensure_future(_next(stream)): number for number, stream in enumerate(streams)
    }
    try:
        while waiting:
            done, _ = await asyncio.wait(waiting, return_when=asyncio.FIRST_COMPLETED)
            for task in sorted(done, key=waiting.__getitem__):
                number = waiting.pop(task)
                found = task.result()
                if found is not None:
                    waiting[asyncio.ensure_future(_next(streams[number]))] = number
                    yield number, found
    finally:
        for task in waiting:
            task.cancel()
        await asyncio.gather(*waiting, return_exceptions=True)

"""Requests that are being answered, by name: so that they can be cancelled, and waited for.

Owns: `Opened`, one request with what the engine does for it; `OpenRequests`, all of them. Refuses to know: what
is asked.
Specs: API-07, API-50, API-51. Next: `ferrum.api.chat`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ferrum.api.errors import ApiError


class Cancellable(Protocol):
    """Something that the engine does, and that may be cancelled at any time, and again."""

    def cancel(self) -> None: ...


Begun = TypeVar("Begun", bound=Cancellable)


class Opened:
    """One request, and what the engine does for it."""

    def __init__(self) -> None:
        self._begun: list[Cancellable] = []
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def add(self, begun: Begun) -> Begun:
        """What was begun for this request ends with it."""
        self._begun.append(begun)
        if self._cancelled:
            begun.cancel()
        return begun

    def cancel(self) -> None:
        """Ends it, whatever it is doing; what has come so far is its answer."""
        self._cancelled = True
        for begun in self._begun:
            begun.cancel()


class OpenRequests:
    """All that are open. To be used on one event loop."""

    def __init__(self) -> None:
        self._open: dict[str, Opened] = {}
        self._draining = False
        self._idle = asyncio.Event()
        self._idle.set()

    @property
    def draining(self) -> bool:
        return self._draining

    def drain(self) -> None:
        """From now on new requests are refused; open ones go on."""
        self._draining = True

    async def none_left(self) -> None:
        """Waits until no request is open."""
        await self._idle.wait()

    def cancel(self, name: str) -> bool:
        """Ends the request of this name; was there one?"""
        opened = self._open.get(name)
        if opened is not None:
            opened.cancel()
        return opened is not None

    @contextmanager
    def opened(self, names: Sequence[str]) -> Iterator[Opened]:
        """A request that is open while the block runs. Raises ApiError once new ones are refused, and for a name that
        is in use."""
        if self._draining:
            raise ApiError(503, "the server is shutting down", "server_error", None, "shutting_down")
        for name in names:
            if name in self._open:
                told = f"a request with the id {name} is open already"
                raise ApiError(409, told, param="X-Request-Id", code="conflict")
        opened = Opened()
        self._open.update((name, opened) for name in names)
        self._idle.clear()
        try:
            yield opened
        finally:
            opened.cancel()
            for name in names:
                del self._open[name]
            if not self._open:
                self._idle.set()

"""Open requests by name, so that they can be cancelled and awaited.

Owns: `Opened`, one request with its work in the engine; `OpenRequests`, all of them. Refuses to know: the contents of a
request.
Specs: API-07, API-50, API-51. Next: `ferrum.api.chat`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Protocol, TypeVar

from ferrum.api.errors import ApiError


class Cancellable(Protocol):
    """Work of the engine that may be cancelled at any time, and more than once."""

    def cancel(self) -> None: ...


Begun = TypeVar("Begun", bound=Cancellable)


class Opened:
    """One request, and its work in the engine."""

    def __init__(self) -> None:
        self._begun: list[Cancellable] = []
        self._cancelled = False

    @property
    def cancelled(self) -> bool:
        return self._cancelled

    def add(self, begun: Begun) -> Begun:
        """Adds work that is cancelled with the request."""
        self._begun.append(begun)
        if self._cancelled:
            begun.cancel()
        return begun

    def cancel(self) -> None:
        """Cancels the request in any state. Its answer is what has come so far."""
        self._cancelled = True
        for begun in self._begun:
            begun.cancel()


class OpenRequests:
    """All open requests. For use on one event loop."""

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
        """Cancels the request of this name; False if there is none."""
        opened = self._open.get(name)
        if opened is not None:
            opened.cancel()
        return opened is not None

    @contextmanager
    def opened(self, names: Sequence[str]) -> Iterator[Opened]:
        """A request that is open while the block runs. Raises ApiError while new requests are refused, and for a name
        in use."""
        if self._draining:
            raise ApiError(503, "the server is shutting down", "server_error", None, "shutting_down")
        for name in names:
            if name in self._open:
                problem = f"a request with the id {name} is open already"
                raise ApiError(409, problem, param="X-Request-Id", code="conflict")
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

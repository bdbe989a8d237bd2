"""A server from its first connection to its last: uvicorn, and a shutdown that lets running answers finish.

Owns: the event loop, the meaning of SIGTERM and Ctrl-C, the time that running answers get. The first signal ends the
server once they are finished; requests that come meanwhile are told to go elsewhere. The second one ends it at once.
Refuses to know: paths. Specs: SERVER-60 to SERVER-63. Next: `ferrum.server.ray_cluster`.
"""

from __future__ import annotations

import asyncio
import socket
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from dataclasses import dataclass, field
from functools import partial
from types import FrameType
from typing import TYPE_CHECKING, Any, cast

import uvicorn
from starlette.types import ASGIApp

from ferrum.errors import ConfigError
from ferrum.server.connection import Bounds, Connection
from ferrum.server.tls import TlsFiles

if TYPE_CHECKING:
    from ferrum.api.service import Service

LAST_BYTES_S = 5
"""For clients to take the ends of answers that are finished."""
TEXT_THREADS = 4
"""For what is done beside the event loop: large bodies, prompts, grammars. asyncio would take more where there are more
cores, and the C library may keep for each thread what the largest text has taken there, which is half a gigabyte."""


@dataclass(frozen=True)
class Terms:
    """How connections are kept and ended."""

    bounds: Bounds = field(default_factory=Bounds)
    largest_head: int = 64 << 10  # bytes
    idle_s: int = 75  # seconds for which a connection is kept open between two requests
    drain_s: float = 30.0
    tls: TlsFiles | None = None


def serve(
    app: ASGIApp, service: Service, sockets: Sequence[socket.socket], terms: Terms, ready: Callable[[], None]
) -> int | None:
    """Serves until a signal ends it; `ready()` is called when connections are accepted. -> the second signal, if it
    took one."""
    server = DrainingServer(configured(app, terms), service, terms.drain_s, ready)
    server.run(sockets=list(sockets))
    return server.cut_by


def configured(app: ASGIApp, terms: Terms) -> uvicorn.Config:
    """uvicorn with everything off that is not used here."""
    tls: dict[str, Any] = {}
    if terms.tls is not None:
        tls = {"ssl_certfile": terms.tls.certificate, "ssl_keyfile": terms.tls.key}
    return uvicorn.Config(
        app,
        http=cast(Any, partial(Connection, bounds=terms.bounds)),
        loop="asyncio",
        ws="none",
        lifespan="off",
        log_config=None,
        log_level="error",
        access_log=False,
        proxy_headers=False,
        server_header=False,
        timeout_keep_alive=terms.idle_s,
        timeout_graceful_shutdown=LAST_BYTES_S,
        h11_max_incomplete_event_size=terms.largest_head,
        **tls,
    )


class DrainingServer(uvicorn.Server):
    """Ends when the service has nothing left to do."""

    def __init__(
        self, config: uvicorn.Config, service: Service, drain_s: float, ready: Callable[[], None] = lambda: None
    ) -> None:
        super().__init__(config)
        self.cut_by: int | None = None
        self._service = service
        self._drain_s = drain_s
        self._ready = ready
        self._asked = False
        self._draining: asyncio.Task[None] | None = None
        self._loop: asyncio.AbstractEventLoop | None = None

    async def startup(self, sockets: list[socket.socket] | None = None) -> None:
        try:
            await super().startup(sockets=sockets)
        except OSError as error:  # two programs may bind an address while neither listens
            raise ConfigError(f"cannot listen: {error.strerror or error}") from None
        self._loop = asyncio.get_running_loop()
        self._loop.set_default_executor(ThreadPoolExecutor(TEXT_THREADS, "ferrum-text"))
        self._ready()

    def drain(self) -> None:
        """Ends the server once running answers are finished."""
        self._asked = True

    def cut(self) -> None:
        """Ends it at once."""
        self.should_exit = self.force_exit = True
        if self._loop is not None and not self._loop.is_closed():
            self._loop.call_soon_threadsafe(self._abort)

    # ---- called by uvicorn
    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        if self._asked:
            self.cut_by = sig
            self.cut()
        self.drain()  # later, in a tick: the signal may have interrupted code that holds a lock

    async def on_tick(self, counter: int) -> bool:
        if self._asked and self._draining is None:
            self._draining = asyncio.create_task(self._drain())
        finished = self._draining is not None and self._draining.done()
        return await super().on_tick(counter) or finished

    async def _drain(self) -> None:
        self._service.drain()
        with suppress(TimeoutError):
            async with asyncio.timeout(self._drain_s):
                await self._service.idle()

    def _abort(self) -> None:
        for connection in list(self.server_state.connections):
            transport = getattr(connection, "transport", None)
            if transport is not None:
                transport.abort()

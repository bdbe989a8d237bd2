"""One connection: HTTP/1.1 by h11, with a time limit for each thing that a client can do slowly.

Owns: the time for a request to arrive and for an answer to be taken, the number of connections, and errors below
HTTP's own level in OpenAI's form. h11 rather than a parser in C: it refuses whatever is not the standard's grammar, its
limits are known, and it is there wherever Python is. Refuses to know: paths.
Specs: SERVER-50 to SERVER-54. Source: RFC 9112. Next: `ferrum.server.sockets`.
"""

from __future__ import annotations

import asyncio
import re
import sys
from dataclasses import dataclass
from http import HTTPStatus
from typing import Any

import h11
from uvicorn.protocols.http.h11_impl import H11Protocol

from ferrum.api.errors import ApiError
from ferrum.server.answers import refused


@dataclass(frozen=True)
class Bounds:
    """Limits for a client's connection."""

    client_timeout_s: float = 60.0  # for a request to arrive, and for a piece of an answer to be received
    connections: int = 10_000


class BoundedHeads(h11.Connection):
    """h11 has a limit to heads that are not complete yet. Here it is the limit of those that come in one piece, too."""

    def __init__(self, largest_head: int) -> None:
        super().__init__(h11.SERVER, largest_head)
        self._largest_head = largest_head

    def next_event(self) -> Any:
        if self.their_state is h11.IDLE:
            come, _ = self.trailing_data
            if len(come) > self._largest_head and not _BLANK_LINE.search(come, 0, self._largest_head):
                raise h11.RemoteProtocolError("the head is too large", error_status_hint=431)
        return super().next_event()


_BLANK_LINE = re.compile(rb"\n\r?\n")


class Connection(H11Protocol):
    """A client's connection."""

    def __init__(self, *, bounds: Bounds, **given: Any) -> None:
        super().__init__(**given)
        if self.config.h11_max_incomplete_event_size is not None:
            self.conn = BoundedHeads(self.config.h11_max_incomplete_event_size)
        self._bounds = bounds
        self._arrival: asyncio.TimerHandle | None = None  # runs while a request arrives
        self._taking: asyncio.TimerHandle | None = None  # runs while the client does not receive
        self._quiet_since = 0.0

    # ---- called by uvicorn
    def connection_made(self, transport: asyncio.Transport) -> None:  # type: ignore[override]
        super().connection_made(transport)
        self._quiet_since = self.loop.time()
        self.timeout_keep_alive_task = self.loop.call_later(self.timeout_keep_alive, self.timeout_keep_alive_handler)
        self._make_room()

    def connection_lost(self, exc: Exception | None) -> None:
        self._stop(self._arrival, self._taking)
        self._unset_keepalive_if_required()
        super().connection_lost(exc)

    def data_received(self, data: bytes) -> None:
        super().data_received(data)
        self._watch_arrival()

    def on_response_complete(self) -> None:
        self._quiet_since = self.loop.time()
        super().on_response_complete()
        self._watch_arrival()

    def pause_writing(self) -> None:
        super().pause_writing()
        self._taking = self.loop.call_later(self._bounds.client_timeout_s, self.transport.abort)

    def resume_writing(self) -> None:
        self._stop(self._taking)
        super().resume_writing()

    def send_400_response(self, msg: str) -> None:
        """Called if h11 cannot parse the request."""
        error = sys.exception()
        status = getattr(error, "error_status_hint", 400)
        self._refuse(ApiError(status, f"this is not HTTP/1.1: {error or msg}", code="bad_http"))

    # ---- limits
    @property
    def at_work(self) -> bool:
        """True while a request that has arrived completely is being answered."""
        return self.cycle is not None and not self.cycle.response_complete and not self.cycle.more_body

    def _watch_arrival(self) -> None:
        """Starts the time of a request with its first byte, and ends it with its last."""
        begun = self.conn.their_state is h11.IDLE and bool(self.conn.trailing_data[0])
        if not begun and self.conn.their_state is not h11.SEND_BODY:
            self._stop(self._arrival)
            self._arrival = None
        elif self._arrival is None:
            self._arrival = self.loop.call_later(self._bounds.client_timeout_s, self._give_up)

    def _give_up(self) -> None:
        limit = self._bounds.client_timeout_s
        self._refuse(ApiError(408, f"the request did not arrive in {limit:g} seconds", "timeout_error", code="timeout"))

    def _make_room(self) -> None:
        """Closes the connection that has been idle for the longest time, if there are too many."""
        if len(self.connections) <= self._bounds.connections:
            return
        others = [each for each in self.connections if each is not self and isinstance(each, Connection)]
        quiet = [each for each in others if not each.at_work]
        if quiet:
            least = min(quiet, key=lambda each: each._quiet_since)
            self.connections.discard(least)
            least.transport.abort()
        else:
            self._refuse(ApiError(503, "too many connections: try again later", "server_error", code="overloaded"))

    def _refuse(self, error: ApiError) -> None:
        """Answers in place of the application, if nothing has been answered yet, and closes the connection."""
        if self.cycle is not None:
            self.cycle.disconnected = True
            self.cycle.message_event.set()
        if self.conn.our_state in (h11.IDLE, h11.SEND_RESPONSE):
            response = refused(error, {"connection": "close"})
            reason = HTTPStatus(error.status).phrase.encode()
            for event in (
                h11.Response(status_code=error.status, headers=response.raw_headers, reason=reason),
                h11.Data(data=bytes(response.body)),
                h11.EndOfMessage(),
            ):
                self.transport.write(self.conn.send(event) or b"")
        self.transport.close()

    @staticmethod
    def _stop(*timers: asyncio.TimerHandle | None) -> None:
        for timer in timers:
            if timer is not None:
                timer.cancel()

"""`/glass`: the page that plays a generation, with the steps of this server as they are computed.

Owns: the recorder of the server, which watches the engine only while a page asks for steps: without one the engine has
no observer of it, and nothing is slower. Attention and times of calls are not recorded here, because both would stop
the engine from replaying decode steps; distributions are recorded while a page asks for them.
Refuses to know: what the page draws. Specs: GLASS-06 to GLASS-10. Next: `ferrum.server.metrics`.
"""

from __future__ import annotations

import asyncio
import json
import secrets
from contextlib import suppress
from dataclasses import dataclass
from itertools import accumulate
from typing import TYPE_CHECKING, Any

from starlette.requests import Request
from starlette.responses import HTMLResponse, Response

from ferrum import __version__
from ferrum.api.errors import ApiError
from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.errors import FerrumError
from ferrum.server.access import is_outside_dns, name_of
from ferrum.server.settings import ServerSettings
from ferrum.trace.page import assembled, joined, policy
from ferrum.trace.recorder import Recorder, numbers_in
from ferrum.trace.recording import VERSION, Observers

if TYPE_CHECKING:
    from ferrum.api.service import Service

KEPT_STEPS = 256
"""Steps that the server remembers."""
KEPT_NUMBERS = 1 << 20
"""Numbers in them, at most: fewer steps are remembered where each has thousands of blocks."""
SENT_STEPS = 32
"""Steps of one answer, the oldest first: a page that is behind asks again."""
SENT_NUMBERS = 1 << 16
"""Numbers in them, at most, unless the first step alone has more."""
IDLE_S = 10.0
"""Seconds without a request for steps, after which the recording ends."""
ASK_EVERY_MS = 400
"""Milliseconds from one request of a page to its next."""
SHARED_ANSWERS = 16
"""Answers that are kept until the next step, for pages that ask for the same steps."""
EXPLAINED_S = 2.0
"""Seconds for which distributions are recorded after a page has asked for them."""
OWN_SITES = ("same-origin", "none")
"""Values of Sec-Fetch-Site that browsers send for the page of this server, and for an address that the user types. A
page of another site can send a GET without an Origin header (`no-cors`): it cannot read the answer, but it would have
the engine watched. Source: W3C, "Fetch Metadata Request Headers"."""
OFF = (
    "the glass box shows the texts of all users, and is off: ferrum-ref serve --glass turns it on; without the flag it "
    "is on where the server listens to this machine only and has at most one key"
)


@dataclass(frozen=True)
class Recording:
    """A recorder that observes the engine until no page asks for steps. `name` differs from recording to recording:
    each numbers its steps from 1, and a page must not mix two of them."""

    recorder: Recorder
    name: str
    before: EngineObserver  # the engine's own

    @classmethod
    def of(cls, engine: Engine) -> Recording:
        """Begins to record. To be called between two steps."""
        recorder = Recorder(engine, most_steps=KEPT_STEPS, most_numbers=KEPT_NUMBERS, explains=False)
        recording = cls(recorder, secrets.token_hex(4), engine.observer)
        engine.observer = Observers(engine.observer, recording.recorder)
        return recording

    def end(self, engine: Engine) -> None:
        """The engine has its own observer alone, as before."""
        engine.observer = self.before


class Glass:
    """The answers of `/glass` and `/glass/events`. To be used on one event loop."""

    def __init__(self, service: Service, settings: ServerSettings) -> None:
        self._service = service
        self._page = _page() if settings.glass else None
        self._hosts: frozenset[str] | None = None  # names that requests may use; None: any, since they have a key
        if not settings.api_keys:
            self._hosts = frozenset(host.lower() for host in settings.allowed_hosts)
        self._recording: Recording | None = None  # changed in the engine's thread only
        self._explains_until = 0.0
        self._end: asyncio.TimerHandle | None = None  # of the recording; None: none is begun
        self._turns = asyncio.Lock()
        """Answers are made one at a time: a hundred pages must not take the threads that requests need."""
        self._shared: dict[tuple[str, int, int], bytes] = {}  # by recording, its number of steps, and `after`

    def page(self) -> Response:
        """The page, without data. Raises ApiError where the glass box is off."""
        if self._page is None:
            raise ApiError(404, OFF, "not_found_error", code="not_found")
        return self._page

    async def events(self, request: Request) -> Response:
        """The steps with numbers above `after`, if `recording` names the running recording; otherwise all kept steps.
        `distributions=true` has the distributions of later steps recorded. Raises ApiError if the glass box is off,
        `after` is not a number, or the request comes from a page of another origin."""
        self.page()
        self._check_page(request)
        asked = request.query_params
        after = _number(asked.get("after", "0"))
        self._watch()
        recording = self._recording
        if recording is not None:
            recording.recorder.explains = self._explains(asked.get("distributions") == "true")
            after = after if asked.get("recording") == recording.name else 0
        content = await self._content(recording, after)
        return Response(content, media_type="application/json", headers={"cache-control": "no-store"})

    def _check_page(self, request: Request) -> None:
        """Raises ApiError for a request from a page of another server. A page that has let its own name point to this
        machine counts as one of this server in the browser, but its Host is neither an address nor an allowed name."""
        if "origin" in request.headers or request.headers.get("sec-fetch-site", "none") not in OWN_SITES:
            raise _forbidden("only the page of this server may ask for steps")
        host = request.headers.get("host", "")
        if self._hosts is not None and not is_outside_dns(host) and name_of(host) not in self._hosts:
            raise _forbidden("without a key, steps are told at an address of this server only, not at that name: "
                             "--allowed-host NAME allows it")  # fmt: skip

    async def _content(self, recording: Recording | None, after: int) -> bytes:
        """The answer as JSON. Pages that ask for the same steps share it."""
        async with self._turns:
            if recording is None:
                return self._told(None, after)
            key = (recording.name, recording.recorder.steps, after)
            if key not in self._shared:
                content = await asyncio.to_thread(self._told, recording, after)
                latest = {each: kept for each, kept in self._shared.items() if each[:2] == key[:2]}
                self._shared = {**latest, key: content} if len(latest) < SHARED_ANSWERS else {key: content}
            return self._shared[key]

    def _explains(self, is_asked: bool) -> bool:
        """True if any page has asked for distributions within the last EXPLAINED_S seconds."""
        now = asyncio.get_running_loop().time()
        if is_asked:
            self._explains_until = now + EXPLAINED_S
        return now < self._explains_until

    # ---- the recording
    def _watch(self) -> None:
        """Begins to record unless a recording runs, and has it end IDLE_S seconds from now."""
        if self._end is None:
            self._service.served.thread.call(self._begin)
        else:
            self._end.cancel()
        self._end = asyncio.get_running_loop().call_later(IDLE_S, self._stop)

    def _stop(self) -> None:
        self._end, self._shared = None, {}
        with suppress(FerrumError):  # the engine is closed, and its observer with it
            self._service.served.thread.call(self._finish)

    def _begin(self) -> None:
        self._recording = Recording.of(self._service.served.thread.engine)

    def _finish(self) -> None:
        if self._recording is not None:
            self._recording.end(self._service.served.thread.engine)
            self._recording = None

    def _told(self, recording: Recording | None, after: int) -> bytes:
        """The answer as JSON: a trace whose steps are still to come."""
        trace: dict[str, Any] = {"version": VERSION, "ferrum": __version__, **facts(self._service)}
        trace |= {"texts": {}, "requests": [], "sequences": [], "steps": []}
        trace["recording"] = None if recording is None else recording.name
        if recording is not None and recording.recorder.steps > after:  # else there is no news, which costs nothing
            trace |= recording.recorder.recorded(self._service.served.tokenizer.token_bytes, after)
            trace["steps"] = first_of(trace["steps"])
        return json.dumps(trace).encode()


def first_of(steps: list[dict[str, Any]]) -> list[dict[str, Any]]:
    """The steps of one answer."""
    sizes = accumulate(map(numbers_in, steps))
    fitting = sum(1 for size in sizes if size <= SENT_NUMBERS)
    return steps[: min(SENT_STEPS, max(1, fitting))]


def facts(service: Service) -> dict[str, Any]:
    """The fields `model`, `memory` and `limits` of a trace, as far as a server tells them."""
    served = service.served
    engine = served.thread.engine
    manager, limits = engine.scheduler.manager, engine.scheduler.limits
    host = manager.host
    return {
        "model": {
            "name": served.names[0],
            "backend": engine.executor.ops.name,
            "compute": engine.executor.ops.compute,
            "threads": engine.executor.ops.threads,
            "vocab_size": served.vocab_size,
        },
        "memory": {
            "block_size": manager.block_size,
            "device_blocks": manager.device.total,
            "host_blocks": 0 if host is None else host.total,
            "eviction": served.eviction,
            "scheduler": served.scheduler,
        },
        "limits": {
            "max_num_seqs": limits.max_num_seqs,
            "max_num_batched_tokens": limits.max_num_batched_tokens,
            "max_model_len": limits.max_model_len,
        },
    }


def _page() -> Response:
    """The page as it is sent: it asks for its data."""
    html = assembled({"live": {"url": "/glass/events", "every_ms": ASK_EVERY_MS}})
    rules = joined({**policy(html), "connect-src": "'self'"})
    headers = {"content-security-policy": rules, "referrer-policy": "no-referrer", "cache-control": "no-cache"}
    return HTMLResponse(html, headers=headers)


def _forbidden(message: str) -> ApiError:
    return ApiError(403, message, "permission_error", code="forbidden")


def _number(text: str) -> int:
    if not text.isascii() or not text.isdigit() or len(text) > 15:
        raise ApiError(400, "must be the number of a step", param="after")
    return int(text)

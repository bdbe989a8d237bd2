"""The measured server: one connection pool, one request at a time.

Owns: addresses, the API key, the list of models, one request at a time, and what becomes of everything that can go
wrong with a connection. Refuses to know: what is asked and what is measured. A request is never sent twice.
Specs: BENCH-12, BENCH-14, BENCH-30 to BENCH-32. Next: `ferrum.load_test.summary`.
"""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from typing import Any

import httpx

from ferrum.errors import FerrumError, InvalidParameter, NotFound
from ferrum.load_test.answer import Answer, error_message
from ferrum.load_test.timeline import BROKEN, NO_CONNECTION, TIMED_OUT, Failure, Timeline

IDLE_SECONDS = 2.0
"""How long an unused connection is kept: servers close it after five seconds or more, and a request that meets the
closing would fail."""
DRAIN_SECONDS = 1.0
"""How long the end of a stream is waited for after its last event, so that the connection can be used again."""
LIST_SECONDS = 30.0
LARGEST_ERROR = 64 << 10


def base_url(url: str) -> str:
    """`http://host:8000` -> `http://host:8000/v1`; an address that has a path is taken as it is. Raises
    InvalidParameter."""
    try:
        address = httpx.URL(url)
    except httpx.InvalidURL as error:
        raise InvalidParameter("url", f"is no address: {error}") from None
    if address.scheme not in ("http", "https") or not address.host or address.userinfo or address.query:
        raise InvalidParameter("url", "must be like http://host:port or https://host/path")
    return str(address).rstrip("/") + ("/v1" if address.path == "/" else "")


def headers(api_key: str | None) -> dict[str, str]:
    """What goes with every request. Nothing is compressed: a compressor would hold chunks back. Raises
    InvalidParameter."""
    values = {"Content-Type": "application/json", "Accept-Encoding": "identity"}
    if api_key is None or not (key := api_key.strip()):
        return values
    if not (key.isascii() and key.isprintable()):
        raise InvalidParameter("api_key", "has characters that cannot be sent")
    return {**values, "Authorization": f"Bearer {key}"}


@asynccontextmanager
async def connected(base: str, api_key: str | None, timeout: float) -> AsyncIterator[Server]:
    """A server to ask while the block runs, over as many connections as it takes. Raises InvalidParameter."""
    limits = httpx.Limits(max_connections=None, max_keepalive_connections=None, keepalive_expiry=IDLE_SECONDS)
    async with httpx.AsyncClient(headers=headers(api_key), timeout=None, limits=limits) as http:
        yield Server(http, base, timeout)


class Server:
    """A server with the OpenAI API. `timeout`: seconds that a whole answer may take."""

    def __init__(self, http: httpx.AsyncClient, base: str, timeout: float) -> None:
        self.base = base
        self._http = http
        self._timeout = timeout

    async def models(self) -> list[str]:
        """The names of the server's models, at least one. Raises FerrumError where it tells none."""
        try:
            async with asyncio.timeout(LIST_SECONDS):
                response = await self._http.get(f"{self.base}/models")
        except (httpx.HTTPError, TimeoutError) as error:
            raise self.error(failure_of(error)) from None
        if response.status_code in (401, 403):
            raise self.error(status(response.status_code, response.content))
        names = names_in(response.content) if response.is_success else []
        if not names:
            what = "lists no model" if response.is_success else f"answers with status {response.status_code}"
            raise NotFound(f"{self.base}/models {what}: name the model with --model")
        return names

    def error(self, failure: Failure) -> FerrumError:
        """The sentence for a failure that all requests have in common."""
        if failure.kind == NO_CONNECTION:
            return FerrumError(f"no server answers at {self.base}: {failure.message}")
        if failure.kind in ("status 401", "status 403"):
            hint = "give its key with --api-key or OPENAI_API_KEY"
            return FerrumError(f"{self.base} refuses the API key ({failure.kind}: {failure.message}): {hint}")
        return FerrumError(f"no request succeeded: {failure.kind}: {failure.message}")

    async def ask(self, path: str, body: dict[str, Any], planned: float, clock: Callable[[], float]) -> Timeline:
        """Sends one request and follows its answer to the end, whatever the end is."""
        answer, failure, content = Answer(), None, json.dumps(body).encode()
        sent = clock()
        try:
            async with (
                asyncio.timeout(self._timeout),
                self._http.stream("POST", self.base + path, content=content) as response,
            ):
                failure = await refusal(response)
                if failure is None:
                    await follow(response, answer, clock)
        except (httpx.HTTPError, TimeoutError) as error:
            failure = failure_of(error)
        if answer.ended is None:
            return Timeline(planned, sent, clock(), failure=failure)
        return Timeline(planned, sent, answer.ended, tuple(answer.texts), answer.usage, answer.failure)


async def refusal(response: httpx.Response) -> Failure | None:
    """Why there will be no stream."""
    if response.is_success and "json" not in response.headers.get("Content-Type", ""):
        return None
    content = b""
    async for piece in response.aiter_bytes():
        content += piece
        if len(content) > LARGEST_ERROR:
            break
    if response.is_success:
        return Failure(BROKEN, "the server does not stream: it has sent its answer in one piece")
    return status(response.status_code, content)


def status(code: int, content: bytes) -> Failure:
    try:
        reason = error_message(json.loads(content))
    except (ValueError, RecursionError):
        reason = error_message(content.decode(errors="replace"))
    return Failure(f"status {code}", reason)


async def follow(response: httpx.Response, answer: Answer, clock: Callable[[], float]) -> None:
    """Reads a stream until the answer has ended, and then what is left of it."""
    pieces = response.aiter_bytes()
    async for piece in pieces:
        answer.take(piece, clock())
        if answer.ended is not None:
            break
    else:
        answer.end(clock())
    with suppress(TimeoutError):
        async with asyncio.timeout(DRAIN_SECONDS):
            async for _ in pieces:
                pass


def failure_of(error: Exception) -> Failure:
    """What an exception of a request means."""
    message = " ".join(str(error).split()) or type(error).__name__
    if isinstance(error, (TimeoutError, httpx.TimeoutException)):
        return Failure(TIMED_OUT, "the answer did not end in the time it had")
    return Failure(NO_CONNECTION if isinstance(error, httpx.ConnectError) else BROKEN, message)


def names_in(content: bytes) -> list[str]:
    """The names in a list of models; none where it is no such list."""
    try:
        values = json.loads(content)
    except (ValueError, RecursionError):
        return []
    entries = values.get("data") if isinstance(values, dict) else None
    names = [entry.get("id") for entry in entries if isinstance(entry, dict)] if isinstance(entries, list) else []
    return [name for name in names if isinstance(name, str)]

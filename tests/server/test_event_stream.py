"""SERVER-20 to SERVER-24: streams, and clients that leave."""

from __future__ import annotations

import asyncio
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.api.protocol.base import Answer
from ferrum.errors import InternalError
from ferrum.server.event_stream import EventStream
from ferrum.server.presence import ClientGone, while_connected
from tests.server.running import CHAT, application, ask, post, running


class Part(Answer):
    type: str
    text: str


class Client:
    """The client of a stream. It disconnects after a number of bodies; None: it stays."""

    def __init__(self, stays: int | None = None) -> None:
        self.messages: list[dict[str, Any]] = []
        self._stays = stays
        self._gone = asyncio.Event()

    async def send(self, message: Any) -> None:
        self.messages.append(dict(message))
        if self._stays is not None and len(self.bodies) >= self._stays:
            self._gone.set()

    async def receive(self) -> dict[str, Any]:
        await self._gone.wait()
        return {"type": "http.disconnect"}

    @property
    def bodies(self) -> list[bytes]:
        return [each["body"] for each in self.messages if each["type"] == "http.response.body"]

    @property
    def ended(self) -> bool:
        return not self.messages[-1].get("more_body", True)


class Parts:
    """Yields its texts, then raises its error if it has one."""

    def __init__(self, texts: list[str], error: Exception | None = None, pause_s: float = 0) -> None:
        self.left, self.error, self.pause_s = list(texts), error, pause_s
        self.closed = False

    def __aiter__(self) -> AsyncIterator[Answer]:
        return self

    async def __anext__(self) -> Answer:
        await asyncio.sleep(self.pause_s)
        if self.left:
            return Part(type="part", text=self.left.pop(0))
        if self.error is not None:
            raise self.error
        raise StopAsyncIteration

    async def aclose(self) -> None:
        self.closed = True


def streamed(parts: Parts, *, named: bool = False, keep_alive_s: float = 60, stays: int | None = None) -> Client:
    async def stream() -> Client:
        client = Client(stays)
        response = EventStream(parts, named=named, keep_alive_s=keep_alive_s)
        await asyncio.wait_for(response({"type": "http"}, client.receive, client.send), 60)
        return client

    return asyncio.run(stream())


def events(raw: bytes) -> list[dict[str, str]]:
    """The oracle: the events of a stream, read by the rules of the HTML standard."""
    found: list[dict[str, str]] = []
    for block in raw.decode().split("\n\n"):
        fields: dict[str, str] = {}
        for line in block.split("\n"):
            name, _, value = line.partition(":")
            if name:
                fields[name] = fields.get(name, "") + value.removeprefix(" ")
        if "data" in fields:
            found.append(fields)
    return found


@pytest.mark.clause("SERVER-21")
@given(st.lists(st.text(max_size=20), max_size=5))
def test_each_part_is_one_event(texts: list[str]) -> None:
    parts = Parts(texts)
    client = streamed(parts)
    *data, last = [each["data"] for each in events(b"".join(client.bodies))]
    assert [json.loads(each)["text"] for each in data] == texts and last == "[DONE]"
    assert client.ended and parts.closed


@pytest.mark.clause("SERVER-21")
def test_the_headers_of_a_stream() -> None:
    with application() as app:
        response = ask(app, "POST", "/v1/chat/completions", json={**CHAT, "stream": True})
    assert response.headers["content-type"].startswith("text/event-stream")
    assert response.headers["cache-control"] == "no-cache"
    assert response.headers["x-accel-buffering"] == "no"
    assert "content-length" not in response.headers
    chunks = [json.loads(each["data"]) for each in events(response.content)[:-1]]
    assert "".join(chunk["choices"][0]["delta"].get("content") or "" for chunk in chunks) == "Hello!"


@pytest.mark.clause("SERVER-24")
@given(st.lists(st.text(max_size=20), max_size=5))
def test_named_events_have_no_done(texts: list[str]) -> None:
    found = events(b"".join(streamed(Parts(texts), named=True).bodies))
    assert [each["event"] for each in found] == ["part"] * len(texts)
    assert [json.loads(each["data"])["text"] for each in found] == texts


@pytest.mark.clause("SERVER-23")
@pytest.mark.parametrize("named", [False, True])
def test_an_error_is_the_last_event(named: bool) -> None:
    parts = Parts(["so far"], InternalError("the engine failed"))
    client = streamed(parts, named=named)
    first, last = events(b"".join(client.bodies))
    assert json.loads(first["data"])["text"] == "so far"
    told = json.loads(last["data"])
    assert (told if named else told["error"])["message"] == "the engine failed"
    assert told.get("sequence_number") == (1 if named else None)
    assert last.get("event") == ("error" if named else None)
    assert client.ended and parts.closed


@pytest.mark.clause("SERVER-22")
def test_silence_has_comments() -> None:
    client = streamed(Parts(["a"], pause_s=0.2), keep_alive_s=0.02)
    raw = b"".join(client.bodies)
    assert raw.startswith(b": ") and raw.count(b"\n\n: ") >= 2
    assert [each["data"] for each in events(raw)] == ['{"type":"part","text":"a"}', "[DONE]"]


@pytest.mark.clause("SERVER-20")
@given(st.integers(1, 8))
def test_nothing_more_is_asked_for_once_the_client_has_left(stays: int) -> None:
    parts = Parts([str(number) for number in range(100)])
    client = streamed(parts, stays=stays)
    assert parts.closed and not client.ended
    assert len(client.bodies) <= stays + 3  # what the event loop had begun


@pytest.mark.clause("SERVER-20")
def test_work_ends_when_the_client_leaves() -> None:
    ended = []

    async def work() -> None:
        try:
            await asyncio.sleep(60)
        finally:
            ended.append(True)

    async def leave() -> dict[str, Any]:
        return {"type": "http.disconnect"}

    with pytest.raises(ClientGone):
        asyncio.run(while_connected(leave, work()))
    assert ended


@pytest.mark.clause("SERVER-20")
def test_work_that_is_finished_is_an_answer() -> None:
    async def stay() -> dict[str, Any]:
        await asyncio.sleep(60)
        raise AssertionError

    async def work(value: int) -> int:
        return value

    assert asyncio.run(while_connected(stay, work(7))) == 7


@pytest.mark.clause("SERVER-20")
@pytest.mark.parametrize("body", [{**CHAT, "stream": True}, CHAT, {"prompt": "x", "n": 3}], ids=str)
def test_a_client_that_closes_its_connection_frees_everything(body: dict[str, Any]) -> None:
    path = "/v1/completions" if "prompt" in body else "/v1/chat/completions"
    with running({"default": "a" * 4000, "delay_ms": 5}) as server:
        with server.connect() as connection:
            connection.sendall(post(body, path))
            wait_until(lambda: server.service.stats().running > 0)
        wait_until(lambda: server.service.stats().running == 0)
        assert server.service.stats().device.held == 0


def wait_until(true: Callable[[], bool]) -> None:
    """Fails after a minute."""

    async def wait() -> None:
        while not true():
            await asyncio.sleep(0.01)

    asyncio.run(asyncio.wait_for(wait(), 60))

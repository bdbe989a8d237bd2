"""SERVER-50 to SERVER-54: slow clients, many clients, and connections without HTTP, on real sockets."""

from __future__ import annotations

import json
import re
import socket
import time
from collections.abc import Iterator
from contextlib import ExitStack, suppress

import httpx
import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from ferrum.server.connection import Bounds
from ferrum.server.run import Terms
from tests.server.running import CHAT, Running, post, read_all, running

QUICK = 0.3
"""Seconds that these servers wait for a client."""


def terms(connections: int = 1000, idle_s: int = 60, client_s: float = QUICK) -> Terms:
    return Terms(bounds=Bounds(client_s, connections), idle_s=idle_s)


def status(raw: bytes) -> int:
    return int(raw.split(b" ", 2)[1]) if raw else 0


def error(raw: bytes) -> dict[str, object]:
    head, _, body = raw.partition(b"\r\n\r\n")
    assert b"content-type: application/json" in head.lower()
    assert f"content-length: {len(body)}".encode() in head.lower()
    found: dict[str, object] = json.loads(body)["error"]
    assert found.keys() == {"message", "type", "param", "code"}
    return found


def health(server: Running) -> int:
    with server.connect() as connection:
        connection.sendall(b"GET /health HTTP/1.1\r\nHost: localhost\r\nConnection: close\r\n\r\n")
        return status(read_all(connection))


def is_closed(connection: socket.socket) -> bool:
    try:
        return connection.recv(1) == b""
    except ConnectionResetError:
        return True


def drip(connection: socket.socket, data: bytes) -> bytes:
    """Sends one byte at a time, slowly, until the server answers. Returns the answer."""
    connection.settimeout(QUICK / 7)  # so that no byte is sent just when the time is over
    found = b""
    for place in range(len(data)):
        with suppress(TimeoutError):
            connection.sendall(data[place : place + 1])
            found = connection.recv(65536)
            break
    else:
        raise AssertionError("it had all the time that it wanted")
    connection.settimeout(20)
    with suppress(ConnectionResetError):  # a byte that was on its way then is refused
        while part := connection.recv(65536):
            found += part
    return found


@pytest.mark.clause("SERVER-50")
@pytest.mark.parametrize("complete_head", [False, True])
def test_a_byte_now_and_then_is_not_enough(complete_head: bool) -> None:
    whole = post({**CHAT, "user": "x" * 1000})
    with running(terms=terms()) as server, server.connect() as connection:
        cut = whole.index(b"\r\n\r\n") + 4 if complete_head else 0
        connection.sendall(whole[:cut])
        raw = drip(connection, whole[cut:])
        assert status(raw) == 408 and error(raw)["type"] == "timeout_error"
        assert health(server) == 200
        assert server.service.stats().running == 0


@pytest.mark.clause("SERVER-50")
def test_the_time_is_that_of_one_request() -> None:
    with running(terms=terms(client_s=1.0)) as server, httpx.Client(base_url=server.url) as client:
        deadline = time.monotonic() + 1.5
        while time.monotonic() < deadline:  # longer than one request may take, and each of them is quick
            assert client.post("/v1/chat/completions", json=CHAT).status_code == 200
            time.sleep(0.1)
        assert len(server.server.server_state.connections) == 1


@pytest.mark.clause("SERVER-51")
def test_an_answer_that_the_client_does_not_read_ends() -> None:
    with running(terms=terms()) as server, server.connect() as connection:
        connection.sendall(b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n" * 500)  # whose answers are 25 million bytes
        assert status(connection.recv(1000)) == 200
        deadline = time.monotonic() + 30
        while server.server.server_state.connections:
            assert time.monotonic() < deadline
            time.sleep(0.02)


@pytest.mark.clause("SERVER-52")
def test_idle_connections_keep_no_request_out() -> None:
    bounds = terms(connections=20, client_s=60)
    with running({"default": "a" * 300, "delay_ms": 2}, terms=bounds) as server, ExitStack() as opened:
        working = opened.enter_context(server.connect())
        working.sendall(post({**CHAT, "stream": True}, more="Connection: close\r\n"))
        assert status(working.recv(1000)) == 200
        idle = [opened.enter_context(server.connect()) for _ in range(60)]
        for each in idle[::2]:
            each.sendall(b"POST /v1/chat/completions HTTP/1.1\r\n")
        assert health(server) == 200
        assert read_all(working).endswith(b"data: [DONE]\n\n\r\n0\r\n\r\n")
        assert len(server.server.server_state.connections) <= 20
        assert is_closed(idle[0])  # the oldest one had to go


@pytest.mark.clause("SERVER-03")
@pytest.mark.clause("SERVER-52")
def test_connections_that_are_all_at_work_stay() -> None:
    with running({"default": "a" * 2000, "delay_ms": 5}, terms=terms(connections=2)) as server, ExitStack() as opened:
        for _ in range(2):
            working = opened.enter_context(server.connect())
            working.sendall(post({**CHAT, "stream": True}))
            assert status(working.recv(65536)) == 200
        with server.connect() as late:
            raw = read_all(late)
            assert error(raw)["code"] == "overloaded" and b"\r\nretry-after: " in raw
        assert working.recv(1)


@pytest.fixture(scope="module")
def server() -> Iterator[Running]:
    with running(terms=terms(client_s=60)) as found:
        yield found


@pytest.mark.clause("SERVER-53")
@given(st.binary(min_size=1, max_size=60))
@example(b"hello")
@example(b"GET / HTTP/9.9")
@example(b"GET /\xff HTTP/1.1\r\nHost: x")
@example(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: -1")
@example(b"POST / HTTP/1.1\r\nHost: x\r\nContent-Length: 1\r\nContent-Length: 2")
@example(b"POST / HTTP/1.1\r\nHost: x\r\nTransfer-Encoding: chunked\r\n\r\nzz")
@example(b"GET / HTTP/1.1\r\nHo st: x")
@example(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03")  # what a client sends that expects TLS
@settings(max_examples=50)
def test_what_is_no_http_is_refused(server: Running, raw: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(raw + b"\r\n\r\n")
        connection.shutdown(socket.SHUT_WR)
        found = read_all(connection)
    if found:
        assert status(found) == 400 or b"\r\n\r\n" in raw or raw.startswith((b"GET /", b"\r\n"))
        if status(found) == 400:
            assert error(found)["code"] == "bad_http"


@pytest.mark.clause("SERVER-53")
@pytest.mark.parametrize("end", [b"", b"\r\n\r\n"])
@pytest.mark.parametrize("before", [b"", b"GET /health HTTP/1.1\r\nHost: localhost\r\n\r\n"])
def test_a_head_has_an_end(server: Running, before: bytes, end: bytes) -> None:
    with server.connect() as connection:
        connection.sendall(before + b"HEAD / HTTP/1.1\r\nHost: localhost\r\nX: " + b"x" * (65 << 10) + end)
        statuses = re.findall(rb"HTTP/1.1 (\d+) ", read_all(connection))
    assert statuses == ([b"200", b"431"] if before else [b"431"])


@pytest.mark.clause("SERVER-54")
def test_idle_connections_are_closed() -> None:
    with running(terms=terms(idle_s=1, client_s=60)) as server, server.connect() as used, server.connect() as unused:
        used.sendall(post(CHAT))
        assert status(read_all(used)) == 200  # and its end
        assert read_all(unused) == b""

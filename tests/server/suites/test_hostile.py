"""Hostile requests to a real process: every answer is a 4xx in OpenAI's form or an end of the connection, and other
requests are served meanwhile."""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import time
from collections.abc import Iterator
from urllib.parse import urlsplit

import httpx
import pytest

from tests.server.suites import places
from tests.server.suites.serving import Server, served

MESSAGES = [{"role": "user", "content": "Hello"}]
ORDINARY = {  # the shortest request that each path answers
    "/v1/chat/completions": {"messages": MESSAGES, "max_tokens": 4},
    "/v1/completions": {"prompt": "Hello", "max_tokens": 4},
    "/v1/embeddings": {"input": "Hello"},
    "/v1/responses": {"input": "Hello", "max_output_tokens": 4},
    "/tokenize": {"prompt": "Hello"},
    "/detokenize": {"tokens": [40, 41]},
}
LARGE = 100 << 20
IDLE = 2000
PATIENCE = 3.0  # seconds that the server gives a client

BROKEN = {
    "nothing": b"",
    "half": b'{"messages": [',
    "a list": b"[1, 2, 3]",
    "no value": b"NaN",
    "not UTF-8": b'{"prompt": "\xff\xfe"}',
    "deep list": b"[" * 100_000,
    "deep object": b'{"prompt": ' + b"[" * 50_000 + b"]" * 50_000 + b"}",
    "deep member": b'{"messages": ' + b'{"a":' * 5_000 + b"1" + b"}" * 5_000 + b"}",
}
MEMBERS = {  # changes that make a request one that cannot be answered
    "infinite": b'"temperature": 1e999',
    "not a number": b'"top_p": NaN',
    "lone surrogate": rb'"user": "\ud800"',
    "lone surrogate as a key": rb'"\udfff": 1',
    "NUL": rb'"user": "a\u0000b"',
    "huge integer": b'"seed": ' + b"9" * 5_000,
    "large count": b'"n": 18446744073709551616',
    "negative count": b'"max_tokens": -1, "n": -1, "dimensions": -1',
    "key twice": b'"model": null, "model": null',
    "unknown field": b'"banana": 1',
    "unknown model": b'"model": "nobody"',
    "deep schema": b'"tools": ' + b'{"a":' * 500 + b"1" + b"}" * 500,
}


@pytest.fixture(scope="module")
def server() -> Iterator[Server]:
    with served("--stub", str(places.HERE / "stub.json"), "--client-timeout", str(PATIENCE)) as started:
        yield started


def is_refusal(answer: httpx.Response) -> bool:
    error = answer.json()["error"]
    return 400 <= answer.status_code < 500 and set(error) >= {"message", "type", "param", "code"} and error["message"]


def is_served(server: Server) -> bool:
    """True if an ordinary question gets an answer at once."""
    path = "/v1/chat/completions"
    return httpx.post(server.url + path, json=ORDINARY[path], timeout=10).status_code == 200


@contextlib.contextmanager
def connected(server: Server) -> Iterator[socket.socket]:
    place = urlsplit(server.url)
    with socket.create_connection((place.hostname, place.port), timeout=30) as connection:
        yield connection


@pytest.mark.suites
@pytest.mark.clause("SUITE-07")
@pytest.mark.parametrize("path", ORDINARY)
def test_hostile_bodies_are_refused(server: Server, path: str) -> None:
    members = {
        name: json.dumps(ORDINARY[path])[:-1].encode() + b", " + member + b"}" for name, member in MEMBERS.items()
    }
    for name, body in {**BROKEN, **members}.items():
        answer = httpx.post(server.url + path, content=body, headers={"content-type": "application/json"}, timeout=30)
        assert is_refusal(answer), f"{name}: {answer.status_code} {answer.text[:300]}"
    assert httpx.post(server.url + path, json=ORDINARY[path], timeout=30).status_code == 200


@pytest.mark.suites
@pytest.mark.clause("SUITE-07")
@pytest.mark.parametrize("wrong", [None, True, 17, -0.5, "text", [], [None], {}, {"a": {"b": 1}}, [[1]], "9" * 1000])
def test_wrong_types_are_refused(server: Server, wrong: object) -> None:
    """Each field gets a value of a type that it may not have. For an optional field null means that it is absent."""
    for path, ordinary in ORDINARY.items():
        for field in {*ordinary, "stop", "temperature", "tools", "logit_bias", "stream", "response_format"}:
            answer = httpx.post(server.url + path, json={**ordinary, field: wrong}, timeout=30)
            assert answer.status_code == 200 or is_refusal(answer), f"{path} {field}: {answer.text[:300]}"


@pytest.mark.suites
@pytest.mark.clause("SUITE-07")
@pytest.mark.parametrize("declared", [True, False], ids=["with a length", "in chunks"])
def test_a_huge_body_is_refused_before_it_has_come(server: Server, declared: bool) -> None:
    before = server.resident_bytes()
    length = b"Content-Length: %d" % LARGE if declared else b"Transfer-Encoding: chunked"
    piece = b"a" * 65536
    with connected(server) as connection:
        connection.sendall(b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\n" + length + b"\r\n\r\n")
        with contextlib.suppress(ConnectionError):  # the server has closed
            for _ in range(LARGE // len(piece)):
                connection.sendall(piece if declared else b"%x\r\n%s\r\n" % (len(piece), piece))
        answer = connection.recv(65536) if declared else b""
    assert not answer or b" 413 " in answer.partition(b"\r\n")[0]
    assert is_served(server)
    assert server.resident_bytes() - before < 80 << 20


@pytest.mark.suites
@pytest.mark.clause("SUITE-07")
@pytest.mark.parametrize("slow_part", ["head", "body"])
def test_a_slow_client_is_given_up(server: Server, slow_part: str) -> None:
    body = json.dumps({"messages": MESSAGES}).encode()
    head = b"POST /v1/chat/completions HTTP/1.1\r\nHost: localhost\r\nContent-Length: %d\r\n\r\n" % len(body)
    with connected(server) as connection:
        begun, sent = time.monotonic(), head + body if slow_part == "head" else body
        if slow_part == "body":
            connection.sendall(head)
        connection.settimeout(1.0)
        answer = b""
        for byte in sent:
            try:
                connection.sendall(bytes([byte]))
                answer = connection.recv(65536)  # waits for a second, or until the server has had enough
                break
            except TimeoutError:
                assert is_served(server)
            except ConnectionError:
                break
    assert time.monotonic() - begun < PATIENCE + 7
    assert not answer or b" 408 " in answer.partition(b"\r\n")[0]


@pytest.mark.suites
@pytest.mark.clause("SUITE-07")
def test_two_thousand_idle_connections_do_not_stop_a_request(server: Server) -> None:
    with contextlib.ExitStack() as stack:
        for _ in range(IDLE):
            stack.enter_context(connected(server))
        begun = time.monotonic()
        assert is_served(server)
        assert time.monotonic() - begun < 5
    assert is_served(server)


@pytest.mark.suites
@pytest.mark.clause("SUITE-07")
def test_no_other_client_holds_up_a_stream(server: Server) -> None:
    """While the server reads bodies that take long, the stream of another client still gets tokens."""
    stop = threading.Event()

    def strain() -> None:
        body = b'{"messages": [' + b",".join([b'{"role": "user", "content": "x"}'] * 200_000) + b"]}"
        while not stop.is_set():
            httpx.post(f"{server.url}/v1/chat/completions", content=body, timeout=60)

    noisy = threading.Thread(target=strain)
    noisy.start()
    try:
        asked = {"messages": MESSAGES, "max_tokens": 40, "stream": True}
        gaps, last = [], time.monotonic()
        with httpx.stream("POST", f"{server.url}/v1/chat/completions", json=asked, timeout=60) as answer:
            for _ in answer.iter_lines():
                gaps.append(time.monotonic() - last)
                last = time.monotonic()
        assert max(gaps) < 5
    finally:
        stop.set()
        noisy.join()

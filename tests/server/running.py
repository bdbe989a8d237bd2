"""A server with a scripted model: called as an application in the test's thread, or listening in another thread."""

from __future__ import annotations

import asyncio
import json
import socket
import threading
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import httpx
from fastapi import FastAPI

from ferrum.api.service import Service
from ferrum.api.stub import read_script, stub
from ferrum.server.app import make_app
from ferrum.server.run import DrainingServer, Terms, configured
from ferrum.server.settings import ServerSettings
from ferrum.server.sockets import bind

SCRIPT = {"answers": [{"when": "count", "say": "one two three four five"}], "default": "Hello!"}
CHAT = {"messages": [{"role": "user", "content": "hi"}]}


@contextmanager
def scripted(script: Mapping[str, Any] = SCRIPT, **more: Any) -> Iterator[Service]:
    """A service whose model follows the script."""
    service = Service(stub(read_script(script), **more))
    try:
        yield service
    finally:
        service.close()


@contextmanager
def application(script: Mapping[str, Any] = SCRIPT, **settings: Any) -> Iterator[FastAPI]:
    with scripted(script) as service:
        yield make_app(service, ServerSettings(**settings))


def ask(app: FastAPI, method: str, path: str, **more: Any) -> httpx.Response:
    """One request, without a socket."""

    async def asked() -> httpx.Response:
        transport = httpx.ASGITransport(app)
        async with httpx.AsyncClient(transport=transport, base_url="http://localhost:8000") as client:
            return await client.request(method, path, **more)

    return asyncio.run(asked())


def is_error(response: httpx.Response, status: int) -> dict[str, Any]:
    """Checks that the response has this status and an error in OpenAI's form. Returns the error."""
    assert response.status_code == status, response.text[:300]
    assert response.headers["content-type"] == "application/json"
    assert response.json().keys() == {"error"}
    error = response.json()["error"]
    assert error.keys() == {"message", "type", "param", "code"}
    assert isinstance(error["message"], str) and error["message"]
    assert isinstance(error["type"], str) and error["type"]
    return dict(error)


@dataclass
class Running:
    """A server that listens."""

    port: int
    server: DrainingServer
    service: Service
    thread: threading.Thread

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}"

    def connect(self, timeout_s: float = 20) -> socket.socket:
        return socket.create_connection(("127.0.0.1", self.port), timeout_s)


@contextmanager
def running(
    script: Mapping[str, Any] = SCRIPT, terms: Terms | None = None, drain_s: float = 5, **settings: Any
) -> Iterator[Running]:
    """A server that listens as long as the block runs."""
    with scripted(script) as service:
        sockets, ready = bind("127.0.0.1", 0), threading.Event()
        app = make_app(service, ServerSettings(**settings))
        server = DrainingServer(configured(app, terms or Terms()), service, drain_s, ready.set)
        thread = threading.Thread(target=server.run, kwargs={"sockets": sockets})
        thread.start()
        try:
            assert ready.wait(60)
            yield Running(sockets[0].getsockname()[1], server, service, thread)
        finally:
            server.cut()
            thread.join()


def post(body: bytes | Mapping[str, Any], path: str = "/v1/chat/completions", more: str = "") -> bytes:
    """A request as it goes over a socket."""
    raw = body if isinstance(body, bytes) else json.dumps(body).encode()
    head = f"POST {path} HTTP/1.1\r\nHost: localhost\r\nContent-Length: {len(raw)}\r\n{more}\r\n"
    return head.encode() + raw


def read_all(connection: socket.socket) -> bytes:
    """All bytes until the other side closes the connection."""
    found = b""
    while part := connection.recv(65536):
        found += part
    return found

"""A real HTTP server on this machine that answers with the bytes it was given, piece by piece."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

CUT = None
"""A piece of a stream at which the server closes the connection without the end of the stream."""


@dataclass(frozen=True)
class Reply:
    """The answer to one request. The pieces of a stream are sent one by one, `pause` seconds apart."""

    pieces: Sequence[bytes | None] = ()
    status: int = 200
    kind: str = "text/event-stream"
    pause: float = 0.0


@dataclass
class Scripted:
    """The server's address, and what it was asked: (path, headers, body)."""

    url: str
    asked: list[tuple[str, dict[str, str], Any]] = field(default_factory=list)

    @property
    def bodies(self) -> list[Any]:
        return [body for path, _, body in self.asked if not path.endswith("/models")]


def event(value: Any, end: str = "\n\n") -> bytes:
    return f"data: {json.dumps(value, ensure_ascii=False)}{end}".encode()


def delta(**fields: Any) -> bytes:
    return event({"choices": [{"index": 0, "delta": fields, "finish_reason": None}]})


ROLE = delta(role="assistant", content="")
STOP = event({"choices": [{"index": 0, "delta": {}, "finish_reason": "stop"}]})
DONE = b"data: [DONE]\n\n"


def usage(prompt: int, output: int) -> bytes:
    return event({"choices": [], "usage": {"prompt_tokens": prompt, "completion_tokens": output}})


def error(status: int, message: str) -> Reply:
    return Reply([json.dumps({"error": {"message": message}}).encode()], status, "application/json")


MODELS = Reply(
    [json.dumps({"object": "list", "data": [{"id": "first"}, {"id": "second"}]}).encode()], 200, "application/json"
)
ANSWER = Reply([ROLE, delta(content="Hello"), delta(content=" there"), STOP, usage(7, 5), DONE])

Answering = Callable[[int, Any], Reply]
"""From the number of a request and its body to its answer."""


@contextmanager
def serving(answering: Answering | Reply = ANSWER, models: Reply = MODELS) -> Iterator[Scripted]:
    """A server while the block runs, on a port of its own."""
    lock = threading.Lock()

    class Handler(BaseHTTPRequestHandler):
        protocol_version = "HTTP/1.1"
        disable_nagle_algorithm = True

        def do_GET(self) -> None:
            self._note(None)
            self._send(models)

        def do_POST(self) -> None:
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            with lock:
                number = len(server.bodies)
                self._note(body)
            self._send(answering if isinstance(answering, Reply) else answering(number, body))

        def _note(self, body: Any) -> None:
            server.asked.append((self.path, dict(self.headers), body))

        def _send(self, reply: Reply) -> None:
            try:
                self._write(reply)
            except ConnectionError:  # the client has gone, as it should in some tests
                self.close_connection = True

        def _write(self, reply: Reply) -> None:
            self.send_response(reply.status)
            self.send_header("Content-Type", reply.kind)
            self.send_header("Transfer-Encoding", "chunked")
            self.end_headers()
            for piece in reply.pieces:
                if piece is CUT:
                    self.close_connection = True
                    return
                self.wfile.write(b"%x\r\n%b\r\n" % (len(piece), piece))
                time.sleep(reply.pause)
            self.wfile.write(b"0\r\n\r\n")

        def log_message(self, *_: object) -> None:
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    listener.daemon_threads = True
    listener.block_on_close = False
    server = Scripted(f"http://127.0.0.1:{listener.server_address[1]}")
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01}, daemon=True)
    thread.start()
    try:
        yield server
    finally:
        listener.shutdown()
        listener.server_close()
        thread.join()

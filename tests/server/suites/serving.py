"""`ferrum-ref serve` as another process: started on a free port, waited for, and ended."""

from __future__ import annotations

import contextlib
import re
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass, field

from tests.processes import end_with_the_tests

READY = re.compile(r"listening on (http://\S+)")


@dataclass
class Server:
    """A running server: its address, its process, and its output so far."""

    process: subprocess.Popen[str]
    said: list[str] = field(default_factory=list)
    ready: threading.Event = field(default_factory=threading.Event)
    url: str = ""

    def listen(self) -> None:
        """Reads the output of the server until it ends. Runs on a thread: a full pipe would stop the server."""
        assert self.process.stderr is not None
        for line in self.process.stderr:
            self.said.append(line)
            if found := READY.search(line):
                self.url = found[1].rstrip("/")
                self.ready.set()
        self.ready.set()

    def wait_until_ready(self, seconds: float) -> None:
        self.ready.wait(seconds)
        if not self.url:
            raise RuntimeError("the server does not listen:\n" + "".join(self.said))

    def resident_bytes(self) -> int:
        """The memory that the process holds."""
        with open(f"/proc/{self.process.pid}/statm", encoding="ascii") as file:
            return int(file.read().split()[1]) * 4096

    def end(self) -> int:
        """Ends the server with SIGTERM, or kills it after 10 s. Returns its exit status."""
        self.process.terminate()
        try:
            return self.process.wait(10)
        except subprocess.TimeoutExpired:
            self.process.kill()
            return self.process.wait()


@contextlib.contextmanager
def served(*flags: str, seconds: float = 120) -> Iterator[Server]:
    """A server with these flags, for as long as the block lasts."""
    command = [sys.executable, "-m", "ferrum", "serve", "--host", "127.0.0.1", "--port", "0", *flags]
    process = subprocess.Popen(
        command, stderr=subprocess.PIPE, stdin=subprocess.DEVNULL, text=True, preexec_fn=end_with_the_tests
    )
    server = Server(process)
    threading.Thread(target=server.listen, daemon=True).start()
    try:
        server.wait_until_ready(seconds)
        yield server
    finally:
        server.end()

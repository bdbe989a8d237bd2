"""A program in a pseudo-terminal, and a user who reads and types there."""

from __future__ import annotations

import fcntl
import os
import pty
import select
import subprocess
import termios
import time
from collections.abc import Mapping
from types import TracebackType

from tests.processes import end_with_the_tests

PATIENCE = 240.0
"""Seconds to wait for an event that must happen, so many that a busy machine is fast enough."""
CTRL_C, CTRL_D, CTRL_P = "\x03", "\x04", "\x10"


def _own_the_terminal() -> None:
    """In the new process: the terminal on its standard input sends it signals; otherwise ^C would be a character."""
    fcntl.ioctl(0, termios.TIOCSCTTY, 0)
    end_with_the_tests()


class Terminal:
    """Runs a command in a pseudo-terminal, where Ctrl-C is a signal and lines can be edited."""

    def __init__(self, command: list[str], environment: Mapping[str, str], kind: str | None = "dumb") -> None:
        """`kind`: the value of TERM. With "dumb" programs write no escape sequences between words."""
        without_kind = {name: value for name, value in environment.items() if name != "TERM"}
        self._master, slave = pty.openpty()
        self._process = subprocess.Popen(
            command, stdin=slave, stdout=slave, stderr=slave, start_new_session=True,
            preexec_fn=_own_the_terminal,
            env={**environment, "TERM": kind} if kind is not None else without_kind,
        )  # fmt: skip
        os.close(slave)
        self._unread = b""
        self.screen = ""
        """Everything that was read so far."""

    def type(self, text: str) -> None:
        """Types these keys. A line ends with Return."""
        os.write(self._master, text.replace("\n", "\r").encode())

    def interrupt(self, text: str) -> str:
        """Presses Ctrl-C at a prompt and waits for the text, as `expect` does. Python does not see a Ctrl-C in the
        microseconds between two reads of the keyboard until the next one, so Ctrl-C is pressed again."""
        deadline = time.monotonic() + PATIENCE
        while True:
            self.type(CTRL_C)
            try:
                return self.expect(text, patience=1)
            except AssertionError:
                if time.monotonic() > deadline:
                    raise

    def expect(self, text: str, patience: float = PATIENCE) -> str:
        """Waits until the text appears. Returns the output since the last text that was waited for, with this text."""
        wanted, deadline = text.encode(), time.monotonic() + patience
        while wanted not in self._unread:
            if not self._read(deadline):
                raise AssertionError(f"{text!r} did not come, but {self._unread.decode(errors='replace')!r}")
        end = self._unread.index(wanted) + len(wanted)
        found, self._unread = self._unread[:end], self._unread[end:]
        return self._keep(found)

    def expect_more(self, count: int) -> None:
        """Waits for `count` bytes of any content."""
        deadline = time.monotonic() + PATIENCE
        while len(self._unread) < count:
            if not self._read(deadline):
                raise AssertionError(f"{count} bytes did not come, but {self._unread!r}")

    def end(self) -> tuple[int, str]:
        """Waits until the program ends. Returns its exit code, and the output since the last text that was waited
        for."""
        deadline = time.monotonic() + PATIENCE
        while self._read(deadline):
            pass
        rest, self._unread = self._unread, b""
        return self._process.wait(max(deadline - time.monotonic(), 1)), self._keep(rest)

    def __enter__(self) -> Terminal:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self._process.kill()
        self._process.wait()
        os.close(self._master)

    def _read(self, deadline: float) -> bool:
        """Waits for output. True if some came before the program ended and before the deadline."""
        if not select.select([self._master], [], [], max(deadline - time.monotonic(), 0))[0]:
            return False
        try:
            more = os.read(self._master, 65536)
        except OSError:  # on Linux: no process has the terminal open any more
            return False
        self._unread += more
        return bool(more)

    def _keep(self, content: bytes) -> str:
        text = content.decode(errors="replace").replace("\r\n", "\n")
        self.screen += text
        return text

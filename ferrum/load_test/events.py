"""Server-sent events in a stream of bytes.

Owns: where an event begins and ends, however its bytes arrive: any ends of lines, pieces that end inside of a
character, comments that keep a connection alive. Lines end at line feeds and carriage returns only; JSON may hold the
other characters that Python's `splitlines` cuts at. Refuses to know: what the data of an event means.
Source: the HTML standard, "Server-sent events", 9.2.6.
Specs: BENCH-10. Next: `ferrum.load_test.answer`.
"""

from __future__ import annotations

from collections.abc import Iterator


class Events:
    """Takes bytes and gives the data of each event that they complete."""

    def __init__(self) -> None:
        self._line = b""
        self._data: list[bytes] = []
        self._after_return = False

    def take(self, piece: bytes) -> list[bytes]:
        """The next bytes -> the data of the events that are complete with them."""
        if not piece:
            return []
        if self._after_return:
            piece = piece.removeprefix(b"\n")  # the second half of "\r\n": the line has ended already
        self._after_return = piece.endswith(b"\r")
        *lines, self._line = (self._line + piece).replace(b"\r\n", b"\n").replace(b"\r", b"\n").split(b"\n")
        return [data for line in lines for data in self._read(line)]

    def end(self) -> list[bytes]:
        """The stream is over -> the data of an event that nothing has ended: some servers forget the empty line."""
        return [data for line in (self._line, b"") for data in self._read(line)]

    def _read(self, line: bytes) -> Iterator[bytes]:
        if not line and self._data:
            yield b"\n".join(self._data)
            self._data = []
        name, _, value = line.partition(b":")
        if name == b"data":  # a comment has no name; `event`, `id` and `retry` say nothing here
            self._data.append(value.removeprefix(b" "))

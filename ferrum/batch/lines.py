"""The lines of a file of any size.

Owns: where a line begins and ends, which lines are blank, and the largest length. Refuses to know: the content of a
line. Specs: BATCH-01, BATCH-02. Source: https://jsonlines.org. Next: `ferrum.batch.request_line`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from itertools import count
from typing import BinaryIO

MOST_BYTES = 32 << 20
"""Of a line: as much as a server takes in one request. A longer line is not kept in memory."""
BYTE_ORDER_MARK = b"\xef\xbb\xbf"
_BLANK = b" \t\r\n"


@dataclass(frozen=True)
class RawLine:
    """A line without its end. `number` counts from 1, blank lines included, as editors do; `cut`: it was longer than
    MOST_BYTES, and the rest is not here."""

    number: int
    content: bytes
    cut: bool = False


def raw_lines(file: BinaryIO) -> Iterator[RawLine]:
    """The lines that are not blank, read as they are asked for."""
    for number in count(1):
        content = file.readline(MOST_BYTES + 1)
        if not content:
            return
        cut = len(content) > MOST_BYTES and not content.endswith(b"\n")
        if cut:
            _pass_over(file)
        # concatenated files have byte order marks in the middle
        content = content.removeprefix(BYTE_ORDER_MARK).strip(_BLANK)
        if content:
            yield RawLine(number, content, cut)


def _pass_over(file: BinaryIO) -> None:
    while (rest := file.readline(MOST_BYTES)) and not rest.endswith(b"\n"):
        pass

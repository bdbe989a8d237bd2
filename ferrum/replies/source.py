"""The text of an answer, which comes bit by bit and is read once.

Owns: how far it is read; waiting, where what has come does not yet tell; what a reader has taken since a place that it
marked. A reader is a generator: it yields where it needs more text, and so reads as if all were there. Nothing is read
twice, so that the work grows with the text and not with the number of its bits.
Refuses to know: formats. Specs: REPLY-02, REPLY-03. Next: `ferrum.replies.parts`.
"""

from __future__ import annotations

import re
from collections.abc import Generator
from functools import cache
from typing import TypeAlias, TypeVar

T = TypeVar("T")
Steps: TypeAlias = Generator[None, None, T]
"""A reader that yields for more text, and in the end returns a T."""
SPACE = " \t\r\n"
"""White space, as JSON has it."""
_SPACE = re.compile(f"[{SPACE}]*")


class Source:
    """An answer. Methods that give `Steps` wait until they know; the others look only at what has come."""

    def __init__(self) -> None:
        self._text = ""
        self._at = 0
        self._taken: list[str] | None = None
        self.ended = False

    def feed(self, text: str) -> None:
        self._text = self._text[self._at :] + text
        self._at = 0

    def end(self) -> None:
        self.ended = True

    def mark(self, before: str = "") -> None:
        """From here on, what is taken is remembered, for `since_mark`. `before` was taken already."""
        self._taken = [before]

    def since_mark(self) -> str:
        """What was taken since the mark, which is gone then."""
        taken, self._taken = self._taken or [], None
        return "".join(taken)

    def take(self, count: int) -> str:
        taken = self._text[self._at : self._at + count]
        self._at += len(taken)
        if self._taken is not None:
            self._taken.append(taken)
        return taken

    def run(self, pattern: re.Pattern[str]) -> str:
        """Takes what matches here."""
        found = pattern.match(self._text, self._at)
        return self.take(found.end() - self._at) if found else ""

    def before(self, marks: tuple[str, ...]) -> tuple[str, str | None]:
        """Takes what certainly stands before the first of these marks, and the mark itself where it has come."""
        if not marks:
            return self.take(len(self._text)), None
        found = _any_of(marks).search(self._text, self._at)
        if found is None:
            return self.take(self._certain(marks)), None
        text = self.take(found.start() - self._at)
        return text, self.take(len(found[0]))

    def _certain(self, marks: tuple[str, ...]) -> int:
        """How many characters are left before one with which a mark may begin."""
        text, end = self._text, len(self._text)
        if not self.ended:
            longest = max(map(len, marks))
            for start in range(max(self._at, end - longest + 1), end):
                if any(mark.startswith(text[start:]) for mark in marks):
                    return start - self._at
        return end - self._at

    def peek(self) -> Steps[str]:
        """The next character, which is not taken; empty at the end."""
        while self._at == len(self._text) and not self.ended:
            yield
        return self._text[self._at : self._at + 1]

    def all_of(self, pattern: re.Pattern[str]) -> Steps[str]:
        """Takes all that matches; a pattern must go on matching with each character that belongs to it."""
        pieces = []
        while True:
            pieces.append(self.run(pattern))
            if self._at < len(self._text) or self.ended:
                return "".join(pieces)
            yield

    def space(self) -> Steps[str]:
        """Takes white space."""
        return (yield from self.all_of(_SPACE))

    def one_of(self, *marks: str) -> Steps[str | None]:
        """Takes the one of these marks that comes next, None where none does."""
        mark = yield from self.comes(*marks)
        return mark and self.take(len(mark))

    def closing(self, *marks: str) -> Steps[None]:
        """Takes white space and one of these marks, or as much of one as came before the answer ended."""
        yield from self.space()
        if not (yield from self.one_of(*marks)) and self.ended:
            left = self._text[self._at : self._at + max(map(len, marks))]
            if any(mark.startswith(left) for mark in marks):
                self.take(len(left))

    def comes(self, *marks: str) -> Steps[str | None]:
        """The one of these marks that comes next, which is not taken; None where none does. Where one begins with
        another, the longer is given first."""
        while True:
            for mark in marks:
                left = self._text[self._at : self._at + len(mark)]
                if left == mark:
                    return mark
                if not self.ended and mark.startswith(left):
                    break  # it may still come
            else:
                return None
            yield


@cache
def _any_of(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks)))

"""The text of an answer, which comes in pieces and is read once.

Owns: the position of the reader, the wait for more text, and the text since a mark. A reader is a generator: it yields
where it needs more text, and so is written as if the whole text were there. Nothing is read twice: the work grows with
the text and not with the number of its pieces. Refuses to know: formats.
Specs: REPLY-02, REPLY-03. Next: `ferrum.replies.parts`.
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
"""White space, as JSON defines it."""
_SPACE = re.compile(f"[{SPACE}]*")


class Source:
    """The text of an answer. Methods that return `Steps` wait for text; the others look only at the text that has
    come."""

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
        """From here on, text that is taken is remembered for `since_mark`, after the text `before`."""
        self._taken = [before]

    def since_mark(self) -> str:
        """The text taken since the mark; removes the mark."""
        taken, self._taken = self._taken or [], None
        return "".join(taken)

    def take(self, count: int) -> str:
        taken = self._text[self._at : self._at + count]
        self._at += len(taken)
        if self._taken is not None:
            self._taken.append(taken)
        return taken

    def run(self, pattern: re.Pattern[str]) -> str:
        """Takes the text that matches here."""
        found = pattern.match(self._text, self._at)
        return self.take(found.end() - self._at) if found else ""

    def before(self, marks: tuple[str, ...]) -> tuple[str, str | None]:
        """Takes the text that certainly stands before the first of these marks, and the mark itself if it has come."""
        if not marks:
            return self.take(len(self._text)), None
        found = _any_of(marks).search(self._text, self._at)
        if found is None:
            return self.take(self._certain(marks)), None
        text = self.take(found.start() - self._at)
        return text, self.take(len(found[0]))

    def _certain(self, marks: tuple[str, ...]) -> int:
        """The number of characters before the first one with which a mark may begin."""
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
        """Takes all text that matches. Each prefix of a match must match the pattern, too."""
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
        """Takes the one of these marks that comes next; None if none does."""
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
        """The one of these marks that comes next, which is not taken; None if none does. If one mark begins with
        another, the longer must be given first."""
        while True:
            for mark in marks:
                left = self._text[self._at : self._at + len(mark)]
                if left == mark:
                    return mark
                if not self.ended and mark.startswith(left):
                    break  # the mark may still come
            else:
                return None
            yield


@cache
def _any_of(marks: tuple[str, ...]) -> re.Pattern[str]:
    return re.compile("|".join(map(re.escape, marks)))

"""A parser made from a reader: text is pushed in, parts come out.

Owns: `StreamParser`, and reading content up to a tag. Refuses to know: formats.
Specs: REPLY-01, REPLY-02. Next: `ferrum.replies.json_text`.
"""

from __future__ import annotations

from collections.abc import Callable

from ferrum.replies.parts import Parts
from ferrum.replies.reply import Content, Part
from ferrum.replies.source import Source, Steps


class StreamParser:
    """Parses one answer with a reader, which runs as far as the text goes."""

    def __init__(self, read: Callable[[Source, Parts], Steps[None]]) -> None:
        self._source = Source()
        self._parts = Parts()
        self._reader = read(self._source, self._parts)

    def push(self, text: str) -> list[Part]:
        self._source.feed(text)
        next(self._reader, None)
        return self._parts.fetched()

    def finish(self, *, cut: bool = False) -> list[Part]:
        if not cut:  # else the reader stays where it waits for more text
            self._source.end()
            next(self._reader, None)
        self._parts.end()
        return self._parts.fetched()


class PlainParser:
    """Everything is content."""

    def push(self, text: str) -> list[Part]:
        return [Content(text)] if text else []

    def finish(self, *, cut: bool = False) -> list[Part]:
        return []


def read_content(source: Source, parts: Parts, marks: tuple[str, ...], dropped: tuple[str, ...]) -> Steps[str | None]:
    """Reads content up to one of the marks and returns the mark, None at the end. Tags among `dropped` are not
    content."""
    both = marks + dropped
    while True:
        text, mark = source.before(both)
        parts.content(text)
        if mark in dropped:
            parts.tag()
        elif mark is not None:
            return mark
        elif source.ended:
            return None
        else:
            yield

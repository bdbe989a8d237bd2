"""Calls of Llama 3: a bare JSON object at the beginning of the answer, or after `<|python_tag|>`.

Owns: where such an object may stand. Only its two keys distinguish it from an answer in JSON. Refuses to know: calls
that are code.
Specs: REPLY-09. Source: the chat templates of Llama 3.1 to 3.3. Next: `ferrum.replies.harmony`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.replies.calls import CallText, Keys, read_call
from ferrum.replies.parser import read_content
from ferrum.replies.parts import Parts
from ferrum.replies.source import Source, Steps

PYTHON_TAG = "<|python_tag|>"
_WRITTEN = CallText("", '{"name": "', '", "parameters": ', "}", "; ", "")
_KEYS = Keys(bare=True)


@dataclass(frozen=True)
class Llama3:
    """Several calls are separated by semicolons."""

    name: str = "llama3"
    marks: tuple[str, ...] = (PYTHON_TAG,)
    written: CallText = _WRITTEN

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...]) -> Steps[None]:
        source.mark()
        yield from source.space()
        mark: str | None = ""
        while mark is not None:
            if not mark:
                yield from source.one_of(PYTHON_TAG)
            yield from self._read_calls(source, parts)
            mark = yield from read_content(source, parts, (PYTHON_TAG,), dropped)
            source.mark(mark or "")

    def _read_calls(self, source: Source, parts: Parts) -> Steps[None]:
        """Reads calls from a mark on; anything else is content."""
        while True:
            yield from source.space()
            if (yield from source.peek()) != "{" or not (yield from read_call(source, parts, _KEYS, ())):
                parts.content(source.since_mark())
                return
            yield from source.space()
            yield from source.one_of(";")
            source.mark()

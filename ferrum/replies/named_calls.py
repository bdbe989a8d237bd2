"""Calls whose name stands outside of the JSON: `[TOOL_CALLS]name[ARGS]{…}` and `<function=name>{…}</function>`.

Owns: Mistral's second format, whose parser also reads the first, and functionary's tags. Refuses to know: reasoning.
Specs: REPLY-08. Source: the chat templates of Mistral Small 3.2, Devstral, Ministral 3 and functionary 3.1.
Next: `ferrum.replies.llama3`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass

from ferrum.replies.calls import CallText, read_arguments
from ferrum.replies.json_calls import MISTRAL_LIST
from ferrum.replies.parser import read_content
from ferrum.replies.parts import Parts
from ferrum.replies.source import Source, Steps

WORD = re.compile(r"[\w.:-]*")
"""A name or an id."""
_FUNCTIONARY = CallText("", "<function=", ">", "</function>", "", "")
_CALLS, _ID, _ARGUMENTS = "[TOOL_CALLS]", "[CALL_ID]", "[ARGS]"
_MISTRAL = CallText("", _CALLS, _ARGUMENTS, "", "", "")


@dataclass(frozen=True)
class Mistral:
    """An id may stand before the arguments; `[ARGS]` may be missing."""

    name: str = "mistral"
    marks: tuple[str, ...] = (_CALLS, _ID, _ARGUMENTS)
    written: CallText = _MISTRAL

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...]) -> Steps[None]:
        while mark := (yield from read_content(source, parts, (_CALLS,), dropped)):
            source.mark(mark)
            yield from source.space()
            name = yield from source.all_of(WORD)
            if not name:
                yield from MISTRAL_LIST.read_calls(source, parts)
                continue
            if (yield from source.one_of(_ID)):
                yield from source.all_of(WORD)
            yield from source.one_of(_ARGUMENTS)
            if not (yield from read_arguments(source, parts, name, ())):
                parts.content(source.since_mark())


@dataclass(frozen=True)
class Functionary:
    """The closing tag may be missing."""

    name: str = "functionary"
    marks: tuple[str, ...] = ("<function=", "</function>")
    written: CallText = _FUNCTIONARY

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...]) -> Steps[None]:
        opening, closing = self.marks
        while mark := (yield from read_content(source, parts, (opening,), dropped)):
            source.mark(mark)
            name = yield from source.all_of(WORD)
            tagged = name and (yield from source.one_of(">"))
            if not tagged or not (yield from read_arguments(source, parts, name, (closing,))):
                parts.content(source.since_mark())
                continue
            yield from source.closing(closing)

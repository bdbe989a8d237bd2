"""JSON values in an answer: where one ends, and what a call's arguments are.

Owns: strings, brackets and plain words, told apart and no more. Models write JSON with faults; what a call holds is
given as it was written, and whoever reads it finds the fault. Refuses to know: which keys a call has.
Specs: REPLY-05, REPLY-06. Source: RFC 8259. Next: `ferrum.replies.calls`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from functools import cache

from ferrum.replies.source import SPACE, Source, Steps

NO_ARGUMENTS = "{}"
_IN_STRING = re.compile(r'[^"\\]+')
_HALF_PAIR = re.compile("[\ud800-\udfff]")


def read_value(source: Source, say: Callable[[str], None], stops: tuple[str, ...]) -> Steps[bool]:
    """Reads one value and says it piece by piece; is it whole? One of the `stops` outside of a string ends what is not,
    and is not taken."""
    depth, begun = 0, False
    while True:
        character = yield from source.peek()
        if character == "" or (yield from _stops(source, stops)):
            return begun and depth == 0
        if character == '"':
            if not (yield from read_string(source, say)):
                return False
        elif character in "{[":
            depth += 1
            say(source.take(1))
        elif character in "}]" and depth:
            depth -= 1
            say(source.take(1))
        elif depth == 0 and character in "}]," + SPACE:
            return begun
        else:
            say(source.run(_plain(stops, depth == 0)) or source.take(1))
            begun = True
            continue  # a word has no end of its own
        if depth == 0:
            return True


def read_string(source: Source, say: Callable[[str], None]) -> Steps[bool]:
    """Reads a string with its quotes and says it piece by piece; is it whole?"""
    say(source.take(1))
    while True:
        character = yield from source.peek()
        if character == "":
            return False
        if character == '"':
            say(source.take(1))
            return True
        if character == "\\":
            say(source.take(1))
            yield from source.peek()
            say(source.take(1))
        else:
            say(source.run(_IN_STRING))


def _stops(source: Source, stops: tuple[str, ...]) -> Steps[bool]:
    return (yield from source.comes(*stops)) is not None


@cache
def _plain(stops: tuple[str, ...], outside: bool) -> re.Pattern[str]:
    """Characters of which none ends a value or begins a stop; `outside`: of all brackets."""
    ends = '"{}[]' + "".join(stop[0] for stop in stops) + (f",{SPACE}" if outside else "")
    return re.compile(f"[^{re.escape(ends)}]+")


def string_of(text: str) -> str | None:
    """What a JSON string says; None where it is none, or says what is no text."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) and not _HALF_PAIR.search(value) else None


def arguments_of(text: str) -> str:
    """The JSON text of arguments that a model wrote as some value: nothing and null are no arguments, and a string may
    hold the object."""
    if text.strip(SPACE) in ("", "null", '""'):
        return NO_ARGUMENTS
    if not text.startswith('"'):
        return text
    try:
        inner = json.loads(text)
    except ValueError:
        return text
    inner = inner.strip(SPACE)
    if not inner.startswith("{"):
        return text
    return _HALF_PAIR.sub(lambda half: f"\\u{ord(half[0]):04x}", inner)

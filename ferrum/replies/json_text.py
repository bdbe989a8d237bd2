"""JSON values in an answer: where one ends, and what the arguments of a call are.

Owns: telling strings, brackets and plain words apart, and no more. Models write JSON with mistakes: the text of a call
is passed on as it was written, and its reader finds the mistake. Refuses to know: which keys a call has.
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
    """Reads one value and passes it to `say` in pieces; True if it is complete. One of the `stops` outside of a string
    ends an incomplete value, and is not taken."""
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
            continue  # a word has no closing character
        if depth == 0:
            return True


def read_string(source: Source, say: Callable[[str], None]) -> Steps[bool]:
    """Reads a string with its quotes and passes it to `say` in pieces; True if it is complete."""
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
    """Characters that neither end a value nor begin a stop; `outside`: outside of all brackets."""
    ends = '"{}[]' + "".join(stop[0] for stop in stops) + (f",{SPACE}" if outside else "")
    return re.compile(f"[^{re.escape(ends)}]+")


def string_of(text: str) -> str | None:
    """The text of a JSON string; None if it is not a valid string, or its text cannot be encoded."""
    try:
        value = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return value if isinstance(value, str) and not _HALF_PAIR.search(value) else None


def arguments_of(text: str) -> str:
    """The JSON text of the arguments that a model wrote as some value: nothing and null become {}, and a string may
    contain the object."""
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

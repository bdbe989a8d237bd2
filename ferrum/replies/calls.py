"""A call as JSON: an object that names a function and its arguments.

Owns: `read_call`, and the protocol of a tool format. Refuses to know: which tags stand around a call.
Specs: REPLY-05 to REPLY-07. Next: `ferrum.replies.json_calls`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, Protocol

from ferrum.replies.json_text import NO_ARGUMENTS, arguments_of, read_string, read_value, string_of
from ferrum.replies.parts import Parts
from ferrum.replies.source import Source, Steps


@dataclass(frozen=True)
class Tool:
    """A function that a model may call. `parameters`: the JSON schema of its arguments."""

    name: str
    parameters: Mapping[str, Any]


@dataclass(frozen=True)
class CallText:
    """How a format writes calls: all texts except names and arguments."""

    begin: str
    """Before the first call."""
    before_name: str
    before_arguments: str
    after_arguments: str
    between: str
    """Between two calls."""
    end: str
    """After the last call."""


class ToolFormat(Protocol):
    """How a family of models writes tool calls."""

    @property
    def name(self) -> str: ...

    @property
    def marks(self) -> tuple[str, ...]:
        """Tags of the format. They may be special tokens of a model."""
        ...

    @property
    def written(self) -> CallText: ...

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...]) -> Steps[None]:
        """Reads the answer to its end. Tags among `dropped` are not content."""
        ...


@dataclass(frozen=True)
class Keys:
    """The names of a call's keys. `bare`: no tag distinguishes a call from other JSON, so a call has both keys, and
    before them no key but those of `_BESIDE`."""

    name: tuple[str, ...] = ('"name"',)
    arguments: tuple[str, ...] = ('"arguments"', '"parameters"')
    bare: bool = False

    def allows(self, key: str) -> bool:
        return not self.bare or key in self.name or key in self.arguments or key in _BESIDE


_BESIDE = ('"type"', '"id"')


def read_call(source: Source, parts: Parts, keys: Keys, stops: tuple[str, ...]) -> Steps[bool]:
    """Reads an object after its brace; True if it is a call. A call begins as soon as its name and the key of its
    arguments have come, and stays a call whatever follows."""
    source.take(1)
    name: str | None = None
    arguments: str | None = None
    begun = False
    while True:
        key = yield from _key(source)
        if key == "}" and name is not None and not begun and not (keys.bare and arguments is None):
            _begin(source, parts, name)
            parts.arguments(arguments or NO_ARGUMENTS)
            return True
        if key is None or key == "}" or not (begun or keys.allows(key)):
            return begun
        if key in keys.arguments and arguments is None and name is not None and not begun:
            begun = True
            _begin(source, parts, name)
            if not (yield from _read_object(source, parts, stops)):
                return True
            continue
        value: list[str] = []
        if not (yield from read_value(source, value.append, stops)):
            return begun
        if key in keys.name and name is None:
            name = string_of("".join(value))
            if not name:
                return False
        elif key in keys.arguments and arguments is None:
            arguments = arguments_of("".join(value))


def _begin(source: Source, parts: Parts, name: str) -> None:
    """From here on the object is a call: its text will not become content."""
    source.since_mark()
    parts.call(name)


def _key(source: Source) -> Steps[str | None]:
    """The next key, read up to its value; "}" at the end of the object, None if neither comes."""
    yield from source.space()
    if (yield from source.one_of(",")):
        yield from source.space()
    character = yield from source.peek()
    if character == "}":
        return source.take(1)
    if character != '"':
        return None
    key: list[str] = []
    if not (yield from read_string(source, key.append)):
        return None
    yield from source.space()
    if not (yield from source.one_of(":")):
        return None
    yield from source.space()
    return "".join(key)


def _read_object(source: Source, parts: Parts, stops: tuple[str, ...]) -> Steps[bool]:
    """Reads the value of a call that has begun; True if it is complete. An object is passed on as it comes."""
    first = yield from source.peek()
    if first == "{":
        return (yield from read_value(source, parts.arguments, stops))
    if not first:  # the answer ends before the arguments
        return False
    value: list[str] = []
    whole = yield from read_value(source, value.append, stops)
    parts.arguments(arguments_of("".join(value)))
    return whole


def read_arguments(source: Source, parts: Parts, name: str, stops: tuple[str, ...]) -> Steps[bool]:
    """Reads arguments that stand after the name of their function; True if it is a call. White space before them is
    skipped."""
    yield from source.space()
    if (yield from source.peek()) != "{":
        return False
    _begin(source, parts, name)
    yield from read_value(source, parts.arguments, stops)
    return True

"""Values of simple types as people write them in a line, and as JSON has them.

Owns: the ways of writing: `0.7`, `none`, `true`, `1,2`, `12=-5,7=1.5`, `"text with a \\n"`, `["one", "two"]`; which
one is meant is told by a type. Refuses to know: what the values are for.
Specs: CLI-62. Next: `ferrum.cli.chat_commands`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping
from contextlib import suppress
from typing import Any, Union, get_args, get_origin

NONE = "none"
_SWITCH = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}


def _parts(hint: Any) -> tuple[str, tuple[Any, ...]]:
    """What kind of type it is, and the types inside it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return "either", inner
    if origin is tuple and inner[1:] == (...,):
        return "list", inner[:1]
    if origin is Mapping:
        return "mapping", inner
    return "plain", (hint,)


def typable(hint: Any) -> bool:
    """Is there a way of writing for values of the type?"""
    kind, inner = _parts(hint)
    if kind == "plain":
        return hint in (bool, int, float, str, types.NoneType)
    return all(map(typable, inner))


def read(hint: Any, text: str) -> Any:
    """The value that the text stands for. Raises ValueError where it stands for none."""
    kind, inner = _parts(hint)
    if kind == "either":
        return _first(inner, lambda one: read(one, text))
    if kind == "list":
        return () if text == NONE else tuple(read(inner[0], item) for item in _items(inner[0], text))
    if kind == "mapping":
        return {} if text == NONE else dict(_pair(inner, item) for item in text.split(","))
    return _plain(hint, text)


def _pair(inner: tuple[Any, ...], text: str) -> tuple[Any, Any]:
    left, equals, right = text.partition("=")
    if not equals:
        raise ValueError(text)
    return read(inner[0], left.strip()), read(inner[1], right.strip())


def _plain(hint: Any, text: str) -> Any:
    if hint is types.NoneType and text == NONE:
        return None
    if hint is bool and text.lower() in _SWITCH:
        return _SWITCH[text.lower()]
    if hint in (int, float):
        return hint(text)
    if hint is str:
        value = json.loads(text) if text.startswith('"') else text
        if isinstance(value, str):
            return value
    raise ValueError(text)


def _items(hint: Any, text: str) -> list[str]:
    """The parts of a list. Texts may hold commas: they are one text, or a list in JSON."""
    if hint is not str:
        return [item.strip() for item in text.split(",")]
    if not text.startswith("["):
        return [text]
    items = json.loads(text)
    if not all(isinstance(item, str) for item in items):
        raise ValueError(text)
    return [json.dumps(item) for item in items]


def write(value: Any) -> str:
    """The inverse of `read`."""
    if value is None or value == () or value == {}:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return ",".join(f"{write(key)}={write(number)}" for key, number in value.items())
    if isinstance(value, tuple):
        if isinstance(value[0], str):
            return json.dumps(value, ensure_ascii=False)
        return ",".join(map(write, value))
    return str(value)


def from_json(hint: Any, value: Any) -> Any:
    """A value of the type from what JSON makes of it. Raises ValueError for another type."""
    kind, inner = _parts(hint)
    if kind == "either":
        return _first(inner, lambda one: from_json(one, value))
    if kind == "list" and isinstance(value, list):
        return tuple(from_json(inner[0], item) for item in value)
    if kind == "mapping" and isinstance(value, dict):
        return {read(inner[0], key): from_json(inner[1], number) for key, number in value.items()}
    fits = kind == "plain" and isinstance(value, (int, float) if hint is float else hint)
    if fits and isinstance(value, bool) == (hint is bool):
        return value
    raise ValueError(value)


def to_json(value: Any) -> Any:
    """The inverse of `from_json`: keys of JSON are text."""
    return {write(key): number for key, number in value.items()} if isinstance(value, Mapping) else value


def _first(candidates: tuple[Any, ...], read: Callable[[Any], Any]) -> Any:
    """What the first of these that can makes of it. None goes before the others, since "none" is a text too."""
    for candidate in sorted(candidates, key=lambda one: one is not types.NoneType):
        with suppress(ValueError):
            return read(candidate)
    raise ValueError(candidates)

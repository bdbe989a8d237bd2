"""The fields of `SamplingParams` by name, in a line that somebody types, and in JSON.

Owns: how a value is written: `0.7`, `none`, `true`, `1,2`, `12=-5,7=1.5`, `"text with a \\n"`, `["one", "two"]`. Names
and types are those of the dataclass, so that a field added there can be typed here.
Refuses to know: which values are right, which `SamplingParams` says; what they do.
Specs: CLI-62. Next: `ferrum.cli.chat_commands`.
"""

from __future__ import annotations

import json
import types
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from dataclasses import fields, replace
from functools import cache
from typing import Any, Literal, Union, get_args, get_origin, get_type_hints

from ferrum.errors import InvalidParameter, NotFound, Unsupported
from ferrum.types import SamplingParams

NONE = "none"
_SWITCH = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
_UNUSED = {"n": "a message has one answer in a chat"}
"""Fields that have no place in a chat, and why."""


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(SamplingParams)


def names() -> list[str]:
    """The parameters that can be typed, in the order of their fields."""
    return [f.name for f in fields(SamplingParams) if f.name not in _UNUSED and _typable(_hints()[f.name])]


def change(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """The parameters with one changed. Raises InvalidParameter in the words of SamplingParams, NotFound for a name that
    is none, Unsupported for a value that cannot be typed in a line."""
    hint = _hint(name)
    try:
        value = _read(hint, text)
    except ValueError:
        with suppress(TypeError, ValueError, AttributeError):
            _replaced(params, name, text)  # says what it expects instead
        raise InvalidParameter(name, f"cannot be {text!r}") from None
    return _replaced(params, name, value)


def shown(params: SamplingParams, name: str) -> str:
    """The value as it can be typed. Raises what `change` raises for the name."""
    _hint(name)
    return _write(getattr(params, name))


def as_json(params: SamplingParams) -> dict[str, Any]:
    """All that can be typed, as JSON has it."""
    return {name: _to_json(getattr(params, name)) for name in names()}


def from_json(values: Mapping[str, Any]) -> SamplingParams:
    """The inverse; what is not there has its default. Raises InvalidParameter."""
    read = {}
    for name, value in values.items():
        if name not in names():
            raise InvalidParameter(name, "is no parameter of a conversation")
        try:
            read[name] = _from_json(_hints()[name], value)
        except ValueError:
            raise InvalidParameter(name, f"cannot be {json.dumps(value)}") from None
    return SamplingParams(**read)


def _replaced(params: SamplingParams, name: str, value: Any) -> SamplingParams:
    return replace(params, **{name: value})


def _hint(name: str) -> Any:
    if name not in _hints():
        raise NotFound(f"there is no parameter {name!r}: /set shows those there are")
    if name in _UNUSED:
        raise Unsupported(f"{name} cannot be set: {_UNUSED[name]}")
    if not _typable(_hints()[name]):
        raise Unsupported(f"{name} cannot be set here: its value cannot be written in a line")
    return _hints()[name]


def _parts(hint: Any) -> tuple[str, tuple[Any, ...]]:
    """What kind of type it is, and the types inside it."""
    origin, inner = get_origin(hint), get_args(hint)
    if origin in (Union, types.UnionType):
        return "either", inner
    if origin is Literal:
        return "literal", inner
    if origin is tuple:
        return ("list", inner[:1]) if inner[1:] == (...,) else ("row", inner)
    if origin is Sequence:
        return "list", inner
    if origin in (dict, Mapping):
        return "mapping", inner
    return "plain", (hint,)


def _typable(hint: Any) -> bool:
    kind, inner = _parts(hint)
    if kind == "plain":
        return hint in (bool, int, float, str, types.NoneType)
    if kind == "row":  # TOKEN=BIAS
        return len(inner) == 2 and all(map(_typable, inner))
    return kind == "literal" or all(map(_typable, inner))


def _read(hint: Any, text: str) -> Any:
    """The value that the text stands for. Raises ValueError where it stands for none."""
    kind, inner = _parts(hint)
    if kind == "either":
        return _first(inner, lambda one: _read(one, text))
    if kind == "literal":
        return _first(inner, lambda choice: _chosen(choice, text in (choice, _write(choice))))
    if kind == "list":
        return () if text == NONE else tuple(_read(inner[0], item) for item in _items(inner[0], text))
    if kind == "row":
        return _read_pair(inner, text)
    if kind == "mapping":
        return {} if text == NONE else dict(_read_pair(inner, item) for item in text.split(","))
    return _read_plain(hint, text)


def _read_pair(inner: tuple[Any, ...], text: str) -> tuple[Any, Any]:
    left, equals, right = text.partition("=")
    if not equals:
        raise ValueError(text)
    return _read(inner[0], left.strip()), _read(inner[1], right.strip())


def _read_plain(hint: Any, text: str) -> Any:
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
    return [json.dumps(item) for item in json.loads(text)] if text.startswith("[") else [text]


def _write(value: Any) -> str:
    """The inverse of `_read`."""
    if value is None or value == () or value == {}:
        return NONE
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, str):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, Mapping):
        return ",".join(f"{_write(key)}={_write(number)}" for key, number in value.items())
    if isinstance(value, tuple):
        if isinstance(value[0], str):
            return json.dumps(value, ensure_ascii=False)
        return ",".join("=".join(map(_write, item)) if isinstance(item, tuple) else _write(item) for item in value)
    return str(value)


def _from_json(hint: Any, value: Any) -> Any:
    """A value of the type from what JSON makes of it. Raises ValueError for another type."""
    kind, inner = _parts(hint)
    if kind == "either":
        return _first(inner, lambda one: _from_json(one, value))
    if kind == "literal":
        return _first(inner, lambda choice: _chosen(choice, value == choice))
    if kind == "list" and isinstance(value, list):
        return tuple(_from_json(inner[0], item) for item in value)
    if kind == "row" and isinstance(value, list) and len(value) == len(inner):
        return tuple(_from_json(one, item) for one, item in zip(inner, value, strict=True))
    if kind == "mapping" and isinstance(value, dict):
        return {_read(inner[0], key): _from_json(inner[1], number) for key, number in value.items()}
    fits = kind == "plain" and isinstance(value, (int, float) if hint is float else hint)
    if fits and isinstance(value, bool) == (hint is bool):
        return value
    raise ValueError(value)


def _to_json(value: Any) -> Any:
    """The inverse: keys of JSON are text."""
    return {_write(key): number for key, number in value.items()} if isinstance(value, Mapping) else value


def _first(candidates: tuple[Any, ...], read: Callable[[Any], Any]) -> Any:
    """What the first of these that can makes of it. None goes before the others, since "none" is a text too."""
    for candidate in sorted(candidates, key=lambda one: one is not types.NoneType):
        with suppress(ValueError):
            return read(candidate)
    raise ValueError(candidates)


def _chosen(choice: Any, fits: bool) -> Any:
    if not fits:
        raise ValueError(choice)
    return choice

"""The fields of `SamplingParams` that can be typed in a chat and kept in its file.

Owns: how a value of each type is written in a line (`0.7`, `none`, `true`, `1,2`, `12=-5,7=1.5`, `"two\\nlines"`,
`["one", "two"]`) and in JSON. Names and types are those of the dataclass, so that a new field can be typed at once.
Refuses to know: which values are right: `SamplingParams` checks them. Specs: CLI-62. Next: `ferrum.cli.chat_commands`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_type_hints

from ferrum.errors import InvalidParameter, NotFound, Unsupported, quoted
from ferrum.sampling_params import SamplingParams

NONE = "none"
_NO_TOKENS = "a chat does not show tokens"
_UNUSED = {
    "n": "a message has one answer in a chat",
    "logprobs": _NO_TOKENS,
    "prompt_logprobs": _NO_TOKENS,
    "logprobs_mode": _NO_TOKENS,
}
"""Fields that have no place in a chat, and why."""


def _switch(text: str) -> bool:
    words = {"true": True, "on": True, "yes": True, "false": False, "off": False, "no": False}
    if text.lower() not in words:
        raise ValueError(text)
    return words[text.lower()]


def _text(text: str) -> str:
    value = json.loads(text) if text.startswith('"') else text
    if not isinstance(value, str):
        raise ValueError(text)
    return value


def _texts(text: str) -> tuple[str, ...]:
    """A list in JSON, or one text: a text may hold commas."""
    items = json.loads(text) if text.startswith("[") else [_text(text)]
    if not all(isinstance(item, str) for item in items):
        raise ValueError(text)
    return tuple(items)


def _whole_numbers(text: str) -> tuple[int, ...]:
    return tuple(map(int, text.split(",")))


def _numbers_by_token(text: str) -> dict[int, float]:
    return {int(token): float(number) for token, _, number in (pair.partition("=") for pair in text.split(","))}


def _or_none(read: Callable[[str], Any], none: Any = None) -> Callable[[str], Any]:
    return lambda text: none if text == NONE else read(text)


READERS: dict[Any, Callable[[str], Any]] = {
    bool: _switch,
    int: int,
    float: float,
    str: _text,
    int | None: _or_none(int),
    str | None: _or_none(_text),
    tuple[str, ...]: _or_none(_texts, ()),
    tuple[int, ...]: _or_none(_whole_numbers, ()),
    Mapping[int, float]: _or_none(_numbers_by_token, {}),
}
"""The type of a field -> how its value is read from a line. Each raises ValueError for a text that is no such value."""


def write(value: Any) -> str:
    """A value as a line that the reader of its type reads."""
    if value is None or value == () or value == {}:
        return NONE
    if isinstance(value, bool):
        return str(value).lower()
    if isinstance(value, Mapping):
        return ",".join(f"{token}={number}" for token, number in value.items())
    if isinstance(value, tuple) and isinstance(value[0], int):
        return ",".join(map(str, value))
    return json.dumps(value, ensure_ascii=False) if isinstance(value, (str, tuple)) else str(value)


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(SamplingParams)


def names() -> list[str]:
    """The parameters that can be typed, in the order of their fields."""
    return [f.name for f in fields(SamplingParams) if f.name not in _UNUSED and _hints()[f.name] in READERS]


def change(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """The parameters with one changed. Raises InvalidParameter in the words of SamplingParams, NotFound for an unknown
    name, Unsupported for a parameter that cannot be typed."""
    read = _reader(name)
    try:
        value = read(text)
    except (ValueError, RecursionError):
        wrong: dict[str, Any] = {name: text}
        replace(params, **wrong)  # raises an error that says what the parameter expects
        raise InvalidParameter(name, f"cannot be {quoted(text)}") from None
    return replace(params, **{name: value})


def shown(params: SamplingParams, name: str) -> str:
    """The value as it can be typed. Raises what `change` raises for the name."""
    _reader(name)
    return write(getattr(params, name))


def as_json(params: SamplingParams) -> dict[str, Any]:
    """All parameters that can be typed, in JSON's types: its keys are texts."""
    values = {name: getattr(params, name) for name in names()}
    return {
        name: {str(key): number for key, number in value.items()} if isinstance(value, Mapping) else value
        for name, value in values.items()
    }


def from_json(values: Mapping[str, Any]) -> SamplingParams:
    """The inverse of `as_json`; a missing parameter has its default. Raises InvalidParameter."""
    read_values = {}
    for name, value in values.items():
        if name not in names():
            raise InvalidParameter(quoted(name)[1:-1], "is no parameter of a conversation")
        try:
            read_values[name] = _from_json(_hints()[name], value)
        except ValueError:
            raise InvalidParameter(name, f"cannot be {quoted(value)}") from None
    return SamplingParams(**read_values)


def _from_json(hint: Any, value: Any) -> Any:
    """SamplingParams checks the rest: a wrong type is an error there."""
    if isinstance(value, list):
        return tuple(value)
    if isinstance(value, dict) and hint == Mapping[int, float]:
        return {int(token): number for token, number in value.items()}
    return value


def _reader(name: str) -> Callable[[str], Any]:
    if name not in _hints():
        raise NotFound(f"there is no parameter {quoted(name)}: /set lists the parameters")
    if name in _UNUSED:
        raise Unsupported(f"{name} cannot be set: {_UNUSED[name]}")
    if _hints()[name] not in READERS:
        raise Unsupported(f"{name} cannot be set here: its value cannot be written in a line")
    return READERS[_hints()[name]]

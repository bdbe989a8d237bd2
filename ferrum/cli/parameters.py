"""The fields of `SamplingParams` by name.

Owns: which of them can be typed in a chat and kept in its file. Names and types are those of the dataclass, so that a
field added there can be typed at once. Refuses to know: which values are right, which `SamplingParams` says; how they
are written. Specs: CLI-62. Next: `ferrum.cli.values`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import fields, replace
from functools import cache
from typing import Any, get_type_hints

from ferrum.cli.values import from_json as value_from_json
from ferrum.cli.values import read, to_json, typable, write
from ferrum.errors import InvalidParameter, NotFound, Unsupported, quoted
from ferrum.sampling_params import SamplingParams

_UNTOLD = "a chat does not tell of tokens"
_UNUSED = {
    "n": "a message has one answer in a chat",
    "logprobs": _UNTOLD,
    "prompt_logprobs": _UNTOLD,
    "logprobs_mode": _UNTOLD,
}
"""Fields that have no place in a chat, and why."""


@cache
def _hints() -> dict[str, Any]:
    return get_type_hints(SamplingParams)


def names() -> list[str]:
    """The parameters that can be typed, in the order of their fields."""
    return [f.name for f in fields(SamplingParams) if f.name not in _UNUSED and typable(_hints()[f.name])]


def change(params: SamplingParams, name: str, text: str) -> SamplingParams:
    """The parameters with one changed. Raises InvalidParameter in the words of SamplingParams, NotFound for a name that
    is none, Unsupported for a value that cannot be typed in a line."""
    hint = _hint(name)
    try:
        value = read(hint, text)
    except (ValueError, RecursionError):
        _replaced(params, name, text)  # says what it expects instead
        raise InvalidParameter(name, f"cannot be {quoted(text)}") from None
    return _replaced(params, name, value)


def shown(params: SamplingParams, name: str) -> str:
    """The value as it can be typed. Raises what `change` raises for the name."""
    _hint(name)
    return write(getattr(params, name))


def as_json(params: SamplingParams) -> dict[str, Any]:
    """All that can be typed, in JSON's types."""
    return {name: to_json(getattr(params, name)) for name in names()}


def from_json(values: Mapping[str, Any]) -> SamplingParams:
    """The inverse of `as_json`; what is not there has its default. Raises InvalidParameter."""
    read_values = {}
    for name, value in values.items():
        if name not in names():
            raise InvalidParameter(quoted(name)[1:-1], "is no parameter of a conversation")
        try:
            read_values[name] = value_from_json(_hints()[name], value)
        except ValueError:
            raise InvalidParameter(name, f"cannot be {quoted(value)}") from None
    return SamplingParams(**read_values)


def _replaced(params: SamplingParams, name: str, value: Any) -> SamplingParams:
    return replace(params, **{name: value})


def _hint(name: str) -> Any:
    if name not in _hints():
        raise NotFound(f"there is no parameter {quoted(name)}: /set shows those there are")
    if name in _UNUSED:
        raise Unsupported(f"{name} cannot be set: {_UNUSED[name]}")
    if not typable(_hints()[name]):
        raise Unsupported(f"{name} cannot be set here: its value cannot be written in a line")
    return _hints()[name]

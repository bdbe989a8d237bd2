"""The variables of a chat template: plain copies of the caller's messages, tools and documents.

Callers pass messages as dicts or as objects of client libraries, with null for missing fields, and with a model's
reasoning under one of three names. Templates are written for one form, which is made here.

Owns: this form, and its largest size. Refuses to know: what templates do with it.
Specs: TEXT-70 to TEXT-72. Next: `ferrum.text.template_content`.
"""

from __future__ import annotations

import dataclasses
from collections.abc import Iterable, Mapping, Sequence
from typing import Any

from ferrum.errors import InvalidParameter, RequestValidation, quoted
from ferrum.given import is_one, items, pairs

REASONING = ("reasoning_content", "thinking", "reasoning")
"""The keys of a message's reasoning; the first one is the one that most templates read."""
DEEPEST = 100
MOST_VALUES = 1 << 19
ELEMENT = 32
"""Size of an element of a container in characters: about the memory that it takes."""
LONGEST = 4 << 20
"""Characters that all texts of a conversation may have: those of a prompt for a million tokens."""

_REASONING = frozenset(REASONING)
_PLAIN = frozenset((str, int, float, bool, type(None)))


def as_chat(messages: Sequence[Any]) -> list[dict[str, Any]]:
    """The messages as templates expect them: without what is null, and with the reasoning under the names that they
    read. Raises InvalidParameter for what is no message."""
    copied = Copier("messages")
    chat = []
    for message in messages:
        plain = copied(message)
        if type(plain) is not dict:
            raise InvalidParameter("messages", f"must be mappings, and {quoted(message)} is none")
        if None in plain.values():
            plain = {key: value for key, value in plain.items() if value is not None}
        chat.append(plain if _REASONING.isdisjoint(plain) else _with_reasoning(plain))
    return chat


def _with_reasoning(message: dict[str, Any]) -> dict[str, Any]:
    """The message with the first reasoning that it has under the two names that templates read."""
    reasoning = next(message[name] for name in REASONING if name in message)
    return {"thinking": reasoning, **message, "reasoning_content": reasoning}


def plain_mapping(field: str, value: Mapping[str, Any]) -> dict[str, Any]:
    """A plain copy. Raises InvalidParameter that names the field."""
    copied: dict[str, Any] = Copier(field)(value)
    return copied


def plain_objects(field: str, values: Iterable[Any] | None) -> list[dict[str, Any]] | None:
    """Plain copies of JSON objects, such as the descriptions of tools. Raises InvalidParameter for anything else."""
    if values is None:
        return None
    entries, copied = items(field, values, "JSON objects"), Copier(field)
    for value in entries:
        if not is_one(value, Mapping):
            hint = ": write down its JSON schema" if callable(value) else ""
            raise InvalidParameter(field, f"must be a list of JSON objects, and {quoted(value)} is none{hint}")
    return [copied(value) for value in entries]


def weight(values: Any) -> int:
    """The size of plain data: the characters of all texts, and for each element of a container some more. Raises
    RequestValidation where no prompt could hold the texts."""
    characters, elements, waiting = 0, 0, [values]
    while waiting:
        value = waiting.pop()
        if type(value) is str:
            characters += len(value)
        elif type(value) is dict:
            elements += 2 * len(value)
            waiting += (*value, *value.values())
        elif type(value) in (list, tuple):
            elements += len(value)
            waiting += value
    if characters > LONGEST:
        raise RequestValidation(
            f"the conversation is too long: it has {characters} characters, and a prompt may have {LONGEST}"
        )
    return characters + 2 * ELEMENT * elements


def is_object(value: object) -> bool:
    """True for a mapping, a dataclass, and an object with a `model_dump`: each can become a dict."""
    try:
        return isinstance(value, Mapping) or (not isinstance(value, type) and _fields(value) is not None)
    except Exception:  # a foreign object may fail in any way
        return False


def _fields(value: Any) -> Any:
    """The fields of an object by name; None for an object of another kind."""
    if dataclasses.is_dataclass(value):
        return {field.name: getattr(value, field.name) for field in dataclasses.fields(value)}
    dump = getattr(value, "model_dump", None)
    return dump() if callable(dump) else None


class Unreadable(str):
    """Stands for a value that no template can read: the name of its type."""


class Copier:
    """Copies values into dicts, lists, tuples, texts, numbers, true, false and null. Of subclasses (enumerations,
    NumPy's numbers) the plain value is left, of dataclasses and objects with a `model_dump` a dict. Anything else
    is `Unreadable`: templates ask whether an image is there, and never look at it."""

    def __init__(self, field: str) -> None:
        self._field = field
        self._remaining = MOST_VALUES

    def __call__(self, value: Any, depth: int = 0) -> Any:
        kind = type(value)
        if kind in _PLAIN:
            return value
        if kind is dict:
            self._enter(len(value), depth)
            copied: dict[Any, Any] = value.copy()
            for key, item in value.items():
                if type(key) is not str:
                    return {self._key(key, depth + 1): self(item, depth + 1) for key, item in value.items()}
                if type(item) not in _PLAIN:
                    copied[key] = self(item, depth + 1)
            return copied
        if kind is list:
            self._enter(len(value), depth)
            return [item if type(item) in _PLAIN else self(item, depth + 1) for item in value]
        try:
            return self._foreign(value, depth)
        except (InvalidParameter, RecursionError):
            raise
        except Exception:  # a foreign object may fail in any way
            raise self._wrong(f"hold a {kind.__name__} that cannot be read") from None

    def _key(self, key: Any, depth: int) -> Any:
        copied = self(key, depth)
        if isinstance(copied, Unreadable):
            raise self._wrong(f"have a {type(key).__name__} for a key")
        return copied

    def _foreign(self, value: Any, depth: int) -> Any:
        import numpy as np

        if isinstance(value, str):
            return str.__str__(value)
        if isinstance(value, int):
            return int.__int__(value)
        if isinstance(value, float):
            return float.__float__(value)
        if isinstance(value, Mapping):
            return self(dict(pairs(self._field, value, "names to values")), depth)
        if isinstance(value, list):
            return self(items(self._field, value, "values"), depth)
        if isinstance(value, tuple):
            self._enter(len(value), depth)
            return tuple(self(item, depth + 1) for item in value)
        if isinstance(value, np.generic) and type(value.item()) is not type(value):
            return self(value.item(), depth)
        fields = None if isinstance(value, type) else _fields(value)
        if fields is None:
            return Unreadable(f"<{type(value).__name__}>")
        self._enter(1, depth)  # an object may contain itself
        return self(fields, depth + 1)

    def _enter(self, items: int, depth: int) -> None:
        self._remaining -= items
        if self._remaining < 0 or depth >= DEEPEST:
            reason = f"hold more than {MOST_VALUES} values" if self._remaining < 0 else f"nest more than {DEEPEST} deep"
            raise self._wrong(reason)

    def _wrong(self, reason: str) -> InvalidParameter:
        return InvalidParameter(self._field, f"must be plain data, and {reason}")

"""The parts of a reply, and the reply that they make.

Owns: the types that parsers return and the server reads. Refuses to know: how a model writes any of them.
Specs: REPLY-01. Next: `ferrum.replies.source`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class Reasoning:
    """A piece of the model's reasoning before the answer."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class CallBegins:
    """The beginning of a tool call. `index`: the number of the call in this reply, from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


Part: TypeAlias = Reasoning | Content | CallBegins | CallArguments


class ReplyParser(Protocol):
    """Parses one answer as it comes."""

    def push(self, text: str) -> list[Part]:
        """The parts that are certain with this text."""
        ...

    def finish(self, *, cut: bool = False) -> list[Part]:
        """The end of the answer: returns the parts that were held back. `cut`: the answer was cut off; a text that may
        have been the beginning of a tag or of a call is then left out."""
        ...


@dataclass(frozen=True)
class ToolCall:
    """A whole call. `arguments` is JSON text, if the model wrote valid JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """A whole reply. A part that the model did not write is empty."""

    content: str
    reasoning: str
    tool_calls: tuple[ToolCall, ...]


def joined(parts: Iterable[Part]) -> Reply:
    """The reply that these parts make."""
    content: list[str] = []
    reasoning: list[str] = []
    names: list[str] = []
    arguments: list[list[str]] = []
    for part in parts:
        match part:
            case Content(text):
                content.append(text)
            case Reasoning(text):
                reasoning.append(text)
            case CallBegins(_, name):
                names.append(name)
                arguments.append([])
            case CallArguments(index, text):
                arguments[index].append(text)
    calls = tuple(ToolCall(name, "".join(pieces)) for name, pieces in zip(names, arguments, strict=True))
    return Reply("".join(content), "".join(reasoning), calls)

"""The parts of a reply, and the reply that they make.

Owns: the words that parsers speak and the server listens to. Refuses to know: how a model writes any of it.
Specs: REPLY-01. Next: `ferrum.replies.source`.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Protocol, TypeAlias


@dataclass(frozen=True)
class Reasoning:
    """A piece of what the model thinks before it answers."""

    text: str


@dataclass(frozen=True)
class Content:
    """A piece of the answer."""

    text: str


@dataclass(frozen=True)
class CallBegins:
    """A call of a tool. `index`: the number of the call in this reply, from 0."""

    index: int
    name: str


@dataclass(frozen=True)
class CallArguments:
    """A piece of the JSON text of a call's arguments."""

    index: int
    text: str


Part: TypeAlias = Reasoning | Content | CallBegins | CallArguments


class ReplyParser(Protocol):
    """Takes one answer as it comes."""

    def push(self, text: str) -> list[Part]:
        """The parts that this text makes certain."""
        ...

    def finish(self, *, cut: bool = False) -> list[Part]:
        """The answer is over: the parts that were held back. `cut`: it did not end by itself, but was cut off; what may
        have been the beginning of a tag or of a call is then left out."""
        ...


@dataclass(frozen=True)
class ToolCall:
    """A whole call. `arguments` is JSON text, as far as the model wrote JSON."""

    name: str
    arguments: str


@dataclass(frozen=True)
class Reply:
    """A whole reply; a text that the model did not write is empty."""

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

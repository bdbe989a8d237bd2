"""Harmony, the format of gpt-oss: an answer is a list of messages, each with a channel and possibly a recipient.

Owns: `<|channel|>analysis<|message|>…<|end|>` as reasoning, `commentary to=functions.x` as a call, `final` as content.
Refuses to know: the built-in tools of OpenAI's products; a message to one of them is reasoning.
Specs: REPLY-12. Source: https://github.com/openai/harmony, docs/format.md. Next: `ferrum.replies.qwen3_coder`.
"""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass

from ferrum.replies.calls import CallText
from ferrum.replies.json_text import arguments_of, read_value
from ferrum.replies.named_calls import WORD
from ferrum.replies.parser import read_content
from ferrum.replies.parts import Parts
from ferrum.replies.source import Source, Steps

_START, _CHANNEL, _MESSAGE, _CONSTRAIN = "<|start|>", "<|channel|>", "<|message|>", "<|constrain|>"
_ENDS = ("<|end|>", "<|call|>", "<|return|>")
_WRITTEN = CallText(
    "", "<|channel|>commentary to=functions.", " <|constrain|>json<|message|>", "", "<|call|><|start|>assistant", ""
)
_TO = "to=functions."
_LAST_CHANNEL = re.compile(r".*<\|channel\|>\s*(\w+)", re.DOTALL)
_RECIPIENT = re.compile(r"\bto=([^\s<]+)")


@dataclass(frozen=True)
class Harmony:
    """`reasons`, `calls`: True if reasoning and calls are separated from content."""

    name: str = "harmony"
    marks: tuple[str, ...] = (_START, _CHANNEL, _MESSAGE, _CONSTRAIN, *_ENDS)
    written: CallText = _WRITTEN
    reasons: bool = True
    calls: bool = True

    @property
    def written_reasoning(self) -> tuple[str, str, str]:
        return "<|channel|>analysis<|message|>", "<|end|>", "<|start|>assistant"

    def begins_inside(self, prompt: str) -> bool:
        """Always False: reasoning is a message, and its header is a part of the answer."""
        return False

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...] = ()) -> Steps[None]:
        said: set[str] = set()  # the kinds of messages so far
        header: str | None = yield from _role(source, parts)
        while True:
            if not header:
                header = yield from read_content(source, parts, (_START, _CHANNEL), (*_ENDS, *dropped))
                if header is None:
                    return
            text = yield from _header(source)
            header = "" if text is None else (yield from self._message(source, parts, header + text, said))

    def _message(self, source: Source, parts: Parts, header: str, said: set[str]) -> Steps[str]:
        """Reads the body of a message. Returns the mark with which the next message begins, or an empty text."""
        recipient = _RECIPIENT.search(header)
        to = recipient[1] if recipient and recipient[1] != "assistant" else ""
        if self.calls and to.startswith("functions."):
            parts.call(to.removeprefix("functions."))
            return (yield from _arguments(source, parts))
        kind = "reasoning" if self.reasons and _thinks(header, to) else "content"
        write = parts.reasoning if kind == "reasoning" else parts.content
        again = kind in said
        said.add(kind)

        def say(text: str) -> None:
            nonlocal again
            if again and text.strip():
                parts.new_line()
                again = False
            write(text)

        return (yield from _body(source, parts, say))


def _arguments(source: Source, parts: Parts) -> Steps[str]:
    """Reads the body of a call."""
    yield from source.space()
    if (yield from source.peek()) == "{":
        yield from read_value(source, parts.arguments, (*_ENDS, _START, _CHANNEL))
        return (yield from _body(source, parts, lambda _: None))
    pieces: list[str] = []
    mark = yield from _body(source, parts, pieces.append)
    parts.arguments(arguments_of("".join(pieces)))
    return mark


def _thinks(header: str, to: str) -> bool:
    """True if a message with this header is not a part of the answer."""
    channel = _LAST_CHANNEL.match(header)
    return bool(channel and channel[1] == "analysis") or (to != "" and not to.startswith("functions."))


def _role(source: Source, parts: Parts) -> Steps[str]:
    """Reads a recipient at the beginning of the answer, whose header the prompt has begun."""
    source.mark()
    yield from source.space()
    to = yield from source.one_of(_TO)
    name = (yield from source.all_of(WORD)) if to else ""
    if to and (yield from source.comes(_CHANNEL, _MESSAGE)):
        source.since_mark()
        return to + name
    parts.content(source.since_mark())
    return ""


def _header(source: Source) -> Steps[str | None]:
    """Reads the rest of a header; None if no message follows it."""
    pieces = []
    while True:
        text, mark = source.before((_MESSAGE, *_ENDS))
        pieces.append(text)
        if mark == _MESSAGE:
            return "".join(pieces)
        if mark is not None or source.ended:
            return None
        yield


def _body(source: Source, parts: Parts, say: Callable[[str], None]) -> Steps[str]:
    """Reads up to the end of a message. Returns the mark with which the next message begins, or an empty text."""
    while True:
        text, mark = source.before((*_ENDS, _START, _CHANNEL))
        say(text)
        if mark is not None:
            parts.tag()
        if mark is not None or source.ended:
            return mark if mark in (_START, _CHANNEL) else ""
        yield

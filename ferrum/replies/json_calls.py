"""Calls as JSON objects after a tag, one or a list: Hermes, Mistral's first format, Command R, Granite and others.

Owns: a row for each of them. Refuses to know: reasoning.
Specs: REPLY-08. Source: the chat templates of these models. Next: `ferrum.replies.named_calls`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ferrum.replies.calls import CallText, Keys, read_call
from ferrum.replies.parser import read_content
from ferrum.replies.parts import Parts
from ferrum.replies.source import Source, Steps


@dataclass(frozen=True)
class JsonCalls:
    """A format whose calls stand after `opening` and end with `closing`, which may be missing."""

    name: str
    opening: str
    closing: tuple[str, ...]
    written: CallText
    keys: Keys = field(default=Keys())

    @property
    def marks(self) -> tuple[str, ...]:
        return (self.opening, *self.closing)

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...]) -> Steps[None]:
        while mark := (yield from read_content(source, parts, (self.opening,), dropped)):
            source.mark(mark)
            yield from self.read_calls(source, parts)

    def read_calls(self, source: Source, parts: Parts) -> Steps[None]:
        """Reads what follows a tag: calls, or content. The tag was taken after the mark."""
        yield from source.space()
        character = yield from source.peek()
        if character == "[":
            source.take(1)
            called = yield from self._read_list(source, parts)
        else:
            called = character == "{" and (yield from read_call(source, parts, self.keys, self.closing))
        if not called:
            parts.content(source.since_mark())
        elif self.closing:
            yield from source.closing(*self.closing)

    def _read_list(self, source: Source, parts: Parts) -> Steps[bool]:
        """Reads a list to its end; True if it has objects and all of them are calls."""
        called = False
        while True:
            yield from source.space()
            if called and (yield from source.one_of("]")):
                return True
            if called and (yield from source.one_of(",")):
                yield from source.space()
            if (yield from source.peek()) != "{":
                return called
            if called:
                source.mark()
            if not (yield from read_call(source, parts, self.keys, self.closing)):
                return False
            called = True


_NAME, _ARGUMENTS, _PARAMETERS = '{"name": "', '", "arguments": ', '", "parameters": '

HERMES = JsonCalls(
    "hermes",
    "<tool_call>",
    ("</tool_call>",),
    CallText("", "<tool_call>\n" + _NAME, _ARGUMENTS, "}\n</tool_call>", "\n", ""),
)
MISTRAL_LIST = JsonCalls(
    "mistral-list", "[TOOL_CALLS]", (), CallText("[TOOL_CALLS][", _NAME, _ARGUMENTS, "}", ", ", "]")
)
COMMAND_R = JsonCalls(
    "command-r",
    "<|START_ACTION|>",
    ("<|END_ACTION|>",),
    CallText("<|START_ACTION|>[", '{"tool_name": "', _PARAMETERS, "}", ", ", "]<|END_ACTION|>"),
    Keys(name=('"tool_name"',)),
)
GRANITE = JsonCalls("granite", "<|tool_call|>", (), CallText("<|tool_call|>[", _NAME, _ARGUMENTS, "}", ", ", "]"))
NEMOTRON = JsonCalls(
    "nemotron",
    "<TOOLCALL>",
    ("</TOOLCALL>",),
    CallText("<TOOLCALL>[", _NAME, _ARGUMENTS, "}", ", ", "]</TOOLCALL>"),
)
APRIEL = JsonCalls(
    "apriel",
    "<tool_calls>",
    ("</tool_calls>",),
    CallText("<tool_calls>[", _NAME, _ARGUMENTS, "}", ", ", "]</tool_calls>"),
)
FIREFUNCTION = JsonCalls("firefunction", "functools", (), CallText("functools[", _NAME, _ARGUMENTS, "}", ", ", "]"))

"""The formats in which a model answers, found by name or by its chat template.

Owns: the names of all formats, what in a template tells of each, and the parser that a format of reasoning and a format
of calls make together. Refuses to know: how any of them is read.
Specs: REPLY-14, REPLY-15. Next: `ferrum.replies.thought_grammar`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Protocol, TypeAlias, TypeVar

from ferrum.errors import InvalidParameter, quoted
from ferrum.replies import reasoning
from ferrum.replies.calls import Tool, ToolFormat
from ferrum.replies.harmony import Harmony
from ferrum.replies.json_calls import APRIEL, COMMAND_R, FIREFUNCTION, GRANITE, HERMES, MISTRAL_LIST, NEMOTRON
from ferrum.replies.llama3 import Llama3
from ferrum.replies.named_calls import Functionary, Mistral
from ferrum.replies.parser import PlainParser, StreamParser, read_content
from ferrum.replies.parts import Parts
from ferrum.replies.qwen3_coder import QWEN3_CODER, SEED_OSS, TaggedArguments
from ferrum.replies.reasoning import ReasoningFormat
from ferrum.replies.reply import ReplyParser
from ferrum.replies.source import Source, Steps


class _Format(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Format)
Signs: TypeAlias = Sequence[tuple[str, T]]
"""Formats, each after a text: a template that holds all words of the text has the format. The first one counts."""
HARMONY = Harmony()
_TOOLS: Signs[ToolFormat] = (
    ("<|channel|> <|message|> functions.", HARMONY),
    ("<seed:tool_call>", SEED_OSS),
    ("<tool_call> <function= <parameter=", QWEN3_CODER),
    ("<tool_calls>[", APRIEL),
    ("<tool_call>", HERMES),
    ("[TOOL_CALLS] [ARGS]", Mistral()),
    ("[TOOL_CALLS]", MISTRAL_LIST),
    ("<|START_ACTION|> tool_name", COMMAND_R),
    ("<|tool_call|>", GRANITE),
    ("<TOOLCALL>", NEMOTRON),
    ("functools[", FIREFUNCTION),
    ("<function= </function>", Functionary()),
    ('<|start_header_id|> "parameters":', Llama3()),
)
_REASONING: Signs[ReasoningFormat | Harmony] = (
    ("<|channel|> <|message|> analysis", HARMONY),
    ("<seed:think>", reasoning.SEED),
    ("[THINK]", reasoning.MAGISTRAL),
    ("<|START_THINKING|>", reasoning.COMMAND_R),
    ("<think></think> <response></response>", reasoning.GRANITE),
    ("<think>", reasoning.THINK),
)
_OTHER_TOOLS = ("<arg_key>", "]<]minimax[>[")
"""Signs of formats that are not understood, although they look like one that is."""
AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class ReplyFormats:
    """What a model's answers are made of; None for what it does not mark, or is not to be told apart."""

    tools: ToolFormat | None
    reasoning: ReasoningFormat | Harmony | None

    @property
    def calls(self) -> ToolFormat:
        """How tools are called that must be: as in Hermes where the model has no way of its own."""
        return self.tools or (HARMONY if isinstance(self.reasoning, Harmony) else HERMES)

    @property
    def marks(self) -> tuple[str, ...]:
        """Tags that may be special tokens of a model: they must be in the text that is parsed."""
        found = [mark for part in (self.reasoning, self.tools) if part for mark in part.marks]
        return tuple(dict.fromkeys(found))

    def parser(self, prompt: str, with_tools: bool, tools: Sequence[Tool] = ()) -> ReplyParser:
        """A parser for the answer to this prompt. `with_tools`: may tools be called? If not, what looks like a call is
        content; if so, and the model has no way of its own, they are called as in Hermes. `tools`: types of arguments,
        for formats that do not write them."""
        calls = self.calls if with_tools else None
        if isinstance(self.tools, Harmony) or isinstance(self.reasoning, Harmony):
            return StreamParser(replace(HARMONY, reasons=self.reasoning is not None, calls=calls is not None).read)
        if isinstance(calls, TaggedArguments):
            calls = replace(calls, tools=tuple(tools))
        if self.reasoning is None and calls is None:
            return PlainParser()
        return StreamParser(_Reader(self.reasoning, calls, prompt).read)


@dataclass(frozen=True)
class _Reader:
    """Reads reasoning first, and then the rest."""

    reasoning: ReasoningFormat | None
    calls: ToolFormat | None
    prompt: str

    def read(self, source: Source, parts: Parts) -> Steps[None]:
        dropped: tuple[str, ...] = ()
        if self.reasoning:
            inside = self.reasoning.begins_inside(self.prompt)
            dropped = yield from self.reasoning.read(source, parts, inside)
        if self.calls:
            yield from self.calls.read(source, parts, dropped)
        else:
            yield from read_content(source, parts, (), dropped)


def find_formats(template: str | None, tool_parser: str = AUTO, reasoning_parser: str = AUTO) -> ReplyFormats:
    """The formats of these names; "auto" is what the source of the chat template tells, "none" is none. Raises
    InvalidParameter for an unknown name."""
    known = template is not None and not any(sign in template for sign in _OTHER_TOOLS)
    tools = _find("tool_parser", tool_parser, _TOOLS, template if known else None)
    thinking = _find("reasoning_parser", reasoning_parser, _REASONING, template)
    for field, one, other in (("tool_parser", thinking, tools), ("reasoning_parser", tools, thinking)):
        if isinstance(one, Harmony) and other is not None and not isinstance(other, Harmony):
            raise InvalidParameter(field, f"must be harmony or none beside harmony, not {quoted(other.name)}")
    return ReplyFormats(tools, thinking)


def _find(field: str, name: str, signs: Signs[T], template: str | None) -> T | None:
    if name == NONE:
        return None
    if name == AUTO:
        holds = (form for sign, form in signs if template and all(word in template for word in sign.split(" ")))
        return next(holds, None)
    named = _names(signs)
    if name not in named:
        raise InvalidParameter(field, f"must be one of {', '.join((AUTO, NONE, *named))}, not {quoted(name)}")
    return named[name]


def _names(signs: Signs[T]) -> Mapping[str, T]:
    return {form.name: form for _, form in signs}

"""The formats in which a model answers, found by name or by its chat template.

Owns: the names of all formats, how each is recognised in a template, and the parser that a reasoning format and a tool
format make together. Refuses to know: how any format is read.
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
"""Formats, each with a text. A template that contains all words of the text has the format. The first match is used."""
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
"""Signs of unknown formats that resemble a known one."""
AUTO, NONE = "auto", "none"


@dataclass(frozen=True)
class ReplyFormats:
    """The formats of a model's answers. None for tools or reasoning that the model does not mark, or that are not to be
    separated."""

    tools: ToolFormat | None
    reasoning: ReasoningFormat | Harmony | None

    @property
    def calls(self) -> ToolFormat:
        """The format of required calls: that of Hermes if the model has none."""
        return self.tools or (HARMONY if isinstance(self.reasoning, Harmony) else HERMES)

    @property
    def marks(self) -> tuple[str, ...]:
        """Tags that may be special tokens of a model. They must be in the text that is parsed."""
        found = [mark for part in (self.reasoning, self.tools) if part for mark in part.marks]
        return tuple(dict.fromkeys(found))

    def parser(self, prompt: str, with_tools: bool, tools: Sequence[Tool] = ()) -> ReplyParser:
        """A parser for the answer to this prompt. `with_tools`: True if tools may be called; calls of a model without a
        format are read as Hermes'. If False, text that looks like a call is content. `tools` give the types of
        arguments, for formats that do not write them."""
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
    """The formats of these names. "auto" means what the source of the chat template shows, "none" means none. Raises
    InvalidParameter for an unknown name."""
    is_known = template is not None and not any(sign in template for sign in _OTHER_TOOLS)
    tools = _find("tool_parser", tool_parser, _TOOLS, template if is_known else None)
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

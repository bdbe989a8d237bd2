"""Flags for the chat template: tools and variables.

Owns: how tools and variables are written on a command line, and the conversation that a prompt becomes.
Refuses to know: what templates do with it. Specs: CLI-90 to CLI-92. Next: `ferrum.cli.service_flags`.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, NoReturn

import click

from ferrum.cli.sampling_flags import TextOrFile
from ferrum.errors import quoted
from ferrum.types import Message

if TYPE_CHECKING:
    from ferrum.engine.conversations import ChatOptions


class Variable(click.ParamType):  # type: ignore[type-arg]  # generic in newer versions of click only
    """NAME=VALUE -> (name, what VALUE is in JSON; where it is none, the text)"""

    name = "variable"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> tuple[str, Any]:
        name, equals, text = str(value).partition("=")
        if not name or not equals:
            self.fail(f"{quoted(value)} is not of the form NAME=VALUE, such as enable_thinking=false", param, ctx)
        try:
            return name, json.loads(text, parse_constant=_no_json)
        except (ValueError, RecursionError):
            return name, text


class Tools(TextOrFile):
    """A list of tools in JSON, or @FILE for one that is in a file."""

    name = "tools"

    def convert(self, value: Any, param: click.Parameter | None, ctx: click.Context | None) -> Any:
        try:
            tools = json.loads(super().convert(value, param, ctx), parse_constant=_no_json)
        except (ValueError, RecursionError) as error:
            self.fail(f"is not JSON: {error}; @FILE reads a file", param, ctx)
        if not isinstance(tools, list) or not all(isinstance(tool, dict) for tool in tools):
            self.fail(f"must be a JSON list of objects, not {quoted(tools)}", param, ctx)
        return tools


def _no_json(word: str) -> NoReturn:
    raise ValueError(f"{word} is a word of Python")


@dataclass(frozen=True)
class ChatFlags:
    """The values of the flags."""

    tools: list[dict[str, Any]] | None = None
    chat_template_kwargs: tuple[tuple[str, Any], ...] = ()

    def given(self) -> str | None:
        """A flag that was given, if one was."""
        return "--tools" if self.tools is not None else "--template-arg" if self.chat_template_kwargs else None

    def as_options(self) -> ChatOptions:
        """The same for `LLM.chat_token_ids`. Raises InvalidParameter."""
        from ferrum.engine.conversations import chat_options

        return chat_options(**self.options())

    def options(self) -> dict[str, Any]:
        """Arguments of `LLM.chat`."""
        return {"tools": self.tools, "chat_template_kwargs": dict(self.chat_template_kwargs)}


CHAT_FLAGS = (
    click.option("--tools", type=Tools(), metavar="TOOLS",
                 help="Tools that the model may call: a JSON list of function descriptions, or @FILE to read it. "
                 "The calls are printed as text of the answer."),
    click.option("--template-arg", "chat_template_kwargs", type=Variable(), multiple=True, metavar="NAME=VALUE",
                 help="Set a variable that the model's chat template reads, such as enable_thinking=false; the "
                 "value is JSON or text; may be repeated."),
)  # fmt: skip


@dataclass(frozen=True)
class Setting:
    """The conversation around a prompt. `beginning`: the first words of the answer; if it is empty, the prompt is the
    beginning of the answer."""

    system: str | None = None
    beginning: str | None = None
    flags: ChatFlags = ChatFlags()

    def messages(self, prompt: str) -> list[Message]:
        """The conversation whose last message is answered or continued."""
        turns = [] if self.system is None else [("system", self.system)]
        if prompt:
            turns.append(("assistant" if self.beginning == "" else "user", prompt))
        if self.beginning:
            turns.append(("assistant", self.beginning))
        return [{"role": role, "content": text} for role, text in turns]

    def flag(self) -> str | None:
        """A flag that was given and needs a chat template, if one was."""
        if self.system is not None:
            return "--system"
        return self.flags.given() if self.beginning is None else "--continue"

    def options(self) -> dict[str, Any]:
        """Arguments of `LLM.chat`."""
        goes_on = self.beginning is not None
        return {**self.flags.options(), "add_generation_prompt": not goes_on, "continue_final_message": goes_on}

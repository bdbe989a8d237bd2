"""The tools in a prompt, and whether the model must call one.

Owns: the meaning of tool_choice and parallel_tool_calls. Refuses to know: how calls are written (`ferrum.replies`).
Specs: API-30, API-31. Next: `ferrum.api.sampling`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ferrum.api.errors import invalid
from ferrum.api.protocol.tools import NamedTool, ToolSpec
from ferrum.errors import InvalidParameter, quoted
from ferrum.replies.calls import Tool
from ferrum.replies.formats import ReplyFormats
from ferrum.replies.tool_grammar import tool_grammar
from ferrum.sampling_params import StructuredOutputs

EVERYTHING: Mapping[str, Any] = {"type": "object", "properties": {}}


@dataclass(frozen=True)
class ToolUse:
    """`told`: the tools that the prompt describes; `forced`: the answer must be calls of these tools; `most`: the
    largest number of calls in an answer."""

    told: Sequence[ToolSpec] = ()
    forced: Sequence[ToolSpec] = ()
    most: int | None = None

    @property
    def tools(self) -> list[Tool]:
        """The tools of the prompt, for the parser of the answer."""
        return [_tool(spec) for spec in self.told]

    def structure(self, formats: ReplyFormats, prompt: str) -> StructuredOutputs | None:
        """The grammar that makes the answer such calls. Raises InvalidParameter for a schema that cannot be
        followed."""
        if not self.forced:
            return None
        tools = [_tool(spec) for spec in self.forced]
        try:
            return tool_grammar(formats, tools, parallel=self.most is None, prompt=prompt)
        except InvalidParameter as error:
            raise InvalidParameter("tools", " ".join(map(str, error.args[1:]))) from error


def tool_use(
    tools: Sequence[ToolSpec] | None, choice: str | NamedTool | None, parallel: bool | None, name: str = "tool_choice"
) -> ToolUse:
    """The meaning of a request's fields about tools. Raises ApiError that names the field."""
    if not tools:
        if choice not in (None, "none", "auto"):
            raise invalid(f"{name} is given, but there are no tools", name, "invalid_value")
        return ToolUse()
    names = [spec.function.name for spec in tools]
    if len(set(names)) < len(names):
        twice = next(each for each in names if names.count(each) > 1)
        raise invalid(f"tools has two functions with the name {quoted(twice)}", "tools", "invalid_value")
    most = 1 if parallel is False else None
    if choice == "none":
        return ToolUse()
    if choice == "required":
        return ToolUse(tools, tools, most)
    if isinstance(choice, NamedTool):
        chosen = [spec for spec in tools if spec.function.name == choice.function.name]
        if not chosen:
            problem = f"{name} names {quoted(choice.function.name)}, which is none of the tools"
            raise invalid(problem, name, "invalid_value")
        return ToolUse(tools, chosen, 1)
    return ToolUse(tools, (), most)


def _tool(spec: ToolSpec) -> Tool:
    return Tool(spec.function.name, spec.function.parameters or EVERYTHING)

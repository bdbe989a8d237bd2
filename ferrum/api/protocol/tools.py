"""Functions that a model may call.

Owns: how a request describes them, and the choice among them. Refuses to know: how models write calls
(`ferrum.replies`).
Specs: API-30. Source: OpenAI's API reference, "Function calling". Next: `ferrum.api.protocol.chat`.
"""

from __future__ import annotations

from typing import Any, Literal

from pydantic import Field

from ferrum.api.protocol.base import Answer, Body

NAME = r"^[a-zA-Z0-9_.:-]+$"


class Function(Body):
    """A function; its parameters as a JSON schema."""

    name: str = Field(
        min_length=1, max_length=64, pattern=NAME, description="The name by which the model calls the function."
    )
    description: str | None = Field(None, description="What the function does, for the model.")
    parameters: dict[str, Any] | None = Field(
        None, description="The arguments, as a JSON schema of an object. Default: any object."
    )
    strict: bool | None = Field(None, description="Shown to the model with the other fields; it changes nothing else.")


def tools_field() -> Any:
    """The tools of a request."""
    return Field(None, description="The functions that the model may call.")


def tool_choice_field() -> Any:
    """Whether the model calls a tool, and which."""
    return Field(
        None,
        description="none: the prompt has no tools; auto: the model decides whether to call; required: the answer is "
        "calls; an object: the answer is one call of the function that it names. Default: auto.",
    )


def parallel_calls_field() -> Any:
    """Whether an answer may have several calls."""
    return Field(None, description="False: an answer has at most one call. Default: true.")


class ToolSpec(Body):
    """A tool: functions are the only kind."""

    type: Literal["function"] = Field(description="The kind of the tool.")
    function: Function = Field(description="The function, as it is described to the model.")


class FunctionName(Body):
    """The name of a function."""

    name: str = Field(description="The name of one of the tools.")


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"] = Field(description="The kind of the tool.")
    function: FunctionName = Field(description="The function that must be called.")


class CalledFunction(Body):
    """A call; the arguments are JSON, as text."""

    name: str = Field(description="The name of the function that was called.")
    arguments: str | dict[str, Any] = Field(
        union_mode="left_to_right", description="The arguments, as a JSON object or as its text."
    )


class PastCall(Body):
    """A call in an earlier message."""

    id: str | None = Field(
        None,
        description="The id of the call, which the message with its result repeats. Default: call_ and the "
        "call's number.",
    )
    type: Literal["function"] = Field("function", description="The kind of the tool.")
    function: CalledFunction = Field(description="The function that was called, and its arguments.")
    index: int | None = Field(None, description="Accepted, because parts of a stream have it; it changes nothing.")


class FunctionCall(Answer):
    """A call in an answer. In a stream the name comes first and the arguments in pieces."""

    name: str | None = None
    arguments: str


class Call(Answer):
    """A call with its id; the client sends the id back with the result."""

    id: str
    type: Literal["function"]
    function: FunctionCall


class CallDelta(Answer):
    """A part of a call. The first part of each call has all fields, the others index and arguments."""

    index: int
    id: str | None = None
    type: Literal["function"] | None = None
    function: FunctionCall | None = None

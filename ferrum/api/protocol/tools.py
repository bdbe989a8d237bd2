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

    name: str = Field(min_length=1, max_length=64, pattern=NAME)
    description: str | None = None
    parameters: dict[str, Any] | None = None
    strict: bool | None = None


class ToolSpec(Body):
    """A tool: functions are the only kind."""

    type: Literal["function"]
    function: Function


class FunctionName(Body):
    """The name of a function."""

    name: str


class NamedTool(Body):
    """The tool that must be called."""

    type: Literal["function"]
    function: FunctionName


class CalledFunction(Body):
    """A call; the arguments are JSON, as text."""

    name: str
    arguments: str | dict[str, Any] = Field(union_mode="left_to_right")


class PastCall(Body):
    """A call in an earlier message."""

    id: str | None = None
    type: Literal["function"] = "function"
    function: CalledFunction
    index: int | None = None


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

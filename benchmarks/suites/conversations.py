"""Conversations of the kinds that clients send, to render chat templates with.

Owns: messages, tools, and arguments of templates. Reasoning stands under both names that templates read, and nothing is
null, so that a plain template engine sees what is meant. Refuses to know: templates.
Specs: SUITE-21. Next: `benchmarks/suites/templates.py`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

Messages = Sequence[Mapping[str, Any]]


def _said(role: str, content: Any, **more: Any) -> dict[str, Any]:
    return {"role": role, "content": content, **more}


def _call(number: int, name: str, **arguments: Any) -> dict[str, Any]:
    return {"id": f"call{number:05}", "type": "function", "function": {"name": name, "arguments": arguments}}


def _tool(name: str, **properties: Any) -> dict[str, Any]:
    parameters = {"type": "object", "properties": properties, "required": list(properties)[:1]}
    return {"type": "function", "function": {"name": name, "description": f"Looks: {name}", "parameters": parameters}}


def _thought(text: str) -> dict[str, str]:
    return {"reasoning_content": text, "thinking": text}


_SYSTEM, _USER = _said("system", "Be brief."), _said("user", "What is the weather in Zürich?")
_WEATHER = _said("assistant", "", tool_calls=[_call(1, "get_weather", city="Zürich", days=2)])
_RESULT = _said("tool", '{"celsius": -3.5, "sky": "<clear>"}', tool_call_id="call00001", name="get_weather")

CONVERSATIONS: Mapping[str, Messages] = {
    "a question": [_USER],
    "a system message": [_SYSTEM, _USER],
    "a developer's message": [_said("developer", "Be kind."), _USER],
    "turns": [
        _SYSTEM, _said("user", "Hello"), _said("assistant", "Hi there"), _said("user", "Who are you"),
        _said("assistant", "   I am an assistant   "), _said("user", "Another question"),
    ],
    "an answer last": [_USER, _said("assistant", "Cold, I suppose.")],
    "an answer first": [_said("assistant", "Welcome!"), _USER],
    "two questions": [_USER, _said("user", "And in Bern?")],
    "a system message last": [_USER, _SYSTEM],
    "characters": [_said("user", "<b>\"'&amp;\\n</b>\n\n\t{{ x }} {% raw %} e\u0301 \U0001f999 \u2028")],
    "an empty question": [_said("user", "")],
    "no message": [],
    "parts": [_said("user", [{"type": "text", "text": "What"}, {"type": "text", "text": " is this?"}])],
    "a picture": [_said("user", [{"type": "image"}, {"type": "text", "text": "What is this?"}])],
    "thoughts": [
        _USER, _said("assistant", "Cold.", **_thought("It is winter.")), _said("user", "Why?"),
        _said("assistant", "Because.", **_thought("It is\n\nfar north.")), _said("user", "Is it?"),
    ],
    "thoughts in the text": [_USER, _said("assistant", "<think>\nWinter.\n</think>\n\nCold."), _said("user", "Why?")],
    "a call": [_SYSTEM, _USER, _WEATHER],
    "a call and its result": [_USER, _WEATHER, _RESULT],
    "a call, its result, an answer": [_SYSTEM, _USER, _WEATHER, _RESULT, _said("assistant", "Cold."), _USER],
    "two calls": [
        _USER,
        _said("assistant", "I look.", tool_calls=[_call(1, "get_weather", city="Bern"), _call(2, "get_time")]),
        _RESULT, _said("tool", "noon", tool_call_id="call00002", name="get_time"),
    ],
    "a thought before a call": [
        _USER, {**_WEATHER, **_thought("I must look.")}, _RESULT,
        _said("assistant", "Cold.", **_thought("It said -3.5.")), _said("user", "Thanks"),
    ],
    "arguments as text": [
        _USER,
        _said("assistant", "", tool_calls=[{
            "id": "call00001", "type": "function", "function": {"name": "get_weather", "arguments": '{"city": "Bern"}'},
        }]),
        _RESULT,
    ],
}  # fmt: skip

TOOLS = [
    _tool("get_weather", city={"type": "string", "description": "A city"}, days={"type": "integer"}),
    _tool("get_time", zone={"type": ["string", "null"], "enum": ["UTC", None]}, exact={"type": "boolean"}),
]

ARGUMENTS: Mapping[str, Mapping[str, Any]] = {
    "plainly": {},
    "without a prompt for the answer": {"add_generation_prompt": False},
    "with tools": {"tools": TOOLS},
    "with tools, thinking": {"tools": TOOLS, "enable_thinking": True, "thinking": True, "reasoning_effort": "high"},
    "not thinking": {"enable_thinking": False, "thinking": False, "reasoning_effort": "low"},
    "with documents": {"documents": [{"title": "Snow", "text": "It snows."}, {"title": "Rain", "text": "It rains."}]},
}

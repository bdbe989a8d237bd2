"""Calls as tags, one for each argument: Qwen3-Coder and Seed-OSS.

Owns: the conversion of `<function=name><parameter=key>value</parameter></function>` to JSON. Values have no quotes. A
value is a string if the tool's schema says so; else it is JSON if it can be parsed, else a string. Refuses to know:
reasoning.
Specs: REPLY-13. Source: the chat templates of Qwen3-Coder and Seed-OSS. Next: `ferrum.replies.reasoning`.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any, NoReturn

from ferrum.replies.calls import CallText, Tool
from ferrum.replies.json_calls import HERMES, JsonCalls
from ferrum.replies.named_calls import WORD
from ferrum.replies.parser import read_content
from ferrum.replies.parts import Parts
from ferrum.replies.source import SPACE, Source, Steps

_FUNCTION, _PARAMETER = "<function=", "<parameter="
_END_FUNCTION, _END_PARAMETER = "</function>", "</parameter>"


@dataclass(frozen=True)
class TaggedArguments:
    """The tags of `around` may also enclose a call in JSON, as required calls are written. `tools` give the types of
    values."""

    name: str
    around: JsonCalls
    tools: tuple[Tool, ...] = ()

    @property
    def marks(self) -> tuple[str, ...]:
        return self.around.marks

    @property
    def written(self) -> CallText:
        return self.around.written

    def read(self, source: Source, parts: Parts, dropped: tuple[str, ...]) -> Steps[None]:
        opening = self.around.opening
        while mark := (yield from read_content(source, parts, (opening, _FUNCTION), dropped)):
            source.mark(mark)
            if mark == opening:
                yield from source.space()
                if not (yield from source.one_of(_FUNCTION)):
                    yield from self.around.read_calls(source, parts)
                    continue
            yield from self._read_call(source, parts)

    def _read_call(self, source: Source, parts: Parts) -> Steps[None]:
        name = yield from source.all_of(WORD)
        if not name or not (yield from source.one_of(">")):
            parts.content(source.since_mark())
            return
        source.since_mark()
        parts.call(name)
        before, types = "{", self._types(name)
        while True:
            yield from source.space()
            if not (yield from source.one_of(_PARAMETER)):
                break
            key = yield from _up_to(source, ">")
            value = yield from _up_to(source, _END_PARAMETER)
            if key is None or value is None:
                return
            parts.arguments(f"{before}{json.dumps(key)}: {_as_json(value, types.get(key))}")
            before = ", "
        if before == "{":
            parts.arguments("{")
        if (yield from source.peek()):
            parts.arguments("}")
        yield from source.closing(_END_FUNCTION)
        yield from source.closing(*self.around.closing)

    def _types(self, name: str) -> Mapping[str, Any]:
        """The schemas of a tool's parameters."""
        tool = next((tool for tool in self.tools if tool.name == name), None)
        found = tool.parameters.get("properties") if tool else None
        return found if isinstance(found, Mapping) else {}


def _up_to(source: Source, mark: str) -> Steps[str | None]:
    """The text before the mark; the mark is taken. None if it does not come."""
    pieces = []
    while True:
        text, found = source.before((mark,))
        pieces.append(text)
        if found:
            return "".join(pieces)
        if source.ended:
            return None
        yield


def _as_json(value: str, schema: Any) -> str:
    """A value as JSON. If it begins on its own line, the line ends around it are not a part of it."""
    if value.startswith("\n"):
        value = value[1:].removesuffix("\n")
    if not (isinstance(schema, Mapping) and schema.get("type") == "string"):
        try:
            if not isinstance(json.loads(value, parse_constant=_no_constant), str):
                return value.strip(SPACE)
        except (ValueError, RecursionError):
            pass  # not JSON
    return json.dumps(value, ensure_ascii=False)


def _no_constant(name: str) -> NoReturn:
    raise ValueError(f"{name} is not a JSON number")


QWEN3_CODER = TaggedArguments("qwen3-coder", HERMES)
SEED_OSS = TaggedArguments(
    "seed",
    JsonCalls(
        "seed",
        "<seed:tool_call>",
        ("</seed:tool_call>",),
        CallText("", '<seed:tool_call>\n{"name": "', '", "arguments": ', "}\n</seed:tool_call>", "\n", ""),
    ),
)

"""A grammar for an answer that must call a tool, in the way in which the model writes calls.

Owns: reasoning, where the model has it, then one call or more, and nothing else. What matches is understood by the
parser of the same formats, and the arguments fit the schema of their tool.
Refuses to know: how grammars are followed. Specs: REPLY-16, REPLY-17. Next: `ferrum.api.reader`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ferrum.errors import InvalidParameter, quoted
from ferrum.replies.calls import Tool
from ferrum.replies.formats import ReplyFormats
from ferrum.sampling_params import StructuredOutputs

LONGEST_REASONING = 4000
"""Characters: an answer that must be a call gets to it."""
MOST_CALLS = 16
_NAME = re.compile(r"[\w.:-]+", re.ASCII)


def tool_grammar(formats: ReplyFormats, tools: Sequence[Tool], *, parallel: bool, prompt: str) -> StructuredOutputs:
    """The whole answer to this prompt is a call of one of these tools; `parallel`: of one or more. Raises
    InvalidParameter for tools that cannot be called so."""
    if not tools:
        raise InvalidParameter("tools", "must hold a tool, since one must be called")
    written = formats.calls.written
    calls = f"call ({_text(written.between)} call){{0,{MOST_CALLS - 1}}}" if parallel and written.between else "call"
    if parallel and not written.between:
        calls = f"call{{1,{MOST_CALLS}}}"
    reasoning, rules = _reasoning(formats, prompt)
    parts = (reasoning, _text(written.begin), calls, _text(written.end))
    before, after = written.before_arguments, _text(written.after_arguments)
    each = (f"{_text(written.before_name + _name(tool) + before)} %json {_schema(tool)} {after}" for tool in tools)
    lines = (f"start: {' '.join(filter(None, parts))}", *rules, "call: " + "\n    | ".join(each))
    return StructuredOutputs(grammar="\n".join(lines))


def _reasoning(formats: ReplyFormats, prompt: str) -> tuple[str, tuple[str, ...]]:
    """What stands before the calls, and the rules that it needs."""
    if formats.reasoning is None:
        return "", ()
    opening, closing, after = formats.reasoning.written_reasoning
    thought = f"thought {_text(after)}"
    if not formats.reasoning.begins_inside(prompt):
        thought = f"({_text(opening)} {thought})?"
    return thought, (f"thought[suffix={_text(closing)}]: /(?s:.{{0,{LONGEST_REASONING}}})/",)


def _name(tool: Tool) -> str:
    if not _NAME.fullmatch(tool.name):
        raise InvalidParameter("tools", f"must have names of letters, digits and _.:-, not {quoted(tool.name)}")
    return tool.name


def _schema(tool: Tool) -> str:
    """The schema of the arguments, which are an object."""
    kind: Any = tool.parameters.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise InvalidParameter("tools", f"{tool.name}: the arguments of a tool are an object, not {quoted(kind)}")
    schema: Mapping[str, Any] = {**tool.parameters, "type": "object"}
    return json.dumps(schema, ensure_ascii=False)


def _text(text: str) -> str:
    """A text as Lark has it; nothing for none."""
    return json.dumps(text, ensure_ascii=False) if text else ""

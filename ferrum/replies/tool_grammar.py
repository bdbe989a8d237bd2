"""A grammar for an answer that must call a tool, in the format in which the model writes calls.

Owns: reasoning, if the model reasons, then one call or more, and nothing else. The parser of the same format reads
every text that matches, and the arguments fit the schema of their tool. Refuses to know: how grammars are followed.
Specs: REPLY-16, REPLY-17. Next: `ferrum.engine.timing`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from typing import Any

from ferrum.errors import InvalidParameter, quoted
from ferrum.replies.calls import Tool
from ferrum.replies.formats import ReplyFormats
from ferrum.replies.thought_grammar import literal, thought_rules
from ferrum.sampling_params import StructuredOutputs

MOST_CALLS = 16
_NAME = re.compile(r"[\w.:-]+", re.ASCII)


def tool_grammar(formats: ReplyFormats, tools: Sequence[Tool], *, parallel: bool, prompt: str) -> StructuredOutputs:
    """The whole answer to this prompt is a call of one of these tools; `parallel`: one or more calls. Raises
    InvalidParameter for tools that cannot be called in this way."""
    if not tools:
        raise InvalidParameter("tools", "must hold a tool, since one must be called")
    written = formats.calls.written
    calls = f"call ({literal(written.between)} call){{0,{MOST_CALLS - 1}}}" if parallel and written.between else "call"
    if parallel and not written.between:
        calls = f"call{{1,{MOST_CALLS}}}"
    thought, rules = thought_rules(formats, prompt)
    parts = (thought, literal(written.begin), calls, literal(written.end))
    before, after = written.before_arguments, literal(written.after_arguments)
    each = (f"{literal(written.before_name + _name(tool) + before)} %json {_schema(tool)} {after}" for tool in tools)
    lines = (f"start: {' '.join(filter(None, parts))}", *rules, "call: " + "\n    | ".join(each))
    return StructuredOutputs(grammar="\n".join(lines))


def _name(tool: Tool) -> str:
    if not _NAME.fullmatch(tool.name):
        raise InvalidParameter("tools", f"must have names of letters, digits and _.:-, not {quoted(tool.name)}")
    return tool.name


def _schema(tool: Tool) -> str:
    """The schema of the arguments, which must be an object."""
    kind: Any = tool.parameters.get("type", "object")
    if kind != "object" and not (isinstance(kind, list) and "object" in kind):
        raise InvalidParameter("tools", f"{tool.name}: the arguments of a tool are an object, not {quoted(kind)}")
    schema: Mapping[str, Any] = {**tool.parameters, "type": "object"}
    return json.dumps(schema, ensure_ascii=False)

"""A grammar for the reasoning that a model may write before its answer.

Owns: the rules for reasoning, and putting them before a required form of the answer, because the form does not hold for
the reasoning. Refuses to know: how grammars are followed.
Specs: REPLY-18. Next: `ferrum.replies.tool_grammar`.
"""

from __future__ import annotations

import json

from ferrum.replies.formats import ReplyFormats
from ferrum.sampling_params import StructuredOutputs

LONGEST_THOUGHT = 4000
"""The largest number of characters of reasoning, so that a required answer is reached."""


def thought_rules(formats: ReplyFormats, prompt: str) -> tuple[str, tuple[str, ...]]:
    """The text that stands before an answer to this prompt in a grammar, and the rules that it needs."""
    if formats.reasoning is None:
        return "", ()
    opening, closing, after = formats.reasoning.written_reasoning
    thought = f"thought {literal(after)}"
    if not formats.reasoning.begins_inside(prompt):
        thought = f"({literal(opening)} {thought})?"
    return thought, (f"thought[suffix={literal(closing)}]: /(?s:.{{0,{LONGEST_THOUGHT}}})/",)


def after_thought(formats: ReplyFormats, prompt: str, structure: StructuredOutputs) -> StructuredOutputs:
    """The form of an answer, with reasoning allowed before it if the model reasons. A grammar of the caller describes
    the whole answer, with reasoning, and stays as it is."""
    thought, rules = thought_rules(formats, prompt)
    if not thought or structure.kind == "grammar":
        return structure
    match structure.kind:
        case "json":
            form = f"%json {structure.text}"
        case "choice":
            form = " | ".join(literal(choice) for choice in structure.choice or ())
        case _:
            form = f"/{_slashes(structure.text)}/"
    return StructuredOutputs(
        grammar="\n".join((f"start: {thought} form", *rules, f"form: {form}")),
        one_of_as_any_of=structure.one_of_as_any_of,
        strict_formats=structure.strict_formats,
    )


def literal(text: str) -> str:
    """A text as a literal of Lark; empty for an empty text."""
    return json.dumps(text, ensure_ascii=False) if text else ""


def _slashes(expression: str) -> str:
    """A regular expression as Lark has it, between slashes on one line."""
    found, escaped = "", False
    for char in expression:
        if char == "/" and not escaped:
            found += "\\/"
        elif char == "\n":
            found += "n" if escaped else "\\n"
        else:
            found += char
        escaped = char == "\\" and not escaped
    return found

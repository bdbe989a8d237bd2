"""Grammars in Lark's syntax: whether their rules match finite texts, and which JSON schemas they contain.

Owns: the part of the syntax that this needs. Anything else is passed to the library, which may refuse it.
Refuses to know: terminals, which the library checks, and what a schema means.
Specs: SAMPLE-43. Next: `ferrum.sample.grammars.schema_keywords`.
"""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any

from ferrum.errors import quoted
from ferrum.sample.grammars.refusals import CannotFollow
from ferrum.sample.grammars.rules import NOTHING, All, Needs, One, endless_from

START = "start"
DEEPEST = 100
"""Depth of nested groups, at most; the library accepts less."""
_TOKEN = re.compile(
    r"""(?P<space>[ \t\r]+|(?://|\#)[^\n]*)
    | (?P<line>\n)
    | (?P<text>"(?:[^"\\\n]|\\.)*"i?|/(?:[^/\\\n]|\\.)+/[a-z]*|<[^>\n]*>|@\w+|%\w+)
    | (?P<name>!?[_?]?[A-Za-z][\w-]*)
    | (?P<other>->|\.\.|::|.)""",
    re.VERBOSE,
)
_HEAD = re.compile(r"(?:\.-?\d+)?(?:\[(?P<ways>[^\]\n]*)\])?[ \t]*:(?!:)")
"""Between the name of a rule and its body: a priority, and options for its end."""
_OPTIONAL = "*?"


def prepared(text: str, followed: Callable[[Any], Any]) -> str:
    """The same grammar with each schema made what `followed` makes of it. Raises CannotFollow for a grammar in which a
    rule can begin that cannot end."""
    grammar = _read(text)
    endless_rule = endless_from(START, grammar.rules())
    if endless_rule is not None:
        raise CannotFollow(f"the rule {quoted(endless_rule)} has no end: it always needs itself again")
    for start, end, schema in reversed(grammar.schemas):
        text = text[:start] + " " + json.dumps(followed(schema)) + text[end:]
    return text


@dataclass
class _Grammar:
    """`tokens`: kinds and texts: "head" for the beginning of a statement, its text being the rule that it defines, or
    empty for a directive, a terminal, and a rule that can be ended from outside. `schemas`: from where to where."""

    tokens: list[tuple[str, str]] = field(default_factory=list)
    schemas: list[tuple[int, int, Any]] = field(default_factory=list)

    def rules(self) -> dict[str, Needs]:
        heads = [at for at, (kind, _) in enumerate(self.tokens) if kind == "head"]
        bodies = zip(heads, [*heads[1:], len(self.tokens)], strict=True)
        return {
            self.tokens[head][1]: _Body(self.tokens[head + 1 : end]).needs()
            for head, end in bodies
            if self.tokens[head][1]
        }


def _read(text: str) -> _Grammar:
    grammar = _Grammar()
    at, fresh = 0, True  # fresh: at the beginning of a line
    while at < len(text):
        token = _TOKEN.match(text, at)
        assert token is not None  # the last kind is any character; a line end is one of its own
        kind, value, at = str(token.lastgroup), token[0], token.end()
        if kind == "line":
            fresh = True
            continue
        if kind == "space":
            continue
        head = _HEAD.match(text, at) if fresh and kind == "name" else None
        if head is not None:
            name = value.lstrip("?!")
            grammar.tokens.append(("head", "" if _is_terminal(name) or head["ways"] else name))
            at = head.end()
        elif value in _BRACED:
            end, schema = _json(text, at)
            if value == "%json" and isinstance(schema, dict):
                grammar.schemas.append((at, end, schema))
            grammar.tokens.append(("text", value) if _BRACED[value] else ("head", ""))
            at = end
        elif fresh and value.startswith("%"):
            grammar.tokens.append(("head", ""))
        else:
            grammar.tokens.append((kind, value))
        fresh = False
    return grammar


_BRACED = {"%json": True, "%regex": True, "%llguidance": False}
"""The keywords before JSON, and whether the JSON is a part of a rule."""


def _json(text: str, at: int) -> tuple[int, Any]:
    """-> where the JSON behind `at` ends, and its value. If it is not JSON: `at` itself, and None."""
    space = re.compile(r"\s*").match(text, at)
    assert space is not None
    try:
        schema, end = json.JSONDecoder().raw_decode(text, space.end())
    except (ValueError, RecursionError):
        return at, None
    return end, schema


def _is_terminal(name: str) -> bool:
    return name.lstrip("_")[:1].isupper()


class _Body:
    """The body of a rule."""

    def __init__(self, tokens: list[tuple[str, str]]) -> None:
        self._tokens = tokens
        self._at = 0
        self._depth = 0

    def needs(self) -> Needs:
        options: list[Needs] = []
        parts: list[Needs] = []
        while self._at < len(self._tokens):
            kind, value = self._tokens[self._at]
            if value in (")", "]") and kind == "other" and self._depth:
                break
            self._at += 1
            if value == "|" and kind == "other":
                options.append(All(parts))
                parts = []
            elif value == "->":
                self._at += 1  # another name for it
            elif kind == "name":
                parts.append(NOTHING if _is_terminal(value) else value)
                self._suffix(parts)
            elif value in ("(", "[") and kind == "other":
                parts.append(self._group(value))
                self._suffix(parts)
        return One([*options, All(parts)])

    def _group(self, opener: str) -> Needs:
        self._depth += 1
        if self._depth > DEEPEST:
            raise CannotFollow("groups are too deeply nested in one another")
        inner = self.needs()
        self._depth -= 1
        self._at += 1
        return inner if opener == "(" else NOTHING

    def _suffix(self, parts: list[Needs]) -> None:
        """An optional part needs nothing."""
        following = "".join(value for _, value in self._tokens[self._at : self._at + 2])
        if following[:1] in tuple(_OPTIONAL) or following[:2] in ("{0", "~0", "{,"):
            parts[-1] = NOTHING

"""A parser for regular expressions of the Oniguruma library, as far as their running time depends on them.

Owns: reading the notation that tokenizers use. References to groups, calls and conditions are refused: their running
time has no simple bound. Refuses to know: which characters an atom stands for, and what an expression costs
(`regex_cost`).
Source: https://github.com/kkos/oniguruma/blob/master/doc/RE (Ruby syntax).
Specs: TEXT-44. Next: `ferrum.text.byte_tokenizer`.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import TypeAlias

LONGEST = 16 << 10  # characters of an expression; those of published models have some hundreds
DEEPEST = 50  # levels of nested groups

_QUANTIFIER = re.compile(r"([*+?])([?+]?)|\{(\d*)(,?)(\d*)\}(\??)")
_OPTIONS = re.compile(r"\(\?[imaWDSPy{}gw-]*([:)])")
_GROUPS = re.compile(r"\((?:\?(:|>|=|!|<=|<!|<[A-Za-z_]\w*>|'[A-Za-z_]\w*'))?")
_ESCAPE = re.compile(
    r"\\(?s:[pP]\{[^}]*\}|x\{[0-9A-Fa-f ]*\}|x[0-9A-Fa-f]{1,2}|u[0-9A-Fa-f]{4}|[0-7]{3}|c.|C-.|M-.|[^0-9kgKpPxuCM])"
)
_ASSERTIONS = {r"\A", r"\z", r"\Z", r"\b", r"\B", r"\G", r"\y", r"\Y"}


class NotUnderstood(ValueError):
    """The expression is malformed, or uses a construct that no tokenizer needs."""


@dataclass(frozen=True)
class Atom:
    """One character of some kind; `source` is how the expression writes it."""

    source: str


@dataclass(frozen=True)
class Look:
    """A condition on a place, which consumes no characters: an anchor, or a look-ahead or look-behind."""

    source: str
    inner: Part | None = None  # what a look-ahead or look-behind looks for; None for an anchor


@dataclass(frozen=True)
class Atomic:
    """An atomic group: once it has matched, it is not matched in another way."""

    inner: Part


@dataclass(frozen=True)
class Repeat:
    """A part that matches `least` to `most` times."""

    inner: Part
    least: int
    most: int | None  # None: without limit


@dataclass(frozen=True)
class Sequence:
    """Parts that match one after another."""

    parts: tuple[Part, ...]


@dataclass(frozen=True)
class Choice:
    """Branches, tried in this order until one matches."""

    branches: tuple[Part, ...]


Part: TypeAlias = Atom | Look | Atomic | Repeat | Sequence | Choice


def parts_of(expression: str) -> Part:
    """Parses an expression. Raises `NotUnderstood` if it is malformed, too long, nested too deep, or not supported."""
    if len(expression) > LONGEST:
        raise NotUnderstood(f"it has more than {LONGEST} characters")
    reader = _Reader(expression)
    parsed = reader.choice(0)
    if reader.position < len(expression):
        raise NotUnderstood("a parenthesis is closed that is not open")
    return parsed


class _Reader:
    """A recursive-descent parser: one method per construct, each of which moves `position` past what it has read."""

    def __init__(self, text: str) -> None:
        self.text, self.position = text, 0

    def next_is(self, word: str) -> bool:
        return self.text.startswith(word, self.position)

    def take(self, pattern: re.Pattern[str]) -> re.Match[str] | None:
        match = pattern.match(self.text, self.position)
        if match is not None:
            self.position = match.end()
        return match

    def choice(self, depth: int) -> Part:
        """Parses up to the end of the group, which is not consumed."""
        if depth > DEEPEST:
            raise NotUnderstood(f"it nests groups more than {DEEPEST} deep")
        branches = [self.sequence(depth)]
        while self.next_is("|"):
            self.position += 1
            branches.append(self.sequence(depth))
        return branches[0] if len(branches) == 1 else Choice(tuple(branches))

    def sequence(self, depth: int) -> Part:
        parts: list[Part] = []
        while self.position < len(self.text) and not self.next_is("|") and not self.next_is(")"):
            part = self.single(depth)
            while (quantifier := self.take(_QUANTIFIER)) is not None:
                part = _repeated(part, quantifier)
            parts.append(part)
        return parts[0] if len(parts) == 1 else Sequence(tuple(parts))

    def single(self, depth: int) -> Part:
        start = self.position
        if self.next_is("("):
            return self.group(depth)
        if self.next_is("["):
            self.character_class(depth)
        elif self.next_is("\\"):
            if self.take(_ESCAPE) is None:
                raise NotUnderstood(f"it uses {self.text[start : start + 2]}")
        else:
            self.position += 1
        source = self.text[start : self.position]
        return Look(source) if source in _ASSERTIONS or source in "^$" else Atom(source)

    def group(self, depth: int) -> Part:
        if (options := self.take(_OPTIONS)) is not None and options[1] == ")":
            return self.choice(depth + 1)  # holds to the end of the enclosing group, in its other branches too
        start = self.position
        kind = options[1] if options is not None else self.take(_GROUPS)
        if not isinstance(kind, str):
            kind = kind[1] if kind is not None else None
        if kind is None and self.next_is("?"):
            raise NotUnderstood(f"it uses ({self.text[self.position : self.position + 2]}")
        inner = self.choice(depth + 1)
        if not self.next_is(")"):
            raise NotUnderstood("a parenthesis is not closed")
        self.position += 1
        if kind in ("=", "!", "<=", "<!"):
            return Look(self.text[start : self.position], inner)
        return Atomic(inner) if kind == ">" else inner

    def character_class(self, depth: int) -> None:
        """Skips `[…]`, which may hold nested classes."""
        if depth > DEEPEST:
            raise NotUnderstood(f"it nests groups more than {DEEPEST} deep")
        self.position += 2 if self.text.startswith("^", self.position + 1) else 1
        first = self.position
        while self.position < len(self.text):
            if self.next_is("]") and self.position > first:
                self.position += 1
                return
            if self.next_is("["):
                self.character_class(depth + 1)
            elif not self.next_is("\\") or self.take(_ESCAPE) is None:
                self.position += 1
        raise NotUnderstood("a bracket is not closed")


def _repeated(part: Part, quantifier: re.Match[str]) -> Part:
    symbol, mark, least, comma, most, reluctant = quantifier.groups()
    if symbol is not None:
        repeat = Repeat(part, int(symbol == "+"), 1 if symbol == "?" else None)
        return Atomic(repeat) if mark == "+" else repeat
    if not (least or most):  # `{}` and `{,}` stand for themselves
        return Sequence((part, *map(Atom, quantifier[0])))
    if max(len(least), len(most)) > 6:
        raise NotUnderstood("it counts to more than a million")
    lower = int(least or 0)
    upper = lower if not comma else int(most) if most else None
    repeat = Repeat(part, lower, upper)
    return Repeat(repeat, 0, 1) if reluctant and upper == lower else repeat

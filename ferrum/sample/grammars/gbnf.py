"""GBNF, the grammars of llama.cpp, as text: read into rules.

Owns: the syntax, and the position of an error in a text. Refuses to know: how the rules are used.
Specs: SAMPLE-40, SAMPLE-41. Source: llama.cpp, grammars/README.md. Next: `ferrum.sample.grammars.gbnf_lark`.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import NoReturn, Union

from ferrum.errors import quoted
from ferrum.sample.grammars.refusals import CannotFollow

DEEPEST = 100
"""Depth of nested groups, at most."""
MOST_REPEATED = 2000
"""Largest lower bound of a repetition, as in llama.cpp."""
LAST = 0x10FFFF
_SURROGATES = (0xD800, 0xDFFF)

Item = Union["Text", "Chars", "Name", "Choice", "Repeat"]
Ranges = tuple[tuple[int, int], ...]


@dataclass(frozen=True)
class Text:
    """These characters."""

    text: str


@dataclass(frozen=True)
class Chars:
    """One character of these ranges of code points, ascending and disjoint; without ranges, nothing matches."""

    ranges: Ranges


@dataclass(frozen=True)
class Name:
    """A text that the rule of this name matches."""

    name: str
    at: int  # in the text


@dataclass(frozen=True)
class Choice:
    """One of several sequences."""

    options: tuple[tuple[Item, ...], ...]


@dataclass(frozen=True)
class Repeat:
    """A repetition; `most` None: without upper limit."""

    item: Item
    least: int
    most: int | None


EMPTY = Text("")
ANY = Chars(((1, _SURROGATES[0] - 1), (_SURROGATES[1] + 1, LAST)))
"""Every character. U+0000 is none, as in llama.cpp, where it ends a text."""
_SPACE = re.compile(r"(?:[ \t]|#[^\r\n]*)*")
_SPACE_AND_LINES = re.compile(r"(?:[ \t\r\n]|#[^\r\n]*)*")
_PLAIN = re.compile(r'[^"\\\x00\ud800-\udfff]+')
_NAME = re.compile(r"[A-Za-z0-9_-]+")
_NUMBER = re.compile(r"[0-9]+")
_LINE_END = re.compile(r"\r\n|\r|\n")
_TOKEN = re.compile(r"!?<[^>\r\n]*>?")
_ESCAPES = {"t": "\t", "r": "\r", "n": "\n", **{char: char for char in '\\"[]-'}}
_KNOWN_ESCAPES = r"\n \r \t \\ \" \[ \] \- \xNN \uNNNN \UNNNNNNNN"
_HEX = {"x": 2, "u": 4, "U": 8}
_REPEATED = {"*": (0, None), "+": (1, None), "?": (0, 1)}


def read(text: str) -> dict[str, Choice]:
    """The rules by their names. Where a name comes twice the last one holds, as in llama.cpp. Raises CannotFollow."""
    return _Reader(text).rules()


def refuse(text: str, at: int, message: str) -> NoReturn:
    """Raises CannotFollow with line and column."""
    before = _LINE_END.sub("\n", text[:at])
    line = before.count("\n") + 1
    raise CannotFollow(f"line {line}, column {len(before) - before.rfind(chr(10))}: {message}")


class _Reader:
    """A recursive descent parser; each method reads the part in its name and the white space after it."""

    def __init__(self, text: str) -> None:
        self._text = text
        self._at = 0
        self._depth = 0

    def rules(self) -> dict[str, Choice]:
        rules = {}
        self._skip(_SPACE_AND_LINES)
        while self._at < len(self._text):
            name = self._match(_NAME) or self._expected("the name of a rule")
            self._skip(_SPACE)
            if not self._take("::="):
                self._expected(f"'::=' behind the name {quoted(name)}")
            self._skip(_SPACE_AND_LINES)
            rules[name] = self._choice()
            if self._at < len(self._text) and not self._match(_LINE_END):
                self._expected("the end of the rule or something to match")
            self._skip(_SPACE_AND_LINES)
        return rules

    def _choice(self) -> Choice:
        options = [self._sequence()]
        while self._take("|"):
            self._skip(_SPACE_AND_LINES)
            options.append(self._sequence())
        return Choice(tuple(options))

    def _sequence(self) -> tuple[Item, ...]:
        items: list[Item] = []
        last: Item | None = None  # the item that `*` would repeat; None if there is none, or it is empty
        repetitions = 0
        while self._at < len(self._text):
            start, char = self._at, self._text[self._at]
            if char in "*+?{":
                if last is None:
                    self._fail(start, f"{char!r} has nothing to repeat before it")
                repetitions += 1
                if repetitions > DEEPEST:
                    self._fail(start, f"repetitions of repetitions, more than {DEEPEST} deep")
                last = items[-1] = self._repeated(last)
            else:
                repetitions = 0
                item = self._item(char)
                if item is None:
                    break
                last = item if item != EMPTY else None
                items.append(item)
            self._skip(_SPACE_AND_LINES if self._depth else _SPACE)
        return tuple(items)

    def _item(self, char: str) -> Item | None:
        """The next item; None if the text there begins no item."""
        start = self._at
        if char == '"':
            return self._literal()
        if char == "[":
            return self._class()
        if char == "(":
            return self._group()
        if char == ".":
            self._at += 1
            return ANY
        token = self._match(_TOKEN) if char in "<!" else None
        if token:
            self._fail(start, f'{quoted(token)} names a token: only text can be matched, such as "<think>" in quotes')
        name = self._match(_NAME)
        return None if name is None else Name(name, start)

    def _group(self) -> Item:
        start = self._at
        self._at += 1
        self._depth += 1
        if self._depth > DEEPEST:
            self._fail(start, f"groups stand in one another more than {DEEPEST} deep")
        self._skip(_SPACE_AND_LINES)
        choice = self._choice()
        if not self._take(")"):
            self._expected("')' or something to match")
        self._depth -= 1
        return choice

    def _literal(self) -> Item:
        start = self._at
        self._at += 1
        parts = []
        while not self._take('"'):
            plain = self._match(_PLAIN)
            if plain is None:
                code = self._character(start)
                if not _possible([(code, code)]):
                    self._fail(start, f"no text has the character U+{code:04X}")
                plain = chr(code)
            parts.append(plain)
        return Text("".join(parts))

    def _class(self) -> Item:
        start = self._at
        self._at += 1
        negated = self._take("^")
        ranges: list[tuple[int, int]] = []
        while not self._take("]"):
            low = high = self._character(start)
            if self._text.startswith("-", self._at) and not self._text.startswith("-]", self._at):
                self._at += 1
                high = self._character(start)
            ranges.append((low, high))
        if not ranges:
            return EMPTY  # as in llama.cpp, whether negated or not
        chars = Chars(_possible(_complement(ranges) if negated else ranges))
        if not chars.ranges:
            self._fail(start, "no character is one of these")
        return chars

    def _character(self, start: int) -> int:
        """`start`: of what it is a part of."""
        at = self._at
        char = self._text[at : at + 1]
        if not char:
            self._fail(start, f"{self._text[start]} has no end")
        self._at += 1
        if char != "\\":
            return ord(char)
        kind = self._text[at + 1 : at + 2]
        self._at += 1
        if kind in _HEX:
            digits = self._text[at + 2 : at + 2 + _HEX[kind]]
            if not re.fullmatch(f"[0-9A-Fa-f]{{{_HEX[kind]}}}", digits):
                self._fail(at, f"expected {_HEX[kind]} hexadecimal digits behind \\{kind}")
            self._at += _HEX[kind]
            return int(digits, 16)
        if kind not in _ESCAPES:
            self._fail(at, f"{quoted(chr(92) + kind)} is no escape sequence: there are {_KNOWN_ESCAPES}")
        return ord(_ESCAPES[kind])

    def _repeated(self, item: Item) -> Item:
        start, char = self._at, self._text[self._at]
        self._at += 1
        if char in _REPEATED:
            return Repeat(item, *_REPEATED[char])
        space = _SPACE_AND_LINES if self._depth else _SPACE
        self._skip(space)
        least = self._number()
        most: int | None = least
        self._skip(space)
        if self._take(","):
            self._skip(space)
            most = None if self._text.startswith("}", self._at) else self._number()
            self._skip(space)
        if not self._take("}"):
            self._expected("'}'")
        if least > MOST_REPEATED:
            self._fail(start, f"must not demand more than {MOST_REPEATED} times the same")
        if most is not None and most < least:
            self._fail(start, f"at least {least} times and at most {most} times: nothing is both")
        return Repeat(item, least, most)

    def _number(self) -> int:
        digits = self._match(_NUMBER) or self._expected("a number of times")
        return int(digits[:20])

    def _match(self, pattern: re.Pattern[str]) -> str | None:
        match = pattern.match(self._text, self._at)
        if match is None:
            return None
        self._at = match.end()
        return match[0]

    def _skip(self, space: re.Pattern[str]) -> None:
        self._match(space)

    def _take(self, text: str) -> bool:
        if not self._text.startswith(text, self._at):
            return False
        self._at += len(text)
        return True

    def _expected(self, description: str) -> NoReturn:
        following = self._text[self._at : self._at + 1]
        self._fail(
            self._at, f"expected {description}, not {'the end of the text' if not following else quoted(following)}"
        )

    def _fail(self, at: int, message: str) -> NoReturn:
        refuse(self._text, at, message)


def _possible(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """The same as ascending ranges that do not touch, of characters that a text can have."""
    result: list[tuple[int, int]] = []
    for low, high in sorted(ranges):
        for least, most in ANY.ranges:
            first, last = max(low, least), min(high, most)
            if first <= last and result and first <= result[-1][1] + 1:
                result[-1] = (result[-1][0], max(last, result[-1][1]))
            elif first <= last:
                result.append((first, last))
    return tuple(result)


def _complement(ranges: Sequence[tuple[int, int]]) -> list[tuple[int, int]]:
    """Every code point that is in none of the ranges."""
    gaps, least = [], 0
    for low, high in sorted(ranges):
        if low > high:
            continue
        if low > least:
            gaps.append((least, low - 1))
        least = max(least, high + 1)
    return [*gaps, (least, LAST)] if least <= LAST else gaps

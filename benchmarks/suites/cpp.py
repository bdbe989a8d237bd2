"""Calls in C++ test files, read as Python values: what other people's tests keep their cases in.

Owns: a small part of C++: comments, literals of text (plain, raw, joined), numbers, braced lists, and those names and
calls that the reader is told the meaning of. Anything else in a call that was asked for is an error, and so is another
number of calls than a plain search finds: no case is lost. Refuses to know: what is tested.
Specs: SUITE-20. Next: `benchmarks/suites/vocabularies.py`.
"""

from __future__ import annotations

import re
from collections import ChainMap
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Any

_TOKENS = re.compile(
    r"""(?P<space>\s+|//[^\n]*|/\*.*?\*/|^[ ]*\#[^\n]*)
    |(?P<raw>(?:u8|[uUL])?R"(?P<mark>[^(\s]*)\((?P<inside>.*?)\)(?P=mark)")
    |(?P<text>(?:u8|[uUL])?"(?P<plain>(?:\\.|[^"\\])*)")
    |(?P<character>'(?P<single>(?:\\.|[^'\\])+)')
    |(?P<number>0x[0-9a-fA-F]+|(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?)(?P<suffix>[fFuUlL]*)
    |(?P<name>[A-Za-z_]\w*(?:::\w+)*)
    |(?P<sign>.)""",
    re.VERBOSE | re.DOTALL | re.MULTILINE,
)
_ESCAPE = re.compile(rb"\\(?:x([0-9a-fA-F]+)|([0-7]{1,3})|u([0-9a-fA-F]{4})|U([0-9a-fA-F]{8})|(.))", re.DOTALL)
_NAMED = {b"n": b"\n", b"t": b"\t", b"r": b"\r", b"b": b"\b", b"f": b"\f", b"v": b"\v", b"a": b"\a", b"\n": b""}
_CONSTANTS: dict[str, Any] = {"true": True, "false": False, "nullptr": None}


class NotUnderstood(ValueError):
    """A call that this reader cannot read whole."""


@dataclass(frozen=True)
class _Token:
    kind: str
    text: str
    value: Any
    at: int


class Reader:
    """One file. `names`: what names stand for, beside true, false and nullptr; `functions`: what a call makes of its
    arguments."""

    def __init__(
        self,
        source: str,
        names: dict[str, Any] | None = None,
        functions: Mapping[str, Callable[..., Any]] | None = None,
    ) -> None:
        self.source = source
        self._names = ChainMap({} if names is None else names, _CONSTANTS)  # a caller may learn more of them
        self._functions = functions or {}
        self._tokens = [*_read_tokens(source), _Token("end", "", None, len(source))]
        self._place = 0

    def calls(self, name: str) -> list[list[Any]]:
        """The arguments of every call of that function, in order. A name behind another name is a declaration."""
        found = []
        for place, token in enumerate(self._tokens[:-1]):
            is_declared = place > 0 and self._tokens[place - 1].kind == "name"
            if token.text != name or self._tokens[place + 1].text != "(" or is_declared:
                continue
            self._place = place + 2
            found.append(self._list(")"))
        written = len(re.findall(rf"^[ \t]+{re.escape(name)}\(", self.source, re.MULTILINE))
        if len(found) != written:
            raise NotUnderstood(f"{len(found)} calls of {name} were read, but {written} are written")
        return found

    def chains(self, name: str, method: str, last: str) -> list[dict[str, list[Any]]]:
        """Each chain that begins with `name.method(…)` and ends with `.last()`: what every method in it is given."""
        found = []
        for place in range(len(self._tokens) - 3):
            if [token.text for token in self._tokens[place : place + 4]] == [name, ".", method, "("]:
                self._place, chain = place + 1, dict[str, list[Any]]()
                while last not in chain:
                    self._take(".")
                    called = self._take().text
                    self._take("(")
                    chain[called] = self._list(")")
                found.append(chain)
        written = len(re.findall(rf"^[ \t]+{re.escape(name)}\.{re.escape(method)}\(", self.source, re.MULTILINE))
        if len(found) != written:
            raise NotUnderstood(f"{len(found)} chains of {name}.{method} were read, but {written} are written")
        return found

    def values(self, name: str) -> list[Any]:
        """What every variable of that name is given where it is declared: `type name = value`, `type name {values}`."""
        found = []
        for place, token in enumerate(self._tokens[1:-2], 1):
            before, follows = self._tokens[place - 1], self._tokens[place + 1].text
            if (
                token.text == name
                and follows in ("=", "{")
                and (before.kind == "name" or before.text in (">", "&", "*"))
            ):
                self._place = place + (2 if follows == "=" else 1)
                found.append(self._sum())
        written = len(re.findall(rf"^[ \t]*[\w:<>* ]+ {re.escape(name)}\s*[={{]", self.source, re.MULTILINE))
        if len(found) != written:
            raise NotUnderstood(f"{len(found)} values of {name} were read, but {written} are written")
        return found

    def _list(self, end: str) -> list[Any]:
        values: list[Any] = []
        while self._next.text != end or self._next.kind != "sign":
            values.append(self._sum())
            if self._next.text != end:
                self._take(",")
        self._take(end)
        return values

    def _sum(self) -> Any:
        value = self._quotient()
        while self._next.text == "+":
            self._take()
            value = value + self._quotient()
        return value

    def _quotient(self) -> Any:
        value = self._value()
        while self._next.text == "/":
            self._take()
            divisor = self._value()
            if isinstance(value, int) and isinstance(divisor, int):
                raise self._lost("whole numbers are divided")
            value = value / divisor
        return value

    def _value(self) -> Any:
        token = self._take()
        if token.kind in ("text", "raw"):
            return token.value + "".join(self._joined())
        if token.kind in ("number", "character"):
            return token.value
        if token.kind == "sign" and token.text == "{":
            return self._list("}")
        if token.kind == "sign" and token.text == "-":
            return -self._value()
        if token.kind == "name" and self._next.text == "(" and token.text in self._functions:
            self._take("(")
            return self._functions[token.text](*self._list(")"))
        if token.kind == "name" and token.text in self._names and self._next.text not in ("(", ".", "["):
            return self._names[token.text]
        raise self._lost(f"{token.text!r} has no known meaning", token)

    def _joined(self) -> Iterator[str]:
        while self._next.kind in ("text", "raw"):
            yield self._take().value

    @property
    def _next(self) -> _Token:
        return self._tokens[self._place]

    def _take(self, wanted: str | None = None) -> _Token:
        token = self._next
        if token.kind == "end" or (wanted is not None and token.text != wanted):
            raise self._lost(f"{wanted or 'a value'} is expected, not {token.text or 'the end'}")
        self._place += 1
        return token

    def _lost(self, why: str, token: _Token | None = None) -> NotUnderstood:
        line = self.source.count("\n", 0, (token or self._next).at) + 1
        return NotUnderstood(f"line {line}: {why}")


def _read_tokens(source: str) -> Iterator[_Token]:
    for match in _TOKENS.finditer(source):
        kind, text = match.lastgroup or "", match.group()
        if match["space"] is not None:
            continue
        value: Any = None
        if match["raw"] is not None:
            kind, value = "raw", match["inside"]
        elif match["text"] is not None:
            kind, value = "text", _unescaped(match["plain"])
        elif match["character"] is not None:
            kind, value = "character", _unescaped(match["single"])
        elif match["number"] is not None:
            kind, value = "number", _number(match["number"], match["suffix"])
        yield _Token(kind, text, value, match.start())


def _number(text: str, suffix: str) -> int | float:
    whole = text.startswith("0x") or (text.isdigit() and "f" not in suffix.lower())
    return int(text, 0) if whole else float(text)


def _unescaped(text: str) -> str:
    """Bytes that are no UTF-8 become halves of surrogate pairs, as in file names."""

    def replaced(match: re.Match[bytes]) -> bytes:
        hexadecimal, octal, short, long, letter = match.groups()
        if short or long:
            return chr(int(short or long, 16)).encode()
        if hexadecimal or octal:
            return bytes([int(hexadecimal, 16) if hexadecimal else int(octal, 8)])
        return _NAMED.get(letter, letter)

    return _ESCAPE.sub(replaced, text.encode()).decode(errors="surrogateescape")

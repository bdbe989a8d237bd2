"""SentencePiece's normalization: characters replaced by rules, extra spaces removed, spaces written as "▁".

The tokenizers library has a step for such rules too, but it looks up whole clusters of characters: two characters that
the rules compose stay apart, and half of "\\r\\n" is lost.

Owns: the longest rule at each place, and the treatment of spaces. Refuses to know: whether the rules are damaged
(`character_rules`), tokens.
Source: https://github.com/google/sentencepiece (`normalizer.cc`), https://github.com/s-yata/darts-clone.
Specs: TEXT-30, TEXT-33. Next: `ferrum.text.tokenizer_steps`.
"""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

import numpy as np

from ferrum.text.token_bytes import SENTENCEPIECE_SPACE

_NO_RULE = (0, 0)  # no bytes replaced
_PLAIN = re.compile(rb"[ -~]+(?=[ -~])|[ -~]+\Z")  # ASCII without its last character if a mark could compose with it
_SPACES = re.compile(" {2,}")


class SentencePieceText:
    """The normalization of one model."""

    def __init__(self, rules: bytes, growth: int, *, prefixed: bool, removes_spaces: bool) -> None:
        """`rules`: a `precompiled_charsmap`, checked by `growth_of_rules`, which returned `growth`. `prefixed`: a space
        is put in front of a text. `removes_spaces`: spaces at both ends are removed, and several in a row become
        one."""
        size = int.from_bytes(rules[:4], "little")
        self._units: list[int] = np.frombuffer(rules, "<u4", size // 4, 4).tolist()
        self._texts = rules[4 + size :] + b"\0"
        self.growth = growth
        self._prefixed = prefixed
        self._removes_spaces = removes_spaces
        printable = [bytes([byte]) for byte in range(0x20, 0x7F)]
        pairs = (first + second for first in printable for second in printable)
        self._changes_ascii = any(self._rule(text, 0)[0] for text in (*printable, *pairs))

    def normalize(self, text: Any) -> None:
        """Changes a `tokenizers.NormalizedString`: the library calls this for each stretch between added tokens."""
        normalized = self.of(text.normalized)
        text.clear()
        text.append(normalized)

    def of(self, text: str) -> str:
        """The normalized text."""
        parts: list[str] = []
        after_space = self._removes_spaces
        for part in self._parts(text.encode()):
            if after_space:
                part = part.lstrip(" ")
            parts.append(part)
            if part and self._removes_spaces:
                after_space = part.endswith(" ")
        if not parts:
            return ""
        normalized = (" " if self._prefixed else "") + "".join(parts)
        normalized = normalized.replace(" ", SENTENCEPIECE_SPACE)
        return normalized.rstrip(SENTENCEPIECE_SPACE) if self._removes_spaces else normalized

    def _parts(self, octets: bytes) -> Iterator[str]:
        """The text with the rules applied, in parts: one per rule, one per character without a rule, and one per
        stretch of ASCII if no rule begins with ASCII."""
        place = 0
        while place < len(octets):
            plain = None if self._changes_ascii else _PLAIN.match(octets, place)
            if plain is not None:
                place = plain.end()
                yield from self._tidied(plain[0].decode())
                continue
            length, start = self._rule(octets, place)
            if length:
                yield self._texts[start : self._texts.index(b"\0", start)].decode(errors="replace")
            else:
                length = _character(octets, place)
                yield octets[place : place + length].decode(errors="replace")
            place += length

    def _tidied(self, text: str) -> Iterator[str]:
        """A stretch of ASCII in parts that `of` treats as it would treat the single characters."""
        if not self._removes_spaces:
            yield text
            return
        text = _SPACES.sub(" ", text)
        if text.startswith(" "):
            yield " "
        if text != " ":
            yield text.removeprefix(" ")

    def _rule(self, octets: bytes, place: int) -> tuple[int, int]:
        """The longest rule for the bytes at a place -> number of bytes it replaces, and the start of its text in
        `_texts`; `_NO_RULE` if there is none."""
        units, longest = self._units, _NO_RULE
        node = _below(units[0])
        for index in range(place, len(octets)):
            octet = octets[index]
            node ^= octet
            unit = units[node]
            if not octet or unit & 0x800000FF != octet:  # the highest bit marks a value; no rule has a zero byte
                break
            node ^= _below(unit)
            if unit >> 8 & 1:
                longest = (index + 1 - place, units[node] & 0x7FFFFFFF)
        return longest


def _below(unit: int) -> int:
    """The offset of a unit's children: a child's position is the node ^ this offset ^ its byte."""
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _character(octets: bytes, place: int) -> int:
    """Number of bytes of the character at a place; 1 behind a rule that ended inside a character."""
    end = place + 1
    if octets[place] >= 0xC0:
        while end < len(octets) and octets[end] & 0xC0 == 0x80:
            end += 1
    return end - place

"""SentencePiece's normalization: characters replaced by rules, extra spaces removed, spaces written as "▁".

The tokenizers library has a step for such rules as well, but it looks up whole clusters of characters: what the rules
compose from two characters stays apart, and of "\\r\\n" one half is lost.

Owns: the longest rule at each place, and what happens to spaces. Refuses to know: whether the rules are damaged
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

_NOTHING = (0, 0)
_PLAIN = re.compile(rb"[ -~]+(?=[ -~])|[ -~]+\Z")  # ASCII that no mark follows, with which it could be composed
_SPACES = re.compile(" {2,}")


class SentencePieceText:
    """The normalization of one model. `rules` are bytes of which `growth_of_rules` has found that they make at most
    `growth` characters of one."""

    def __init__(self, rules: bytes, growth: int, *, prefixed: bool, removes_spaces: bool) -> None:
        """`prefixed`: a space goes in front of a text; `removes_spaces`: of several spaces one is left, and none at
        the ends."""
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
        made = self.of(text.normalized)
        text.clear()
        text.append(made)

    def of(self, text: str) -> str:
        """The text as it is cut."""
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
        made = (" " if self._prefixed else "") + "".join(parts)
        made = made.replace(" ", SENTENCEPIECE_SPACE)
        return made.rstrip(SENTENCEPIECE_SPACE) if self._removes_spaces else made

    def _parts(self, octets: bytes) -> Iterator[str]:
        """What becomes of the text, from rule to rule and character to character; ASCII without rules in one piece."""
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
        """A stretch as if its characters came one by one."""
        if not self._removes_spaces:
            yield text
            return
        text = _SPACES.sub(" ", text)
        if text.startswith(" "):
            yield " "
        if text != " ":
            yield text.removeprefix(" ")

    def _rule(self, octets: bytes, place: int) -> tuple[int, int]:
        """The longest rule for what begins at a place -> how many bytes it takes, and where its text is."""
        units, found = self._units, _NOTHING
        node = _below(units[0])
        for index in range(place, len(octets)):
            octet = octets[index]
            node ^= octet
            unit = units[node]
            if not octet or unit & 0x800000FF != octet:  # a value has the highest bit; nothing leads over a zero
                break
            node ^= _below(unit)
            if unit >> 8 & 1:
                found = (index + 1 - place, units[node] & 0x7FFFFFFF)
        return found


def _below(unit: int) -> int:
    """The position of the children of a unit: this ^ their byte."""
    return (unit >> 10) << ((unit & 0x200) >> 6)


def _character(octets: bytes, place: int) -> int:
    """Bytes of the character at a place; 1 where a rule has taken the first of its bytes."""
    end = place + 1
    if octets[place] >= 0xC0:
        while end < len(octets) and octets[end] & 0xC0 == 0x80:
            end += 1
    return end - place

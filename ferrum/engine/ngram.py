"""Proposals from the text itself: what followed where its last tokens stood before.

Owns: finding the earlier place that shares the longest run of tokens with the end. Places with the same last tokens are
chained, the newest first, as a Lempel-Ziv compressor chains them, so that a token costs no more in a long text.
Refuses to know: models.
Specs: DRAFT-11. Source: Saxena, "Prompt Lookup Decoding", 2023; RFC 1951, section 4 (hash chains).
Next: `ferrum.engine.draft_model`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.sched.sequence import TokenSequence

SHORTEST = 2
"""Tokens that an earlier place must share with the end: after one, hardly anything that follows is the same again."""
LONGEST = 16
"""Beyond so many, one place is as good as another."""
PLACES = 16
"""That are looked at: the newest."""


class Lookup:
    """The places of one text. It only ever grows at its end."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, ...], int] = {}  # the last tokens before a place -> the place
        self._before: list[int] = []  # the place before with the same ones; 0: none

    def propose(self, tokens: Sequence[int], most: int) -> list[int]:
        """What followed the last tokens before, `most` of it; nothing where they are new. Where it reaches the end, it
        goes on with itself, as a text that repeats itself does."""
        self._read(tokens)
        place = self._newest.get(tuple(tokens[-SHORTEST:]), 0)
        best, length = 0, 0
        for _ in range(PLACES):
            if not place or length == LONGEST:
                break
            shared = _shared(tokens, place)
            if shared > length:
                best, length = place, shared
            place = self._before[place]
        if not best:
            return []
        return [tokens[best + step % (len(tokens) - best)] for step in range(most)]

    def _read(self, tokens: Sequence[int]) -> None:
        """Every place that something stands at, and enough before it."""
        for place in range(len(self._before), len(tokens)):
            previous = 0
            if place >= SHORTEST:
                key = tuple(tokens[place - SHORTEST : place])
                previous = self._newest.get(key, 0)
                self._newest[key] = place
            self._before.append(previous)


def _shared(tokens: Sequence[int], place: int) -> int:
    """How many tokens before `place` are those of the end."""
    count = SHORTEST
    while count < LONGEST and count < place and tokens[place - 1 - count] == tokens[-1 - count]:
        count += 1
    return count


class NgramProposer:
    """A `Lookup` for every sequence."""

    cost = 0.0

    def __init__(self) -> None:
        self._lookups: dict[TokenSequence, Lookup] = {}

    def propose(self, asked: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        return [
            self._lookups.setdefault(sequence, Lookup()).propose(sequence.token_ids, most) for sequence, most in asked
        ]

    def forget(self, sequence: TokenSequence) -> None:
        self._lookups.pop(sequence, None)

    def reset(self) -> None:
        self._lookups.clear()

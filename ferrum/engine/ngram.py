"""Proposals from the text itself: the tokens that followed an earlier occurrence of its last tokens.

Owns: finding the earlier position that shares the longest run of tokens with the end. Positions with the same last
tokens are chained, newest first, as in a Lempel-Ziv compressor: the cost of a token does not grow with the text.
Refuses to know: models.
Specs: DRAFT-11. Source: Saxena, "Prompt Lookup Decoding", 2023; RFC 1951, section 4 (hash chains).
Next: `ferrum.engine.draft_model`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.sched.sequence import TokenSequence

SHORTEST = 2
"""Tokens that an earlier position must share with the end; after a single one, the next token is rarely the same."""
LONGEST = 16
"""A longer common run does not make a position better."""
PLACES = 16
"""Number of positions that are compared, from the newest."""


class Lookup:
    """The positions of one text, which only grows at its end."""

    def __init__(self) -> None:
        self._newest: dict[tuple[int, ...], int] = {}  # the last tokens before a position -> the newest such position
        self._before: list[int] = []  # by position: the previous one with the same tokens before it; 0: none

    def propose(self, tokens: Sequence[int], limit: int) -> list[int]:
        """The `limit` tokens after the best earlier position; none if the last tokens are new. A proposal that reaches
        the end of the text continues with its own beginning, as a text that repeats itself does."""
        self._index(tokens)
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
        return [tokens[best + step % (len(tokens) - best)] for step in range(limit)]

    def _index(self, tokens: Sequence[int]) -> None:
        """Adds the positions of the tokens that are new."""
        for place in range(len(self._before), len(tokens)):
            previous = 0
            if place >= SHORTEST:
                key = tuple(tokens[place - SHORTEST : place])
                previous = self._newest.get(key, 0)
                self._newest[key] = place
            self._before.append(previous)


def _shared(tokens: Sequence[int], place: int) -> int:
    """The number of tokens before `place` that equal those before the end."""
    count = SHORTEST
    while count < LONGEST and count < place and tokens[place - 1 - count] == tokens[-1 - count]:
        count += 1
    return count


class NgramProposer:
    """A `Lookup` for every sequence."""

    cost = 0.0

    def __init__(self) -> None:
        self._lookups: dict[TokenSequence, Lookup] = {}

    def propose(self, limits: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        return [
            self._lookups.setdefault(sequence, Lookup()).propose(sequence.token_ids, limit)
            for sequence, limit in limits
        ]

    def forget(self, sequence: TokenSequence) -> None:
        self._lookups.pop(sequence, None)

    def reset(self) -> None:
        self._lookups.clear()

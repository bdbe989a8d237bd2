"""SentencePiece's two ways to cut text, written slowly from their definitions.

Texts come normalised ("▁" for a space). `scores` are those of the normal tokens; id 0 is the unknown token.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import pairwise

UNKNOWN_COSTS = 10.0  # more than the worst normal token


def greedy_merges(text: str, tokens: Sequence[str], scores: Mapping[str, float], with_bytes: bool) -> list[int]:
    """Merges neighbours that together are a token: those with the highest score first, of equal scores the leftmost."""
    symbols = list(text)
    while True:
        places = enumerate(pairwise(symbols))
        found = [(-scores[left + right], place) for place, (left, right) in places if left + right in scores]
        if not found:
            return as_ids([(symbol, symbol in scores) for symbol in symbols], tokens, with_bytes)
        _, place = min(found)
        symbols[place : place + 2] = [symbols[place] + symbols[place + 1]]


def unigram_ids(text: str, tokens: Sequence[str], scores: Mapping[str, float], with_bytes: bool) -> list[int]:
    """The tokens with the highest sum of scores, by dynamic programming; of equal sums, the longer last token."""
    unknown = min(scores.values()) - UNKNOWN_COSTS
    best: list[tuple[float, list[tuple[str, bool]]]] = [(0.0, [])]  # of the first n characters
    for end in range(1, len(text) + 1):
        ways = []
        for start in range(end):
            piece = text[start:end]
            if piece in scores:
                ways.append((best[start][0] + scores[piece], [*best[start][1], (piece, True)]))
            elif len(piece) == 1:
                ways.append((best[start][0] + unknown, [*best[start][1], (piece, False)]))
        best.append(max(ways, key=lambda way: way[0]))  # of equals the first, which began earliest
    return as_ids(best[-1][1], tokens, with_bytes)


def as_ids(pieces: Sequence[tuple[str, bool]], tokens: Sequence[str], with_bytes: bool) -> list[int]:
    """Ids of known pieces; unknown characters become bytes, or a run of them one unknown token."""
    ids: list[int] = []
    joins = False
    for piece, known in pieces:
        if known:
            ids.append(tokens.index(piece))
        elif with_bytes:
            ids += [tokens.index(f"<0x{byte:02X}>") for byte in piece.encode()]
        elif not joins:
            ids.append(0)
        joins = not known
    return ids

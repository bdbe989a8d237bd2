"""`--logprobs`: how likely each token was, for programs and for readers.

Owns: the words and the JSON. Refuses to know: how anything is computed. Specs: CLI-56. Next: `ferrum.cli.generate`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from typing import Any

from ferrum.sampling_params import ALL_TOKENS
from ferrum.types import Logprob, Logprobs

LEAST = -9999.0
"""What JSON says in place of minus infinity, which it does not know (vLLM says the same)."""


def as_list(entries: Sequence[Logprobs], count: int | None) -> list[dict[str, Any]]:
    """One object for each token: its own numbers, and under "top" those of the `count` most likely ones, best first."""
    found = []
    for entry in entries:
        (token, own), *_ = entry.items()
        best = [pair for pair in entry.items() if count == ALL_TOKENS or pair[1].rank <= (count or 0)]
        best.sort(key=lambda pair: pair[1].rank)
        found.append(_object(token, own) | {"top": [_object(*pair) for pair in best]})
    return found


def _object(token: int, found: Logprob) -> dict[str, Any]:
    return {
        "token_id": token,
        "token": found.decoded_token,
        "logprob": max(found.logprob, LEAST),
        "rank": found.rank,
    }


def logprob_lines(entries: Sequence[Logprobs]) -> Iterator[str]:
    """One line for each token: its log probability, itself, its rank, and the most likely others."""
    for entry in entries:
        (_, own), *others = entry.items()
        rest = "  ".join(f"{other.decoded_token!r} {other.logprob:.2f}" for _, other in others)
        yield f"{own.logprob:8.3f}  {own.decoded_token!r} (rank {own.rank})" + (f"  {rest}" if rest else "")

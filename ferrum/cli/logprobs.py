"""`--logprobs`: the log probability of each token, as JSON and as lines.

Owns: the words and the JSON. Refuses to know: how anything is computed. Specs: CLI-56. Next: `ferrum.cli.loading`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from typing import Any

from ferrum.cli.terminal import quoted
from ferrum.sampling_params import ALL_TOKENS
from ferrum.types import Logprob, Logprobs

Spelling = Callable[[int], bytes]
"""From a token id to its bytes, which may be part of a character."""

LEAST = -9999.0
"""Stands for minus infinity, which JSON cannot express, as in vLLM."""


def as_list(entries: Sequence[Logprobs], count: int | None, spelling: Spelling) -> list[dict[str, Any]]:
    """One object for each token: its own numbers, and under "top" those of the `count` most likely ones, best first."""

    def as_object(token: int, logprob: Logprob) -> dict[str, Any]:
        return {
            "token_id": token,
            "token": logprob.decoded_token,
            "bytes": list(spelling(token)),
            "logprob": max(logprob.logprob, LEAST),
            "rank": logprob.rank,
        }

    objects = []
    for entry in entries:
        (token, sampled), *_ = entry.items()
        best = [pair for pair in entry.items() if count == ALL_TOKENS or pair[1].rank <= (count or 0)]
        best.sort(key=lambda pair: pair[1].rank)
        objects.append(as_object(token, sampled) | {"top": [as_object(*pair) for pair in best]})
    return objects


def logprob_lines(entries: Sequence[Logprobs], spelling: Spelling) -> Iterator[str]:
    """One line for each token: its log probability, itself, its rank, and the most likely others."""
    for entry in entries:
        (token, sampled), *alternatives = entry.items()
        rest = "  ".join(f"{quoted(spelling(other))} {logprob.logprob:.2f}" for other, logprob in alternatives)
        yield f"{sampled.logprob:8.3f}  {quoted(spelling(token))} (rank {sampled.rank})" + (f"  {rest}" if rest else "")

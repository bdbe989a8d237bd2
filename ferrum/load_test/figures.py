"""The figures of one request: time to first token, time per token, total time.

Owns: what TTFT, TPOT, a gap and the whole time are. Refuses to know: where timelines come from, and other requests.
Specs: BENCH-13 to BENCH-15. Next: `ferrum.load_test.goals`.
"""

from __future__ import annotations

from dataclasses import dataclass
from itertools import pairwise
from typing import Literal

from ferrum.load_test.timeline import Timeline


@dataclass(frozen=True)
class Figures:
    """One answer in seconds and tokens. `tpot` is None where the text came in one piece: no time between two tokens
    was seen. `prompt_tokens` is None where the server did not tell."""

    ttft: float
    e2e: float
    tpot: float | None
    gaps: tuple[float, ...]
    prompt_tokens: int | None
    output_tokens: int
    counted: Literal["usage", "chunks"]


def figures(timeline: Timeline) -> Figures | None:
    """The numbers of an answer; None of a request that failed.

    Both times begin when the request was planned, so that waiting in the client's own queue counts."""
    if timeline.failure is not None:
        return None
    first, last = timeline.texts[0], timeline.texts[-1]
    usage = timeline.usage
    tokens = usage.output if usage else len(timeline.texts)
    return Figures(
        ttft=first - timeline.planned,
        e2e=timeline.ended - timeline.planned,
        tpot=(last - first) / (tokens - 1) if tokens > 1 and len(timeline.texts) > 1 else None,
        gaps=tuple(later - earlier for earlier, later in pairwise(timeline.texts)),
        prompt_tokens=usage.prompt if usage else None,
        output_tokens=tokens,
        counted="usage" if usage else "chunks",
    )

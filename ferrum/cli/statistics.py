"""`--stats`: the counters of an engine, on a few lines, and the memory of the process.

Owns: the words. Refuses to know: how anything is counted. Specs: CLI-52. Next: `ferrum.cli.parallel`.
"""

from __future__ import annotations

import resource
import sys
from typing import TYPE_CHECKING

from ferrum.cli.terminal import printable

if TYPE_CHECKING:
    from ferrum.engine.statistics import EngineStats
    from ferrum.kv.statistics import TierUsage
    from ferrum.types import DecodeSteps


def stats_lines(stats: EngineStats) -> list[str]:
    """Lines about blocks, prefixes, evictions, preemptions and steps; about replayed decode steps and drafts, if there
    were any."""
    kv = stats.kv
    share = 100 * kv.hit_tokens / kv.queried_tokens if kv.queried_tokens else 0
    decode = stats.decode
    steps = f"decode      {decode.replayed} of {decode.total} steps replayed{why_not(decode)}"
    drafts = [f"drafts      {stats.accepted_tokens} of {stats.draft_tokens} accepted"] if stats.draft_tokens else []
    return [
        f"blocks      device: {_tier(stats.device)}, {kv.peak_held} held at most · host: {_tier(stats.host)}",
        f"prefixes    {kv.hit_tokens} of {kv.queried_tokens} tokens found in memory ({share:.0f} %)",
        f"evictions   {kv.evicted} blocks: {kv.demoted} to the host, {kv.dropped} dropped there; "
        f"{kv.promoted} found there and copied back",
        f"preemptions {stats.preempted_by_recompute} by recompute, {stats.preempted_by_swap} by swap: "
        f"{kv.swapped_out} blocks out, {kv.swapped_in} in",
        f"steps       {stats.steps}, {stats.computed_tokens} tokens computed, {kv.copied} blocks copied on write",
        *([steps] if decode.total else []),
        *drafts,
    ]


def why_not(decode: DecodeSteps) -> str:
    """The reason why steps were not replayed, to be added to their number; empty if all were replayed."""
    return "" if decode.refusal is None else f"; not recorded: {printable(decode.refusal)}"


def _tier(usage: TierUsage) -> str:
    if not usage.total:
        return "none"
    return f"{usage.total} = {usage.held} held + {usage.cached} cached + {usage.free} free"


def peak_rss_bytes() -> int:
    """The largest resident set so far, in bytes."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == "darwin" else peak * 1024  # macOS counts bytes, the others KiB

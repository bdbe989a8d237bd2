"""What has happened in the memory for keys and values so far.

Owns: counters, and the picture of a moment. Refuses to know: what they are for.
Specs: KV-41. Next: `ferrum.kv.manager`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.kv.pool import BlockPool


@dataclass(slots=True)
class KvCounters:
    """Totals since the start. In blocks, but for the first two, which count tokens, and the last but one."""

    queried_tokens: int = 0  # tokens of the texts that a prefix was looked for, after each preemption again
    hit_tokens: int = 0  # how many of them were found
    evicted: int = 0  # cached on the device until something else needed the block
    demoted: int = 0  # of those, moved to the host instead of being dropped
    promoted: int = 0  # found on the host and copied back for a prefix hit
    dropped: int = 0  # cached on the host until something else needed the block
    swapped_out: int = 0  # of preempted sequences, to the host
    swapped_in: int = 0  # and back
    copied: int = 0  # because they were shared and one of the holders wanted to write
    failed_moves: int = 0  # between the tiers, the device's fault; each had another way out
    peak_held: int = 0  # on the device


@dataclass(frozen=True, slots=True)
class TierUsage:
    """The blocks of one tier, by state."""

    total: int
    free: int
    cached: int
    held: int

    @classmethod
    def of(cls, pool: BlockPool | None) -> TierUsage:
        if pool is None:
            return cls(0, 0, 0, 0)
        return cls(pool.total, pool.free, pool.cached, pool.held)

"""Figures of the memory for keys and values: totals since the start, and the state of a tier.

Owns: counters, the blocks of a tier by state, and how full it is in three levels. Refuses to know: what they are for.
Specs: KV-40, KV-41. Next: `ferrum.kv.manager`.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from ferrum.kv.pool import BlockPool

WARNING, CRITICAL = 0.8, 0.95
"""Shares of held blocks at which a level of pressure begins."""


class PressureLevel(IntEnum):
    """How full a tier is; comparable."""

    NORMAL = 0
    WARNING = 1
    CRITICAL = 2


@dataclass(slots=True)
class KvCounters:
    """Totals since the start, in blocks where no other unit is named."""

    queried_tokens: int = 0  # tokens of texts for which a cached prefix was looked up, after each preemption again
    hit_tokens: int = 0  # tokens of the prefixes that were found
    evicted: int = 0  # cached on the device, and given up because the block was needed
    demoted: int = 0  # of those, copied to the host instead of being lost
    promoted: int = 0  # found on the host and copied to the device for a prefix hit
    dropped: int = 0  # cached on the host, and given up because the block was needed
    swapped_out: int = 0  # of preempted sequences, moved to the host
    swapped_in: int = 0  # of preempted sequences, moved back to the device
    copied: int = 0  # copied on write, because they were shared
    failed_moves: int = 0  # moves between the tiers that raised DeviceError; the work was done in another way
    peak_held: int = 0  # most blocks of the device that were held at a time


@dataclass(frozen=True, slots=True)
class TierUsage:
    """The blocks of one tier, by state."""

    total: int
    free: int
    cached: int
    held: int

    @classmethod
    def of(cls, pool: BlockPool | None) -> TierUsage:
        """None is a tier without blocks."""
        if pool is None:
            return cls(0, 0, 0, 0)
        return cls(pool.total, pool.free, pool.cached, pool.held)

    @property
    def pressure(self) -> PressureLevel:
        """By the share of held blocks. Cached blocks do not count: they can be allocated at any moment."""
        share = self.held / self.total if self.total else 0.0
        return PressureLevel((share >= WARNING) + (share >= CRITICAL))

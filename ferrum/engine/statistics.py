"""The state of an engine in numbers: sequences that wait and run, blocks, counts of all that was done.

Owns: collecting it from the rooms that know. Refuses to know: how it is shown.
Specs: ENGINE-32. Next: `ferrum.engine.setup`.
"""

from __future__ import annotations

from dataclasses import dataclass, field

from ferrum.engine.speculation import Speculation
from ferrum.kv.statistics import KvCounters, TierUsage
from ferrum.sched.preemption import Preemption
from ferrum.sched.scheduler import Scheduler
from ferrum.types import DecodeSteps


@dataclass(frozen=True)
class EngineStats:
    """Sequences and blocks at a moment; counters since the start."""

    waiting: int
    running: int
    steps: int
    computed_tokens: int
    preempted_by_recompute: int
    preempted_by_swap: int
    device: TierUsage
    host: TierUsage
    kv: KvCounters
    decode: DecodeSteps = field(default_factory=DecodeSteps)
    draft_tokens: int = 0  # proposed tokens that the model has judged
    accepted_tokens: int = 0  # of these, the ones that were right

    @property
    def preemptions(self) -> int:
        return self.preempted_by_recompute + self.preempted_by_swap


def collect(
    scheduler: Scheduler, speculation: Speculation, steps: int, computed_tokens: int, decode: DecodeSteps
) -> EngineStats:
    """The numbers now."""
    device, host = scheduler.manager.usage()
    counts = scheduler.preempter.counts
    return EngineStats(
        scheduler.waiting, scheduler.running, steps, computed_tokens, counts[Preemption.RECOMPUTE],
        counts[Preemption.SWAP], device, host, scheduler.manager.counters(), decode,
        speculation.drafted, speculation.accepted,
    )  # fmt: skip

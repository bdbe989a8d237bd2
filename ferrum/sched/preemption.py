"""How a running sequence gives way: by forgetting what it has computed, or by moving it to the host.

Owns: the comparison of the two costs. Both are counted in tokens, as the time it takes to compute one.
Refuses to know: who gives way to whom. Specs: SCHED-14, SCHED-15. Next: `ferrum.sched.drafts`.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.block_table import blocks_for
from ferrum.kv.manager import KvManager
from ferrum.sched.sequence import TokenSequence


class Preemption(Enum):
    """What became of the keys and values."""

    RECOMPUTE = "recompute"
    SWAP = "swap"


class Preempter:
    """Takes the blocks from a sequence, the cheaper way."""

    def __init__(self, manager: KvManager, swap_cost: float) -> None:
        """`swap_cost`: moving one block to the host and back takes as long as computing so many tokens."""
        self.counts: Counter[Preemption] = Counter()
        self._manager = manager
        self._swap_cost = swap_cost

    @property
    def total(self) -> int:
        """How often a sequence gave way, so far."""
        return self.counts.total()

    def preempt(self, sequence: TokenSequence) -> None:
        """Frees the sequence's blocks on the device. Where swapping fails, it is computed again."""
        table = sequence.table
        if self._prefers_swap(sequence):
            try:
                self._manager.swap_out(table, sequence.computed)
                self.counts[Preemption.SWAP] += 1
                return
            except (ResourceExhausted, DeviceError):
                pass  # the other way is always open
        self._manager.close(table)
        sequence.computed = 0
        self.counts[Preemption.RECOMPUTE] += 1

    def _prefers_swap(self, sequence: TokenSequence) -> bool:
        """Only what nobody else keeps in memory would have to be computed again."""
        if self._manager.host is None or not sequence.computed:
            return False
        table, device = sequence.table, self._manager.device
        size = self._manager.block_size
        full = table.blocks[: table.recorded]
        kept = sum(device.references(block) > 1 and device.digest(block) is not None for block in full)
        blocks = blocks_for(sequence.computed, size) - kept
        return blocks * self._swap_cost < sequence.computed - kept * size

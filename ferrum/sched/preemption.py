"""How a preempted sequence loses its blocks: by swapping them to the host, or by computing its tokens again later.

Owns: the comparison of the two costs. Both are counted in tokens that could be computed in the same time.
Refuses to know: which sequence is preempted, and for which. Specs: SCHED-14, SCHED-15. Next: `ferrum.sched.drafts`.
"""

from __future__ import annotations

from collections import Counter
from enum import Enum

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.block_table import blocks_for
from ferrum.kv.manager import KvManager
from ferrum.sched.sequence import TokenSequence


class Preemption(Enum):
    """What happens to the keys and values of a preempted sequence."""

    RECOMPUTE = "recompute"
    SWAP = "swap"


class Preempter:
    """Takes the blocks from a sequence in the cheaper of the two ways."""

    def __init__(self, manager: KvManager, swap_cost: float) -> None:
        """`swap_cost`: moving one block to the host and back takes as long as computing this many tokens. An engine's
        is estimated by `swap_cost` in `ferrum.engine.setup`: 2 · bytes of a block (there and back) · `flops_per_byte`
        of the backend / (2 · weights that one token is multiplied with, for a multiplication and an addition each)."""
        self.counts: Counter[Preemption] = Counter()
        self._manager = manager
        self._swap_cost = swap_cost

    @property
    def total(self) -> int:
        """How many preemptions there have been."""
        return self.counts.total()

    def preempt(self, sequence: TokenSequence) -> None:
        """Releases the sequence's blocks on the device. Where swapping fails, its tokens are computed again."""
        table = sequence.table
        if self._swap_is_cheaper(sequence):
            try:
                self._manager.swap_out(table, sequence.computed)
                self.counts[Preemption.SWAP] += 1
                return
            except (ResourceExhausted, DeviceError):
                pass  # computing again is always possible
        self._manager.close(table)
        sequence.computed = 0
        self.counts[Preemption.RECOMPUTE] += 1

    def _swap_is_cheaper(self, sequence: TokenSequence) -> bool:
        """True if blocks * swap_cost < tokens: the cost of moving blocks, and that of computing tokens again.

        Leading blocks that will be hits when the sequence runs again, because other sequences hold them or the host has
        their content too, are computed again in neither case. Among these, a block whose content the host lacks is
        moved there by a swap, but not back, and counts as half a block. Each block after the leading ones is moved
        there and back and counts as one. It is assumed that blocks which only this sequence holds are evicted
        meanwhile. Example: 40 positions in 3 blocks of 16; another sequence holds the first block too, and the host has
        nothing. Then blocks = 2 + 1/2 and tokens = 40 - 16 = 24."""
        host, device, size = self._manager.host, self._manager.device, self._manager.block_size
        if host is None or not sequence.computed:
            return False
        hits = one_way = 0
        for block in sequence.table.blocks[: sequence.table.recorded]:
            digest = device.digest(block)
            is_on_host = digest is not None and host.lookup(digest) is not None
            if digest is None or not (is_on_host or device.references(block) > 1):
                break
            hits += 1
            one_way += not is_on_host
        blocks = blocks_for(sequence.computed, size) - hits + one_way / 2
        return blocks * self._swap_cost < sequence.computed - hits * size

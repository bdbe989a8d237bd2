"""Memory that fails sometimes.

Owns: a pool whose allocations fail, and a store whose moves fail, with a certain probability, as on a device that other
programs use too. Refuses to know: how the engine handles it.
Specs: ENGINE-41. Next: `ferrum.testing.build`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field
from random import Random

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.eviction import EvictionPolicy
from ferrum.kv.pool import BlockPool, Evicted
from ferrum.testing.stub import UNWRITTEN, StubStore


@dataclass
class Misfortune:
    """The probabilities of failures. At 0 nothing fails, and no random number is drawn."""

    allocation: float = 0.0
    move: float = 0.0
    random: Random = field(default_factory=lambda: Random(0))

    def strikes(self, probability: float) -> bool:
        return probability > 0 and self.random.random() < probability


class FlakyPool(BlockPool):
    """A pool that reports that it is full although it is not."""

    def __init__(self, total: int, policy: EvictionPolicy, misfortune: Misfortune) -> None:
        super().__init__(total, policy)
        self._misfortune = misfortune

    def allocate(self, count: int) -> tuple[list[int], list[Evicted]]:
        if count and self._misfortune.strikes(self._misfortune.allocation):
            raise ResourceExhausted("an allocation failed, as simulated")
        return super().allocate(count)


class FlakyStore(StubStore):
    """A store whose moves fail in the middle: some targets are written, then the device reports an error."""

    def __init__(self, blocks: int, block_size: int, host_blocks: int, misfortune: Misfortune) -> None:
        super().__init__(blocks, block_size, host_blocks)
        self._misfortune = misfortune

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        self._break_at_random(self.device, targets)
        super().copy(sources, targets)

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        self._break_at_random(self.host, host_blocks)
        super().swap_out(blocks, host_blocks)

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        self._break_at_random(self.device, blocks)
        super().swap_in(host_blocks, blocks)

    def _break_at_random(self, tier: NDArray[np.int64], targets: Sequence[int]) -> None:
        if self._misfortune.strikes(self._misfortune.move):
            tier[list(targets)[: len(targets) // 2 + 1]] = UNWRITTEN
            raise DeviceError("a move failed, as simulated")

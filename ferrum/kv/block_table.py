"""Where a sequence's positions lie: position p is in the block number p // block_size of its table.

Owns: the arithmetic from positions to slots. Refuses to know: where the blocks came from and what the slots hold.
Specs: KV-05, KV-06. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.kv.storage`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import InternalError


class BlockTable:
    """The blocks of one sequence, in the order of its positions."""

    def __init__(self, block_size: int, blocks: Sequence[int]) -> None:
        self.block_size = block_size
        self.blocks = tuple(blocks)
        self.row = np.array(self.blocks, np.int32)  # [blocks], the form that a StepBatch wants

    @property
    def capacity(self) -> int:
        """Positions that the table has room for."""
        return len(self.blocks) * self.block_size

    def slot(self, position: int) -> int:
        """The slot of one position: block id * block_size + offset in the block. Raises InternalError outside."""
        if not 0 <= position < self.capacity:
            raise InternalError(f"position {position} is outside a block table of {self.capacity} positions")
        return self.blocks[position // self.block_size] * self.block_size + position % self.block_size

    def slots(self, start: int, count: int) -> NDArray[np.int32]:
        """int32 [count]: the slots of positions start, start + 1, … Raises InternalError outside the table."""
        if count == 1:
            return np.array((self.slot(start),), np.int32)  # a decode: no array arithmetic for one number
        if start < 0 or count < 0 or start + count > self.capacity:
            raise InternalError(f"positions {start} to {start + count} exceed a block table of {self.capacity}")
        positions = np.arange(start, start + count, dtype=np.int32)
        size = np.int32(self.block_size)
        slots: NDArray[np.int32] = self.row[positions // size] * size + positions % size
        return slots


def blocks_for(positions: int, block_size: int) -> int:
    """How many blocks hold so many positions."""
    return -(-positions // block_size)

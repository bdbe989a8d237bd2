"""Where a sequence's positions lie: position p is in the block number p // block_size of its table.

Owns: the blocks of one sequence, on the device or, while it is swapped out, on the host, and the arithmetic from
positions to slots. It is the handle by which `ferrum.kv.manager` knows a sequence.
Refuses to know: where the blocks came from and what the slots hold.
Specs: KV-05, KV-06. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.kv.storage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import InternalError
from ferrum.kv.prefix import PrefixChain


class BlockTable:
    """The blocks of one sequence, in the order of its positions.

    `blocks`: ids on the device. `host_blocks`: ids on the host; one of the two lists is empty. `recorded`: how many of
    the leading blocks are full and have been offered to the prefix cache. `writable_until`: positions from the first that is
    not computed up to this one may be written without asking; the manager keeps it. `chain`: the digests of its text.
    """

    __slots__ = ("_row", "block_size", "blocks", "chain", "host_blocks", "writable_until", "recorded")

    def __init__(self, block_size: int, blocks: Sequence[int] = (), chain: PrefixChain | None = None) -> None:
        self.block_size = block_size
        self.chain = PrefixChain(b"", block_size) if chain is None else chain
        self.blocks: list[int] = []
        self.host_blocks: list[int] = []
        self.recorded = 0
        self.writable_until = 0
        self._row = np.zeros(4, np.int32)
        self.extend(blocks)

    @property
    def capacity(self) -> int:
        """Positions that the table has room for."""
        return len(self.blocks) * self.block_size

    @property
    def row(self) -> NDArray[np.int32]:
        """int32 [blocks]: the form that a StepBatch wants. A view: valid until the table changes."""
        return self._row[: len(self.blocks)]

    def extend(self, blocks: Iterable[int]) -> None:
        """More blocks at the end."""
        start = len(self.blocks)
        self.blocks.extend(blocks)
        if len(self.blocks) > len(self._row):
            self._row = np.resize(self._row, 2 * len(self.blocks))
        self._row[start : len(self.blocks)] = self.blocks[start:]

    def append(self, block: int) -> None:
        """One more block at the end; no array arithmetic for one number."""
        count = len(self.blocks)
        if count == len(self._row):
            self._row = np.resize(self._row, 2 * count)
        self._row[count] = block
        self.blocks.append(block)

    def replace(self, index: int, block: int) -> None:
        """Another block in place of the one at `index`."""
        self.blocks[index] = block
        self._row[index] = block

    def clear(self) -> None:
        """No blocks on the device any more."""
        self.blocks.clear()
        self.recorded = 0
        self.writable_until = 0

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

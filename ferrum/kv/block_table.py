"""Where a sequence's positions lie: position p is in the block number p // block_size of its table.

Owns: the blocks of one sequence, on the device or, while it is swapped out, on the host, and the arithmetic from
positions to slots. `ferrum.kv.manager` knows a sequence only by its table.
Refuses to know: where the blocks come from and what the slots hold.
Specs: KV-05, KV-06. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.kv.storage`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import InternalError
from ferrum.kv.prefix import PrefixChain

# The marks on one sequence that has 23 tokens, in blocks of 4, before its last token is computed:
#
#    blocks                     |   0   |   1   |   2   |   3   |   4   |   5   |
#    recorded * block_size  20  ────────────────────────────────────────┤ full blocks with a digest
#    computed               22  ────────────────────────────────────────────┤ keys and values are there
#    length                 23  ──────────────────────────────────────────────┤ tokens that are known
#    writable_until         24  ────────────────────────────────────────────────┤ may be written
#    capacity               24  ────────────────────────────────────────────────┤ the blocks end
#    max_length             30  ────────────────────────────────────────────────────────────┤ the sequence ends
#
# `computed`, `length` and `max_length` are fields of the sequence (`ferrum.sched.sequence`), the others of its table.
# The next chunk writes the positions from `computed` on, which must lie before `writable_until`.


class BlockTable:
    """The blocks of one sequence, in the order of its positions."""

    __slots__ = ("_row", "block_size", "blocks", "chain", "host_blocks", "recorded", "writable_until")

    def __init__(self, block_size: int, blocks: Sequence[int] = (), chain: PrefixChain | None = None) -> None:
        self.block_size = block_size
        self.chain = PrefixChain(b"", block_size) if chain is None else chain  # the digests of its text
        self.blocks: list[int] = []  # ids on the device
        self.host_blocks: list[int] = []  # ids on the host; one of the two lists is always empty
        self.recorded = 0  # leading blocks that are full and were offered to the prefix cache
        self.writable_until = 0  # positions computed … writable_until - 1 may be written; see `KvManager.reserve`
        self._row = np.zeros(4, np.int32)  # the same as `blocks`, in an array that doubles when it is full
        self.extend(blocks)

    @property
    def capacity(self) -> int:
        """Positions that the table has room for."""
        return len(self.blocks) * self.block_size

    @property
    def row(self) -> NDArray[np.int32]:
        """int32 [blocks]: as a row of `StepBatch.block_tables`. A view: valid until the table changes."""
        return self._row[: len(self.blocks)]

    def extend(self, blocks: Iterable[int]) -> None:
        """Adds blocks at the end."""
        start = len(self.blocks)
        self.blocks.extend(blocks)
        if len(self.blocks) > len(self._row):
            self._row = np.resize(self._row, 2 * len(self.blocks))
        self._row[start : len(self.blocks)] = self.blocks[start:]

    def append(self, block: int) -> None:
        """Adds one block at the end, without array arithmetic."""
        count = len(self.blocks)
        if count == len(self._row):
            self._row = np.resize(self._row, 2 * count)
        self._row[count] = block
        self.blocks.append(block)

    def replace(self, index: int, block: int) -> None:
        """Puts another block in the place of number `index`."""
        self.blocks[index] = block
        self._row[index] = block

    def clear(self) -> None:
        """Removes all blocks of the device."""
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
            return np.array((self.slot(start),), np.int32)  # a decode step: no array arithmetic for one number
        if start < 0 or count < 0 or start + count > self.capacity:
            raise InternalError(f"positions {start} to {start + count} exceed a block table of {self.capacity}")
        positions = np.arange(start, start + count, dtype=np.int32)
        size = np.int32(self.block_size)
        slots: NDArray[np.int32] = self.row[positions // size] * size + positions % size
        return slots


def blocks_for(positions: int, block_size: int) -> int:
    """How many blocks hold so many positions."""
    return -(-positions // block_size)

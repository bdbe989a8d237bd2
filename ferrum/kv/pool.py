"""Which blocks are free.

Owns: the free list of one tier of blocks, all of equal size and known by their ids 0, 1, …, total - 1. Every id is an
ordinary block: 0 stands for nothing special. Refuses to know: what a block holds and who holds it.
Specs: KV-01 to KV-04. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.kv.block_table`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.errors import InternalError, InvalidParameter, ResourceExhausted


class BlockPool:
    """`total` blocks, each either free or held."""

    def __init__(self, total: int) -> None:
        if total < 1:
            raise InvalidParameter("total", f"must be at least 1 block, not {total}")
        self.total = total
        # A stack: the block released last is given out first, while its memory is still warm.
        self._free = list(range(total - 1, -1, -1))
        self._held = [False] * total

    @property
    def free(self) -> int:
        """How many blocks are free."""
        return len(self._free)

    def allocate(self, count: int) -> list[int]:
        """-> `count` distinct block ids, now held. Raises ResourceExhausted, and changes nothing, if fewer are free."""
        if count < 0:
            raise InvalidParameter("count", f"must not be negative: {count}")
        if count > self.free:
            raise ResourceExhausted(f"{count} blocks wanted, {self.free} of {self.total} free")
        kept = len(self._free) - count
        ids = self._free[kept:][::-1]
        del self._free[kept:]
        for block in ids:
            self._held[block] = True
        return ids

    def release(self, ids: Sequence[int]) -> None:
        """Frees held blocks. Raises InternalError, and changes nothing, if any is unknown, free, or named twice."""
        if len(set(ids)) != len(ids):
            raise InternalError(f"a block is released twice at once: {list(ids)}")
        for block in ids:
            if not 0 <= block < self.total:
                raise InternalError(f"block {block} does not exist: the pool has {self.total}")
            if not self._held[block]:
                raise InternalError(f"block {block} is released but nobody holds it")
        for block in ids:
            self._held[block] = False
        self._free.extend(reversed(ids))

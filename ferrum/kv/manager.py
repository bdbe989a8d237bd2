"""Which sequence holds which blocks: tables grow, share blocks, move between the tiers and release.

Owns: every change of a `BlockTable`. An operation that raises has changed no table and no reference; cached contents
may have been evicted for it. A block is written only by a sole holder, and only while it has no digest by which others
find it; else the writer gets a copy (copy on write).
Refuses to know: requests and models; the contents of blocks, which a `BlockStore` keeps.
Specs: KV-15 to KV-19, KV-30 to KV-41. Papers: PagedAttention 2309.06180. Next: `ferrum.kv.prefix_file`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import replace
from typing import NamedTuple

from ferrum.errors import DeviceError, InternalError, ResourceExhausted
from ferrum.kv.block_table import BlockTable, blocks_for
from ferrum.kv.eviction import Digest
from ferrum.kv.pool import BlockPool, Evicted
from ferrum.kv.prefix import PrefixChain
from ferrum.kv.statistics import KvCounters, TierUsage
from ferrum.kv.storage import BlockStore


class Hit(NamedTuple):
    """A full block that need not be computed: it is on the device, or on the host."""

    digest: Digest
    block: int | None  # on the device
    host_block: int | None  # on the host, where it is not on the device


class Content(NamedTuple):
    """The content that one block of a tier will hold."""

    digest: Digest | None  # None if it has no digest, as in a block that is not full
    block: int | None  # the block of the tier that holds it already; None if it has to be moved there


class KvManager:
    """Two tiers of blocks, and what moves between them. A table keeps all its blocks until it is closed or swapped out,
    also those that lie before a sliding window: a layer without a window reads them, and a new text may share them."""

    def __init__(
        self,
        store: BlockStore,
        device: BlockPool,
        host: BlockPool | None,
        block_size: int,
        *,
        prefix_caching: bool = True,
        root: Digest = b"",
    ) -> None:
        """`root`: the digest of no tokens, with which every chain of digests begins."""
        self.store = store
        self.device = device
        self.host = host
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.root = root
        self.resets = 0
        """How often `reset` was called. Tables from before the last call must not be used again."""
        self._counters = KvCounters()

    # ---- what is in memory
    def counters(self) -> KvCounters:
        """A copy of the totals so far."""
        return replace(self._counters)

    def usage(self) -> tuple[TierUsage, TierUsage]:
        """The device and the host now."""
        return TierUsage.of(self.device), TierUsage.of(self.host)

    def new_table(self) -> BlockTable:
        """The handle of a sequence that has no blocks yet."""
        return BlockTable(self.block_size, (), PrefixChain(self.root, self.block_size))

    def find(self, table: BlockTable, token_ids: Sequence[int]) -> list[Hit]:
        """The longest run of full blocks from the start of the text that are on either tier. Changes nothing."""
        hits: list[Hit] = []
        if self.prefix_caching:
            for index in range(len(token_ids) // self.block_size):
                digest = table.chain.digest(index, token_ids)
                block = self.device.lookup(digest)
                on_host = None if block is not None or self.host is None else self.host.lookup(digest)
                if block is None and on_host is None:
                    break
                hits.append(Hit(digest, block, on_host))
        return hits

    def fits(self, table: BlockTable, token_ids: Sequence[int], positions: int) -> bool:
        """True if a table without blocks on the device could get `positions` positions now, some of them shared.
        Changes nothing."""
        needed = blocks_for(positions, self.block_size)
        if needed <= self.device.available:
            return True
        shared = [hit.block for hit in self.find(table, token_ids) if hit.block is not None]
        cached = sum(not self.device.references(block) for block in shared)  # available until this table holds them
        return needed - len(shared) <= self.device.available - cached

    # ---- one table
    def open(self, table: BlockTable, token_ids: Sequence[int]) -> int:
        """Gives a table without blocks the longest prefix of the text that is in memory -> positions that need not be
        computed. Blocks on the host are copied to the device; where that fails, the prefix ends before them."""
        hits = self.find(table, token_ids)
        first = next((index for index, hit in enumerate(hits) if hit.block is None), len(hits))
        table.extend(self._share(hits[:first]))
        with suppress(ResourceExhausted, DeviceError):
            table.extend(self._promote(hits[first:]))
        table.recorded = len(table.blocks)
        if self.prefix_caching:
            self._counters.queried_tokens += len(token_ids)
            self._counters.hit_tokens += table.capacity
        self._note_peak()
        return table.capacity

    def reserve(self, table: BlockTable, start: int, end: int) -> None:
        """Makes sure that the table may write positions start … end - 1, where `start` positions are computed:
        allocates missing blocks, and replaces blocks that it may not write (others refer to them, or they have a
        digest). Raises ResourceExhausted where blocks are missing, DeviceError where a copy fails; the table is then
        as before."""
        first, before = start // self.block_size, len(table.blocks)
        readonly = [index for index in range(first, before) if not self.device.writable(table.blocks[index])]
        fresh = self._allocate(len(readonly) + max(0, blocks_for(end, self.block_size) - before))
        try:
            self._copy_on_write(table, start, readonly, fresh[: len(readonly)])
        except DeviceError:
            self.device.release(fresh)
            raise
        table.extend(fresh[len(readonly) :])
        table.writable_until = table.capacity

    def grow(self, tables: Sequence[BlockTable]) -> None:
        """One more block for each of the tables, whose blocks are full: as `reserve` for each, in one operation.
        Changes nothing where there are not enough blocks."""
        try:
            fresh = self._allocate(len(tables))
        except ResourceExhausted:
            return
        for table, block in zip(tables, fresh, strict=True):
            table.append(block)
            table.writable_until = table.capacity

    def record(self, table: BlockTable, token_ids: Sequence[int], computed: int) -> None:
        """`computed` positions are computed: other sequences can find the blocks that are full now."""
        full = computed // self.block_size
        if self.prefix_caching:
            for index in range(table.recorded, full):
                block = table.blocks[index]
                if self.device.digest(block) is None:
                    self.device.register(block, table.chain.digest(index, token_ids))
        table.recorded = full

    def fork(self, source: BlockTable, target: BlockTable, positions: int) -> None:
        """Gives `target`, which has no blocks, the first `positions` positions of `source`. Both share the blocks.
        If the last block is not full, both will write to it: the first that calls `reserve` for it gets a copy, then
        the other is the only holder of the old block and writes there. Raises InternalError for a `target` with blocks,
        or more positions than `source` has."""
        if target.blocks or positions > source.capacity:
            raise InternalError(f"a table of {source.capacity} positions cannot be forked at {positions}")
        blocks = source.blocks[: blocks_for(positions, self.block_size)]
        for block in blocks:
            self.device.share(block)
        target.extend(blocks)
        target.chain = source.chain.fork(positions // self.block_size)
        target.recorded = min(source.recorded, positions // self.block_size)
        source.writable_until = 0  # its last block may be shared now, so it has to reserve again

    def close(self, table: BlockTable) -> None:
        """Releases all blocks of the table, on both tiers: the last block first, so that a cached text loses its end
        before its beginning. Without its beginning, the end could not be found."""
        self.device.release(table.blocks[::-1])
        if self.host is not None:
            self.host.release(table.host_blocks[::-1])
        table.clear()
        table.host_blocks.clear()

    # ---- preemption by swapping
    def swap_out(self, table: BlockTable, computed: int) -> None:
        """Moves the first `computed` positions to the host and releases the table's blocks on the device. Content that
        the host has already is not moved. Raises ResourceExhausted or DeviceError, and then changes nothing."""
        if self.host is None:
            raise ResourceExhausted("there is no host tier to swap to")
        blocks = table.blocks[: blocks_for(computed, self.block_size)]
        recorded = table.recorded
        contents = _contents(self.device, blocks, self.host)
        moved = [block for block, content in zip(blocks, contents, strict=True) if content.block is None]
        host_blocks = self._fill(self.host, contents, lambda fresh: self.store.swap_out(moved, fresh))
        self.device.release(table.blocks[::-1])
        table.clear()
        table.host_blocks, table.recorded = host_blocks, recorded
        self._counters.swapped_out += len(moved)

    def swap_in(self, table: BlockTable) -> None:
        """The inverse of `swap_out`. Raises ResourceExhausted or DeviceError; the table is then as before."""
        if self.host is None:
            raise InternalError("there is no host tier to swap from")
        contents = _contents(self.host, table.host_blocks, self.device)
        moved = [block for block, content in zip(table.host_blocks, contents, strict=True) if content.block is None]
        blocks = self._fill(self.device, contents, lambda fresh: self.store.swap_in(moved, fresh))
        self.host.release(table.host_blocks[::-1])
        table.host_blocks = []
        table.extend(blocks)
        table.writable_until = 0
        self._counters.swapped_in += len(moved)

    # ---- housekeeping
    def reset(self) -> None:
        """Makes every block free. Existing tables must not be used again."""
        self.resets += 1
        for pool in (self.device, self.host):
            if pool is not None:
                pool.clear()

    def gc(self, keep: int = 0) -> int:
        """Makes cached blocks free, on both tiers, except the `keep` blocks of each that would be evicted last -> how
        many have become free."""
        pools = [pool for pool in (self.device, self.host) if pool is not None]
        return sum(len(pool.evict(pool.cached - keep)) for pool in pools if pool.cached > keep)

    # ---- how
    def _allocate(self, count: int) -> list[int]:
        """Blocks of the device. Content that was cached in them moves to the host, where it takes free blocks, else
        those of older cached content."""
        blocks, evicted = self.device.allocate(count)
        self._counters.evicted += len(evicted)
        if evicted and self.host is not None:
            self._demote(self.host, [victim for victim in evicted if self.host.lookup(victim.digest) is None])
        self._note_peak()
        return blocks

    def _allocate_host(self, host: BlockPool, count: int) -> list[int]:
        """Blocks of the host. Content that was cached in them is lost."""
        blocks, evicted = host.allocate(count)
        self._counters.dropped += len(evicted)
        return blocks

    def _demote(self, host: BlockPool, victims: list[Evicted]) -> None:
        """Copies the contents of evicted blocks to the host, where they are cached: as many as there is room for, those
        evicted last before the others. A failure loses only cached contents, so it is counted and not raised."""
        demoted = victims[max(0, len(victims) - host.available) :]
        if not demoted:
            return
        try:
            blocks = self._allocate_host(host, len(demoted))
        except ResourceExhausted:
            return
        try:
            self.store.swap_out([victim.block for victim in demoted], blocks)
            for block, victim in zip(blocks, demoted, strict=True):
                host.register(block, victim.digest)
            self._counters.demoted += len(demoted)
        except DeviceError:
            self._counters.failed_moves += 1
        finally:
            host.release(blocks)

    def _share(self, hits: Sequence[Hit]) -> list[int]:
        """One more reference to each block of the device."""
        blocks = [hit.block for hit in hits if hit.block is not None]
        for block in blocks:
            self.device.share(block)
        return blocks

    def _promote(self, hits: Sequence[Hit]) -> list[int]:
        """-> one block of the device, now held, for each hit: those on the host are copied. Raises ResourceExhausted or
        DeviceError, and then changes nothing."""
        sources = [hit.host_block for hit in hits if hit.host_block is not None]
        if self.host is None or not sources:
            return self._share(hits)
        for source in sources:
            self.host.share(source)  # held, so that blocks demoted in the meantime do not evict them
        try:
            contents = [Content(hit.digest, hit.block) for hit in hits]
            blocks = self._fill(self.device, contents, lambda fresh: self.store.swap_in(sources, fresh))
        finally:
            self.host.release(sources[::-1])
        self._counters.promoted += len(sources)
        return blocks

    def _fill(self, pool: BlockPool, contents: Sequence[Content], move: Callable[[list[int]], None]) -> list[int]:
        """-> one block of `pool`, now held, for each content: the one that holds it already, else a new one. `move`
        writes to the new ones, which are then registered under their digests. Raises ResourceExhausted or DeviceError,
        and then no reference has changed."""
        present = [content.block for content in contents if content.block is not None]
        for block in present:
            pool.share(block)
        fresh: list[int] = []
        try:
            count = len(contents) - len(present)
            fresh = self._allocate_host(pool, count) if pool is self.host else self._allocate(count)
            if fresh:
                move(fresh)
        except (ResourceExhausted, DeviceError) as error:
            self._counters.failed_moves += isinstance(error, DeviceError)
            pool.release([*fresh, *present[::-1]])
            raise
        unused = iter(fresh)
        blocks = [next(unused) if content.block is None else content.block for content in contents]
        for block, content in zip(blocks, contents, strict=True):
            if content.block is None and content.digest is not None:
                pool.register(block, content.digest)
        return blocks

    def _copy_on_write(self, table: BlockTable, start: int, readonly: list[int], fresh: list[int]) -> None:
        """Replaces the blocks at the indices `readonly` by the blocks `fresh`. A block that holds a position before
        `start` is copied whole; one that begins at `start` or later is replaced without a copy."""
        replaced = list(zip(readonly, fresh, strict=True))
        copied = [(table.blocks[index], block) for index, block in replaced if index * self.block_size < start]
        if copied:
            self.store.copy([source for source, _ in copied], [target for _, target in copied])
        for index, block in replaced:
            self.device.release([table.blocks[index]])
            table.replace(index, block)
        self._counters.copied += len(copied)

    def _note_peak(self) -> None:
        self._counters.peak_held = max(self._counters.peak_held, self.device.held)


def _contents(pool: BlockPool, blocks: Sequence[int], target: BlockPool) -> list[Content]:
    """What blocks of `pool` hold, as contents of the other tier."""
    digests = [pool.digest(block) for block in blocks]
    return [Content(digest, None if digest is None else target.lookup(digest)) for digest in digests]

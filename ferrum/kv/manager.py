"""Who has which blocks: tables grow, share, move between the tiers and give back.

Owns: everything that happens to a `BlockTable`. Each operation first makes sure that it can be done and then does it:
one that raises has changed nothing. A block that others hold or may find is never written: it is copied first.
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
from ferrum.kv.pressure import PressureGauge
from ferrum.kv.statistics import KvCounters, TierUsage
from ferrum.kv.storage import BlockStore


class Hit(NamedTuple):
    """A full block that need not be computed: it is on the device, or on the host."""

    digest: Digest
    block: int | None
    host_block: int | None


class KvManager:
    """Two tiers of blocks and what moves between them."""

    def __init__(
        self,
        store: BlockStore,
        device: BlockPool,
        host: BlockPool | None,
        block_size: int,
        *,
        prefix_caching: bool = True,
        root: Digest = b"",
        gauge: PressureGauge | None = None,
    ) -> None:
        """`root`: what digests of blocks begin with, for who needs to tell the blocks of two managers apart."""
        self.store = store
        self.device = device
        self.host = host
        self.block_size = block_size
        self.prefix_caching = prefix_caching
        self.root = root
        self.gauge = PressureGauge() if gauge is None else gauge
        self.resets = 0
        """How often all blocks became free at once. A table that is older than the last time must not be used again."""
        self._counters = KvCounters()

    # ---- what there is
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
        """The longest run of full blocks from the start of the text that are known. Changes nothing."""
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
        """Could a table without blocks on the device get `positions` positions now, hits included? Changes nothing."""
        needed = blocks_for(positions, self.block_size)
        if needed <= self.device.available:
            return True
        shared = [hit.block for hit in self.find(table, token_ids) if hit.block is not None]
        idle = sum(not self.device.references(block) for block in shared)
        return needed - len(shared) <= self.device.available - idle

    # ---- one table
    def open(self, table: BlockTable, token_ids: Sequence[int]) -> int:
        """Gives a table without blocks the longest known prefix of the text -> positions that need not be computed.
        Blocks on the host are copied back; where that fails, the prefix ends before them."""
        hits = self.find(table, token_ids)
        first = next((index for index, hit in enumerate(hits) if hit.block is None), len(hits))
        table.extend(self._share(hits[:first]))
        with suppress(ResourceExhausted, DeviceError):  # if need be, what is on the device will do
            table.extend(self._promote(hits[first:]))
        table.recorded = len(table.blocks)
        if self.prefix_caching:
            self._counters.queried_tokens += len(token_ids)
            self._counters.hit_tokens += table.capacity
        self._observe()
        return table.capacity

    def reserve(self, table: BlockTable, start: int, end: int) -> None:
        """Makes positions start … end - 1 the table's own to write, where `start` positions are computed. Raises
        ResourceExhausted, and changes nothing, where blocks are missing."""
        first, had = start // self.block_size, len(table.blocks)
        shared = [index for index in range(first, had) if not self.device.writable(table.blocks[index])]
        fresh = self._allocate(len(shared) + max(0, blocks_for(end, self.block_size) - had))
        try:
            self._copy_on_write(table, start, shared, fresh[: len(shared)])
        except DeviceError:
            self.device.release(fresh)
            raise
        finally:
            self._observe()
        table.extend(fresh[len(shared) :])
        table.writable_until = table.capacity

    def grow(self, tables: Sequence[BlockTable]) -> None:
        """One more block, to be written, for each of the tables, which are computed to their end: what `reserve` does
        for one, at once for all. Changes nothing where there are not enough blocks."""
        try:
            fresh = self._allocate(len(tables))
        except ResourceExhausted:
            return
        for table, block in zip(tables, fresh, strict=True):
            table.append(block)
            table.writable_until = table.capacity

    def record(self, table: BlockTable, token_ids: Sequence[int], computed: int) -> None:
        """`computed` positions are computed: blocks that are full now can be found by others."""
        full = computed // self.block_size
        if self.prefix_caching:
            for index in range(table.recorded, full):
                block = table.blocks[index]
                if self.device.digest(block) is None:
                    self.device.register(block, table.chain.digest(index, token_ids))
        table.recorded = full

    def fork(self, source: BlockTable, target: BlockTable, positions: int) -> None:
        """Gives `target`, which has no blocks, the first `positions` positions of `source`, shared. Whoever writes to
        a shared block first copies it."""
        if target.blocks or positions > source.capacity:
            raise InternalError(f"a table of {source.capacity} positions cannot be forked at {positions}")
        blocks = source.blocks[: blocks_for(positions, self.block_size)]
        for block in blocks:
            self.device.share(block)
        target.extend(blocks)
        target.chain = source.chain.fork(positions // self.block_size)
        target.recorded = min(source.recorded, positions // self.block_size)
        source.writable_until = 0  # its last block may be shared now

    def close(self, table: BlockTable) -> None:
        """Gives back whatever the table has, on both tiers. The end of a text is given up before its beginning, without
        which it could not be found."""
        self.device.release(table.blocks[::-1])
        if self.host is not None:
            self.host.release(table.host_blocks[::-1])
        table.clear()
        table.host_blocks.clear()
        self._observe()

    # ---- preemption by swapping
    def swap_out(self, table: BlockTable, computed: int) -> None:
        """Moves the first `computed` positions to the host and frees the table's blocks on the device. Raises
        ResourceExhausted or DeviceError, and changes nothing, where that cannot be done."""
        if self.host is None:
            raise ResourceExhausted("there is no host tier to swap to")
        blocks = table.blocks[: blocks_for(computed, self.block_size)]
        recorded = table.recorded
        contents = _elsewhere(self.device, blocks, self.host)
        moved = [block for block, (_, known) in zip(blocks, contents, strict=True) if known is None]
        merged = self._fill(self.host, contents, lambda fresh: self.store.swap_out(moved, fresh))
        self.device.release(table.blocks[::-1])
        table.clear()
        table.host_blocks, table.recorded = merged, recorded
        self._counters.swapped_out += len(moved)
        self._observe()

    def swap_in(self, table: BlockTable) -> None:
        """The inverse of `swap_out`. Raises ResourceExhausted or DeviceError, and changes nothing, where that cannot
        be done."""
        if self.host is None:
            raise InternalError("there is no host tier to swap from")
        contents = _elsewhere(self.host, table.host_blocks, self.device)
        moved = [block for block, (_, known) in zip(table.host_blocks, contents, strict=True) if known is None]
        merged = self._fill(self.device, contents, lambda fresh: self.store.swap_in(moved, fresh))
        self.host.release(table.host_blocks[::-1])
        table.host_blocks = []
        table.extend(merged)
        table.writable_until = 0
        self._counters.swapped_in += len(moved)
        self._observe()

    # ---- housekeeping
    def reset(self) -> None:
        """Every block becomes free. The tables that there are must not be used again."""
        self.resets += 1
        for pool in (self.device, self.host):
            if pool is not None:
                pool.clear()
        self._observe()

    def gc(self, keep: int = 0) -> int:
        """Forgets what is cached, on both tiers, but for the `keep` blocks of each that would be evicted last. ->
        blocks that have become free."""
        pools = [pool for pool in (self.device, self.host) if pool is not None]
        return sum(len(pool.evict(pool.cached - keep)) for pool in pools if pool.cached > keep)

    # ---- how
    def _allocate(self, count: int) -> list[int]:
        """Blocks of the device. What was cached in them goes to the host, if there is room."""
        blocks, evicted = self.device.allocate(count)
        self._counters.evicted += len(evicted)
        if evicted and self.host is not None:
            self._demote(self.host, [victim for victim in evicted if self.host.lookup(victim.digest) is None])
        self._observe()
        return blocks

    def _allocate_host(self, host: BlockPool, count: int) -> list[int]:
        """Blocks of the host. What was cached in them is lost."""
        blocks, evicted = host.allocate(count)
        self._counters.dropped += len(evicted)
        return blocks

    def _demote(self, host: BlockPool, victims: list[Evicted]) -> None:
        """Copies what is still in the victims' blocks to the host, where it is cached; as much as there is room for,
        those evicted last first. A cache may forget: a failure loses the contents and nothing else."""
        kept = victims[max(0, len(victims) - host.available) :]
        if not kept:
            return
        try:
            blocks = self._allocate_host(host, len(kept))
        except ResourceExhausted:
            return
        try:
            self.store.swap_out([victim.block for victim in kept], blocks)
            for block, victim in zip(blocks, kept, strict=True):
                host.register(block, victim.digest)
            self._counters.demoted += len(kept)
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
        DeviceError, and changes nothing."""
        sources = [hit.host_block for hit in hits if hit.host_block is not None]
        if self.host is None or not sources:
            return self._share(hits)
        for source in sources:
            self.host.share(source)  # or making room on the device could push them out
        try:
            known = [(hit.digest, hit.block) for hit in hits]
            blocks = self._fill(self.device, known, lambda fresh: self.store.swap_in(sources, fresh))
        finally:
            self.host.release(sources[::-1])
        self._counters.promoted += len(sources)
        return blocks

    def _fill(
        self,
        pool: BlockPool,
        contents: Sequence[tuple[Digest | None, int | None]],
        move: Callable[[list[int]], None],
    ) -> list[int]:
        """-> one block of `pool`, now held, for each content (digest, block that has it): the block where there is one,
        else a new one; `move` writes to the new ones, which are then known by their digests. Raises what allocating
        and moving raise, and changes nothing."""
        there = [block for _, block in contents if block is not None]
        for block in there:
            pool.share(block)
        fresh: list[int] = []
        try:
            count = len(contents) - len(there)
            fresh = self._allocate_host(pool, count) if pool is self.host else self._allocate(count)
            if fresh:
                move(fresh)
        except (ResourceExhausted, DeviceError) as error:
            self._counters.failed_moves += isinstance(error, DeviceError)
            pool.release([*fresh, *there[::-1]])
            self._observe()
            raise
        unused = iter(fresh)
        blocks = [next(unused) if block is None else block for _, block in contents]
        for block, (digest, known) in zip(blocks, contents, strict=True):
            if known is None and digest is not None:
                pool.register(block, digest)
        return blocks

    def _copy_on_write(self, table: BlockTable, start: int, shared: list[int], fresh: list[int]) -> None:
        """Puts the blocks `fresh` in place of those at the indices `shared`; the first `start` positions stay."""
        replaced = list(zip(shared, fresh, strict=True))
        copied = [(table.blocks[index], block) for index, block in replaced if index * self.block_size < start]
        if copied:
            self.store.copy([source for source, _ in copied], [target for _, target in copied])
        for index, block in replaced:
            self.device.release([table.blocks[index]])
            table.replace(index, block)
        self._counters.copied += len(copied)

    def _observe(self) -> None:
        held = self.device.held
        self._counters.peak_held = max(self._counters.peak_held, held)
        self.gauge.observe(held / self.device.total)


def _elsewhere(pool: BlockPool, blocks: Sequence[int], other: BlockPool) -> list[tuple[Digest | None, int | None]]:
    """For each block of `pool` its digest, and the block of the other tier that has the same content."""
    digests = [pool.digest(block) for block in blocks]
    return [(digest, None if digest is None else other.lookup(digest)) for digest in digests]

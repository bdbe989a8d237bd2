"""One tier of blocks: which are free, which are cached, and how many references the others have.

Owns: the state of every block of a tier. A block is exactly one of
- *free*: no table refers to it, and its content is garbage;
- *cached*: no table refers to it, but its content is known by a digest, so it can be shared again;
- *held*: one table or more refer to it; its content may be known by a digest too.
Blocks are named by their ids 0, 1, …, total - 1. Every id is an ordinary block: 0 has no special meaning.
Refuses to know: what a digest means and what a block looks like.
Specs: KV-01 to KV-04, KV-10 to KV-14. Source: PagedAttention (arXiv 2309.06180). Next: `ferrum.kv.prefix`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

from ferrum.errors import InternalError, InvalidParameter, ResourceExhausted
from ferrum.kv.eviction import Digest, EvictionPolicy


class Evicted(NamedTuple):
    """A block that was cached until now; its content stays in memory until the next write."""

    block: int
    digest: Digest


# The life of a block, with the method on each arrow:
#
#    free   ── allocate ───────────────────────► held      by one reference
#    held   ── share ──────────────────────────► held      one reference more
#    held   ── release ────────────────────────► held      one reference less, and others are left
#    held   ── release of the last, no digest ─► free
#    held   ── release of the last, digest ────► cached    the policy sees `add` or `touch`
#    cached ── share ──────────────────────────► held      a prefix hit
#    cached ── allocate, where none is free ───► held      evicted: its digest is forgotten
#    cached ── evict ──────────────────────────► free      evicted: its digest is forgotten
#
# `register` gives a held block a digest: from then on it can be shared by its content, and no sequence writes to it.


class BlockPool:
    """`total` blocks. The time of each operation depends on the blocks that it is about, not on `total`."""

    def __init__(self, total: int, policy: EvictionPolicy) -> None:
        """`policy` decides which cached block is given up first. Raises InvalidParameter for a `total` below 1."""
        if total < 1:
            raise InvalidParameter("total", f"must be at least 1 block, not {total}")
        self.total = total
        # The policy lists every cached block. A cached block that is shared becomes held and stays in the list, because
        # removing it would lose its place in the order of FIFO and Clock. If the policy chooses such a block as the
        # victim, `_evict` skips it; it is added again when it is released.
        self._policy = policy
        self.clear()

    def clear(self) -> None:
        """Every block becomes free, held or not."""
        self.cached = 0
        """How many blocks are cached."""
        self.releases = 0
        """How often `release` was called: while it stays the same, no more blocks become available."""
        # A stack: the block released last is allocated first, while its memory is still in the processor's cache. Ids
        # from `_untouched` on were never allocated: their memory has not been written, and may never have to be.
        self._returned: list[int] = []
        self._untouched = 0
        self._references = [0] * self.total
        self._digests: list[Digest | None] = [None] * self.total
        self._blocks: dict[Digest, int] = {}
        self._policy.clear()

    # ---- how many
    @property
    def free(self) -> int:
        """How many blocks are free."""
        return self.total - self._untouched + len(self._returned)

    @property
    def available(self) -> int:
        """How many blocks can be allocated: the free and the cached ones."""
        return self.free + self.cached

    @property
    def held(self) -> int:
        """How many blocks are held."""
        return self.total - self.available

    def occupied(self) -> list[int]:
        """The held and the cached blocks, in ascending order."""
        free = set(self._returned)
        return [block for block in range(self._untouched) if block not in free]

    # ---- about one block
    def references(self, block: int) -> int:
        """How many references a block has; 0 if it is free or cached."""
        return self._references[block]

    def digest(self, block: int) -> Digest | None:
        """The digest by which a block's content can be found; None if it cannot."""
        return self._digests[block]

    def lookup(self, digest: Digest) -> int | None:
        """The block with that content, cached or held; None if there is none."""
        return self._blocks.get(digest)

    def writable(self, block: int) -> bool:
        """True if a block has one reference and no digest: its only holder may write to it, because no other sequence
        reads it or can find it."""
        return self._references[block] == 1 and self._digests[block] is None

    # ---- taking and giving back
    def allocate(self, count: int) -> tuple[list[int], list[Evicted]]:
        """-> `count` distinct block ids, each now held by one reference, and those of them that were cached until now.
        Raises ResourceExhausted, and changes nothing, if fewer are available."""
        if count < 0:
            raise InvalidParameter("count", f"must not be negative: {count}")
        if count > self.available:
            raise ResourceExhausted(f"{count} blocks wanted, {self.available} of {self.total} available")
        fresh = [self._take_free() for _ in range(min(count, self.free))]
        evicted = [self._evict() for _ in range(count - len(fresh))]
        blocks = fresh + [victim.block for victim in evicted]
        for block in blocks:
            self._references[block] = 1
        return blocks, evicted

    def share(self, block: int) -> None:
        """One more reference to a cached or held block. Raises InternalError for a free one."""
        if not self._references[block]:
            if self._digests[block] is None:
                raise InternalError(f"block {block} is shared but it is free")
            self.cached -= 1
        self._references[block] += 1

    def release(self, blocks: Sequence[int]) -> None:
        """One reference less to each. Of those that become cached, the first in the list is evicted first. Raises
        InternalError, and changes nothing, if any is unknown, not held, or named twice."""
        if len(set(blocks)) != len(blocks):
            raise InternalError(f"a block is released twice at once: {list(blocks)}")
        for block in blocks:
            if not 0 <= block < self.total:
                raise InternalError(f"block {block} does not exist: the pool has {self.total}")
            if not self._references[block]:
                raise InternalError(f"block {block} is released but it is not held")
        self.releases += 1
        for block in blocks:
            self._references[block] -= 1
            if not self._references[block]:
                self._retire(block)

    # ---- content
    def register(self, block: int, digest: Digest) -> bool:
        """From now on the held block can be found by its digest. False, and no change, if another block has the same
        digest. Raises InternalError for a block that is not held or has a digest already."""
        if not self._references[block] or self._digests[block] is not None:
            raise InternalError(f"block {block} cannot be registered: it is not held, or registered already")
        if digest in self._blocks:
            return False
        self._blocks[digest] = block
        self._digests[block] = digest
        return True

    def evict(self, count: int) -> list[Evicted]:
        """Makes up to `count` cached blocks free, in the order of the policy."""
        evicted = [self._evict() for _ in range(min(count, self.cached))]
        self._returned.extend(victim.block for victim in evicted)
        return evicted

    # ---- how
    def _take_free(self) -> int:
        if self._returned:
            return self._returned.pop()
        self._untouched += 1
        return self._untouched - 1

    def _evict(self) -> Evicted:
        """The next victim, not cached any more and not yet free. At least one block must be cached."""
        block = self._policy.victim()
        while self._references[block]:
            block = self._policy.victim()
        digest = self._digests[block]
        if digest is None:
            raise InternalError(f"block {block} is a victim but not cached")
        del self._blocks[digest]
        self._digests[block] = None
        self.cached -= 1
        return Evicted(block, digest)

    def _retire(self, block: int) -> None:
        """A block without references becomes cached if it has a digest, else free."""
        digest = self._digests[block]
        if digest is None:
            self._returned.append(block)
            return
        self.cached += 1
        if block in self._policy:
            self._policy.touch(block)
        else:
            self._policy.add(block, digest)

"""Which cached block is given up first when a block is needed.

Owns: the policies, each an order on the cached blocks of one tier. The pool tells a policy two events: `add` (a block
is cached, known by this digest) and `touch` (a cached block was held again, and is cached once more). Both come when
the last holder releases the block, so a reuse counts once, however many sequences shared the block meanwhile. `victim`
takes out the block to give up. Every call takes constant time, amortised for `victim`.
Refuses to know: which blocks are held. The pool skips a victim that is held: it loses its place, and is added again
when it is released. Block numbers are reused for other content; a policy with a memory of its victims keeps digests.
Specs: KV-20 to KV-27. Sources: Corbató, "A paging experiment with the Multics system", 1968 (Clock); Yang et al., "FIFO
queues are all you need for cache eviction", SOSP 2023 (S3-FIFO).
Next: `ferrum.kv.pool`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from ferrum.errors import InvalidParameter

Digest = bytes
"""Stands for the content of a full block: equal digests mean equal content. See `ferrum.kv.prefix`."""


class EvictionPolicy(Protocol):
    """An order on blocks. KeyError for adding a block that is in it, and for touching one that is not."""

    def __contains__(self, block: int) -> bool: ...
    def add(self, block: int, digest: Digest) -> None:
        """`block` is cached from now on; `digest` stands for its content."""
        ...

    def touch(self, block: int) -> None:
        """`block` has been used again."""
        ...

    def victim(self) -> int:
        """Takes out the block to give up. KeyError if there is none."""
        ...

    def clear(self) -> None:
        """Forgets everything."""
        ...


class _Queue:
    """Blocks in a queue, each with a mark; the front is given up first. What the policies below share."""

    def __init__(self) -> None:
        self._marks: OrderedDict[int, bool] = OrderedDict()  # a linked list: both ends and any middle in O(1)

    def __contains__(self, block: int) -> bool:
        return block in self._marks

    def add(self, block: int, digest: Digest) -> None:
        if block in self._marks:
            raise KeyError(block)
        self._marks[block] = False

    def victim(self) -> int:
        return self._marks.popitem(last=False)[0]

    def clear(self) -> None:
        self._marks.clear()


class LruPolicy(_Queue):
    """Least recently used: the block whose last use is longest ago."""

    def touch(self, block: int) -> None:
        self._marks.move_to_end(block)


class FifoPolicy(_Queue):
    """First in, first out: the block that was added first, used or not."""

    def touch(self, block: int) -> None:
        if block not in self._marks:
            raise KeyError(block)


class ClockPolicy(_Queue):
    """Second chance: a hand goes round the blocks; one that was used since the hand last passed it is spared once.

    The hand points to the front of the queue. New blocks join at the end, just behind the hand, so the hand stays where
    it is between two calls. A sweep clears the marks it passes, so the second sweep finds a victim.
    """

    def touch(self, block: int) -> None:
        if block not in self._marks:
            raise KeyError(block)
        self._marks[block] = True

    def victim(self) -> int:
        block, marked = self._marks.popitem(last=False)
        while marked:
            self._marks[block] = False
            block, marked = self._marks.popitem(last=False)
        return block


MOST_USES = 3
"""What a counter of S3-FIFO reaches: two bits."""


class S3FifoPolicy:
    """A small queue for new blocks, a main queue for those used more than once, and a ghost: digests without blocks.

    Victims come from the small queue while it holds a tenth of the blocks or more, so prefixes that are used once pass
    through it quickly and do not push out those that are used often. The ghost names the last victims of the small
    queue, at most as many as there have been blocks at one time. A block whose digest is in the ghost was given up too
    early: it is added to the main queue.
    """

    def __init__(self) -> None:
        self._small: OrderedDict[int, Digest] = OrderedDict()  # the front is given up first, in each of the three
        self._main: OrderedDict[int, Digest] = OrderedDict()
        self._ghost: OrderedDict[Digest, None] = OrderedDict()
        self._uses: dict[int, int] = {}  # of each block in a queue, since it joined it
        self._most_blocks = 0

    def __contains__(self, block: int) -> bool:
        return block in self._uses

    def add(self, block: int, digest: Digest) -> None:
        if block in self._uses:
            raise KeyError(block)
        came_back = digest in self._ghost
        if came_back:
            del self._ghost[digest]
        (self._main if came_back else self._small)[block] = digest
        self._uses[block] = 0
        self._most_blocks = max(self._most_blocks, len(self._uses))

    def touch(self, block: int) -> None:
        self._uses[block] = min(self._uses[block] + 1, MOST_USES)

    def victim(self) -> int:
        if 10 * len(self._small) >= len(self._uses):
            while self._small:
                block, digest = self._small.popitem(last=False)
                if self._uses[block] <= 1:
                    del self._uses[block]
                    self._remember(digest)
                    return block
                self._uses[block] = 0
                self._main[block] = digest
        block, digest = self._main.popitem(last=False)
        while self._uses[block]:
            self._uses[block] -= 1
            self._main[block] = digest
            block, digest = self._main.popitem(last=False)
        del self._uses[block]
        return block

    def clear(self) -> None:
        for each in (self._small, self._main, self._ghost, self._uses):
            each.clear()
        self._most_blocks = 0

    def _remember(self, digest: Digest) -> None:
        self._ghost[digest] = None
        if len(self._ghost) > self._most_blocks:
            self._ghost.popitem(last=False)


POLICIES: dict[str, type[LruPolicy | FifoPolicy | ClockPolicy | S3FifoPolicy]] = {
    "lru": LruPolicy,
    "fifo": FifoPolicy,
    "clock": ClockPolicy,
    "s3fifo": S3FifoPolicy,
}
"""Every policy by its name. A new one needs a row here, a row of README's table and an oracle in its tests."""


def make_policy(name: str) -> EvictionPolicy:
    """A new, empty policy. Raises InvalidParameter for an unknown name."""
    if name not in POLICIES:
        raise InvalidParameter("eviction", f"must be one of {', '.join(POLICIES)}, not {name!r}")
    return POLICIES[name]()

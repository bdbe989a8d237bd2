"""Which cached block is given up first when a block is needed.

Owns: the policies, each an order on the cached blocks of one tier. The pool tells a policy two events: `add` (a block
is cached, known by this digest) and `touch` (a cached block was held again, and is cached once more). Both come when
the last holder releases the block, so a reuse counts once, however many sequences shared the block meanwhile. `victim`
takes out the block to give up. Every call takes constant time, amortised for `victim`.
Refuses to know: which blocks are held. The pool skips a victim that is held: it loses its place, and is added again
when it is released. Block numbers are reused for other content; a policy with a memory of its victims keeps digests.
Specs: KV-20 to KV-24. Source: Corbató, "A paging experiment with the Multics system", 1968 (Clock).
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
        block, used = self._marks.popitem(last=False)
        while used:
            self._marks[block] = False
            block, used = self._marks.popitem(last=False)
        return block


POLICIES: dict[str, type[LruPolicy | FifoPolicy | ClockPolicy]] = {
    "lru": LruPolicy,
    "fifo": FifoPolicy,
    "clock": ClockPolicy,
}
"""Every policy by its name. A new one needs a row here, a row of README's table and an oracle in its tests."""


def make_policy(name: str) -> EvictionPolicy:
    """A new, empty policy. Raises InvalidParameter for an unknown name."""
    if name not in POLICIES:
        raise InvalidParameter("eviction", f"must be one of {', '.join(POLICIES)}, not {name!r}")
    return POLICIES[name]()

"""Which cached block goes first when room is needed.

Owns: the three classical orders, each over the blocks it was told of. A policy knows nothing of blocks but their
numbers: `add` says that one holds something worth keeping, `touch` that it was used again, `remove` that it does not
any more, and `victim` takes out the one to give up. Every call takes constant time, `ClockPolicy.victim` amortised.
Refuses to know: who holds a block. The pool passes over victims that are held.
Specs: KV-20 to KV-24. Source: Corbató, "A paging experiment with the Multics system", 1968 (Clock).
Next: `ferrum.kv.pool`.
"""

from __future__ import annotations

from collections import OrderedDict
from typing import Protocol

from ferrum.errors import InvalidParameter


class EvictionPolicy(Protocol):
    """An order on blocks. Adding a block twice, or touching, removing one that is unknown is a KeyError."""

    def __len__(self) -> int: ...
    def __contains__(self, block: int) -> bool: ...
    def add(self, block: int) -> None: ...
    def touch(self, block: int) -> None: ...
    def remove(self, block: int) -> None: ...
    def victim(self) -> int:
        """Takes out the block to give up. KeyError if there is none."""
        ...


class _Queue:
    """Blocks in a row, each with a mark; the front goes first. What the three policies share."""

    def __init__(self) -> None:
        self._marks: OrderedDict[int, bool] = OrderedDict()  # a linked list: both ends and any middle in O(1)

    def __len__(self) -> int:
        return len(self._marks)

    def __contains__(self, block: int) -> bool:
        return block in self._marks

    def add(self, block: int) -> None:
        if block in self._marks:
            raise KeyError(block)
        self._marks[block] = False

    def remove(self, block: int) -> None:
        del self._marks[block]

    def victim(self) -> int:
        return self._marks.popitem(last=False)[0]


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
    """Second chance: a hand goes round the blocks; one that was used since it last came by is spared once.

    The front of the queue is where the hand points, and the end is just behind it, where new blocks go: the hand stays
    where it is between two calls. A sweep clears the marks it passes, so that the second one finds a victim.
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


def make_policy(name: str) -> EvictionPolicy:
    """A new, empty policy. Raises InvalidParameter for an unknown name."""
    if name not in POLICIES:
        raise InvalidParameter("eviction", f"must be one of {', '.join(POLICIES)}, not {name!r}")
    return POLICIES[name]()

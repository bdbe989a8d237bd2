"""The sequences that wait, by rank.

Owns: a heap from which any sequence can be taken out: an entry that no longer counts is skipped when it comes up.
Refuses to know: why a sequence waits. Specs: SCHED-05. Next: `ferrum.sched.in_flight`.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush

from ferrum.sched.order import Rank
from ferrum.sched.sequence import TokenSequence


class WaitingQueue:
    """Sequences by `rank`, which must not change while they are in here: take out, change, push again."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, TokenSequence]] = []
        self._entries: dict[TokenSequence, int] = {}  # which entry of the heap counts
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __iter__(self) -> Iterator[TokenSequence]:
        """All of them, in no particular order."""
        return iter(self._entries)

    def __contains__(self, sequence: TokenSequence) -> bool:
        return sequence in self._entries

    def push(self, sequence: TokenSequence) -> None:
        self._pushed += 1
        self._entries[sequence] = self._pushed
        heappush(self._heap, (sequence.rank, self._pushed, sequence))

    def first(self) -> TokenSequence | None:
        """The sequence of the smallest rank; None if nobody waits."""
        while self._heap:
            _, entry, sequence = self._heap[0]
            if self._entries.get(sequence) == entry:
                return sequence
            heappop(self._heap)
        return None

    def remove(self, sequence: TokenSequence) -> None:
        """KeyError if it is not in here."""
        del self._entries[sequence]
        if len(self._heap) > 2 * len(self._entries) + 16:  # mostly entries of those who left
            self._heap = [item for item in self._heap if self._entries.get(item[2]) == item[1]]
            heapify(self._heap)

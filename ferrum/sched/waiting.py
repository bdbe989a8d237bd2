"""The waiting sequences, by rank.

Owns: a heap from which any sequence can be removed: its entry stays in the heap and is skipped when it comes up.
Refuses to know: why a sequence waits. Specs: SCHED-05. Next: `ferrum.sched.in_flight`.
"""

from __future__ import annotations

from heapq import heapify, heappop, heappush

from ferrum.sched.order import Rank
from ferrum.sched.sequence import TokenSequence


class WaitingQueue:
    """Sequences by `rank`. To change the rank of a sequence: remove it, change, push it again."""

    def __init__(self) -> None:
        self._heap: list[tuple[Rank, int, TokenSequence]] = []  # (rank, number of the entry, sequence)
        self._entries: dict[TokenSequence, int] = {}  # the one valid entry of each sequence that waits
        self._pushed = 0

    def __len__(self) -> int:
        return len(self._entries)

    def __contains__(self, sequence: TokenSequence) -> bool:
        return sequence in self._entries

    def by_rank(self) -> list[TokenSequence]:
        """All waiting sequences, the smallest rank first."""
        return sorted(self._entries, key=lambda sequence: sequence.rank)

    def push(self, sequence: TokenSequence) -> None:
        self._pushed += 1
        self._entries[sequence] = self._pushed
        heappush(self._heap, (sequence.rank, self._pushed, sequence))

    def first(self) -> TokenSequence | None:
        """The sequence of the smallest rank; None if none waits."""
        while self._heap:
            _, entry, sequence = self._heap[0]
            if self._entries.get(sequence) == entry:
                return sequence
            heappop(self._heap)
        return None

    def remove(self, sequence: TokenSequence) -> None:
        """Raises KeyError if the sequence does not wait."""
        del self._entries[sequence]
        if len(self._heap) > 2 * len(self._entries) + 16:  # most entries are of sequences that were removed
            self._heap = [item for item in self._heap if self._entries.get(item[2]) == item[1]]
            heapify(self._heap)

    def clear(self) -> None:
        """Removes all sequences."""
        self._heap.clear()
        self._entries.clear()

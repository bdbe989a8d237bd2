"""Prefixes that running sequences are computing now.

Owns: the digests of the full blocks that running sequences have not computed yet. A waiting sequence that begins with
the same blocks waits until they are computed, and then shares them instead of computing them again.
Refuses to know: blocks. Specs: SCHED-30. Next: `ferrum.sched.preemption`.
"""

from __future__ import annotations

from collections import Counter

from ferrum.kv.eviction import Digest
from ferrum.kv.manager import KvManager
from ferrum.sched.sequence import TokenSequence


class InFlight:
    """Which full blocks are being computed, and by which sequences."""

    def __init__(self, manager: KvManager) -> None:
        self._manager = manager
        self._computing: Counter[Digest] = Counter()  # how many sequences are computing each; never 0
        self._digests: dict[TokenSequence, list[Digest]] = {}  # what each of these sequences is computing

    def __len__(self) -> int:
        """How many sequences are computing full blocks."""
        return len(self._digests)

    def announce(self, sequence: TokenSequence) -> None:
        """The sequence begins to run: it will compute the full blocks of its text that it does not have."""
        if not self._manager.prefix_caching:
            return
        size = self._manager.block_size
        digests = _digests(sequence, sequence.computed // size, sequence.length // size)
        if digests:
            self._computing.update(digests)
            self._digests[sequence] = digests

    def withdraw(self, sequence: TokenSequence) -> None:
        """The sequence has computed its blocks, or stops running. No error if it was never announced."""
        for digest in self._digests.pop(sequence, ()):
            self._computing[digest] -= 1
            if not self._computing[digest]:
                del self._computing[digest]

    def clear(self) -> None:
        """Forgets all sequences."""
        self._computing.clear()
        self._digests.clear()

    def covers_most_of(self, sequence: TokenSequence) -> bool:
        """True if running sequences are computing at least half of what this one would have to compute, counted in
        tokens of full blocks that directly follow those in memory. False if that is no full block."""
        if not self._computing:
            return False
        size = self._manager.block_size
        if sequence.table.host_blocks:
            return False  # it was swapped out and has nothing to compute again
        cached = len(self._manager.find(sequence.table, sequence.token_ids))
        coming = 0
        for digest in _digests(sequence, cached, sequence.length // size):
            if digest not in self._computing:
                break
            coming += size
        return 2 * coming >= sequence.length - cached * size and coming > 0


def _digests(sequence: TokenSequence, first: int, end: int) -> list[Digest]:
    """Of the full blocks first … end - 1 of the text."""
    return [sequence.table.chain.digest(index, sequence.token_ids) for index in range(first, end)]

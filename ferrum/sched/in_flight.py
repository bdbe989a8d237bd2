"""Blocks that somebody is about to compute.

Owns: the digests of full prompt blocks that running sequences have not computed yet. A newcomer whose prompt is mostly
among them had better wait a step or two than compute the same once more beside its mate.
Refuses to know: blocks. Specs: SCHED-30. Next: `ferrum.sched.preemption`.
"""

from __future__ import annotations

from collections import Counter

from ferrum.kv.eviction import Digest
from ferrum.kv.manager import KvManager
from ferrum.sched.sequence import TokenSequence


class InFlight:
    """Who computes which blocks."""

    def __init__(self, manager: KvManager) -> None:
        self._manager = manager
        self._coming: Counter[Digest] = Counter()  # by how many it is being computed; never 0
        self._of: dict[TokenSequence, list[Digest]] = {}

    def __len__(self) -> int:
        """How many sequences are computing blocks."""
        return len(self._of)

    def announce(self, sequence: TokenSequence) -> None:
        """A sequence begins to run: it will compute the full blocks of its text that it does not have."""
        if not self._manager.prefix_caching:
            return
        size = self._manager.block_size
        digests = self._digests(sequence, sequence.computed // size, sequence.length // size)
        if digests:
            self._coming.update(digests)
            self._of[sequence] = digests

    def withdraw(self, sequence: TokenSequence) -> None:
        """It has computed them, or will not."""
        for digest in self._of.pop(sequence, ()):
            self._coming[digest] -= 1
            if not self._coming[digest]:
                del self._coming[digest]

    def covers_most_of(self, sequence: TokenSequence) -> bool:
        """Is at least half of what this sequence would have to compute being computed by one that runs?"""
        if not self._coming:
            return False
        size = self._manager.block_size
        if sequence.table.host_blocks:
            return False  # it has computed all it needs
        found = len(self._manager.find(sequence.table, sequence.token_ids))
        coming = 0
        for digest in self._digests(sequence, found, sequence.length // size):
            if digest not in self._coming:
                break
            coming += size
        return 2 * coming >= sequence.length - found * size and coming > 0

    def _digests(self, sequence: TokenSequence, first: int, last: int) -> list[Digest]:
        return [sequence.table.chain.digest(index, sequence.token_ids) for index in range(first, last)]

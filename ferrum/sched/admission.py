"""Which waiting sequence may run now, and the blocks that it begins with.

Owns: the conditions of admission, the search for blocks that need not be computed (the sequence's own on the host,
those of a sibling, those of a cached prefix), and the first reservation.
A sequence waits for its prefix if that saves work (`prefix_is_being_computed`). Refuses to know: the queue, and what a
step computes; whether a request is valid (`ferrum.engine.admission`).
Specs: SCHED-05, SCHED-06, SCHED-15, SCHED-22, SCHED-30, SCHED-31. Next: `ferrum.sched.scheduler`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.block_table import blocks_for
from ferrum.kv.manager import KvManager
from ferrum.sched.in_flight import InFlight
from ferrum.sched.sequence import SequenceState, TokenSequence


class Admission:
    """Gives waiting sequences their first blocks, or refuses them for now. Siblings are the choices of one prompt."""

    def __init__(
        self, manager: KvManager, in_flight: InFlight, running: Sequence[TokenSequence], max_running: int
    ) -> None:
        """`running`: the scheduler's own list of running sequences, the smallest rank first; only read here."""
        self._manager = manager
        self._in_flight = in_flight
        self._running = running
        self._max_running = max_running
        # The sequence that did not fit last, and how often blocks had been released by then. To look up its prefix in
        # every step would take time, so it is refused at once until (1) blocks are released, which the second number
        # shows, or (2) blocks of a prompt, which it may share, are recorded: then the scheduler calls `forget_refusal`.
        # If no sequence runs, it is tried in any case, because no block would be released.
        self._refusal: tuple[TokenSequence, int] | None = None

    def admit(self, sequence: TokenSequence, budget: int) -> bool:
        """True if the sequence may run: it then has the blocks that it shares and those of the first `budget` tokens
        that are left to compute. False if it has to wait: it then has no blocks on the device."""
        if len(self._running) >= self._max_running or self._is_still_refused(sequence):
            return False
        if self.prefix_is_being_computed(sequence):
            return False
        return self._open(sequence) and self._reserve_first(sequence, budget)

    def is_urgent(self, sequence: TokenSequence) -> bool:
        """True if the sequence has a smaller rank than one that runs, and does not wait for its prefix."""
        precedes = bool(self._running) and sequence.rank < self._running[-1].rank
        return precedes and not self.prefix_is_being_computed(sequence)

    def prefix_is_being_computed(self, sequence: TokenSequence) -> bool:
        """True if the sequence waits so that it can share blocks that running sequences are computing now.

        If other choices of the same prompt run, a choice waits until one of them has computed the prompt. Any other
        sequence is compared block by block (`InFlight.covers_most_of`): first come the full blocks of its text that are
        in memory; m is the number of tokens after them. Then come the blocks, one after the other, that running
        sequences have announced and are computing; they hold n tokens. The sequence waits if n > 0 and n >= m / 2. Two
        equal prompts shorter than a block do not wait for each other, because n = 0. A sequence that was swapped out
        does not wait: what it had computed is on the host, and it has nothing to compute again."""
        siblings = self._running_siblings(sequence)
        if siblings:
            return all(sibling.computed < sibling.prompt_length for sibling in siblings)
        return self._in_flight.covers_most_of(sequence)

    def fits_if_later_are_preempted(self, sequence: TokenSequence) -> bool:
        """True if the sequence would fit after preempting all running ones of larger rank. The blocks of those of
        smaller rank stay held; the sequence can only share them."""
        if self._running_siblings(sequence):
            return True  # it shares the whole prompt of one of them, and one block more is enough
        earlier = [other for other in self._running if other.rank < sequence.rank]
        held_blocks = {block for other in earlier for block in other.table.blocks}
        shared = sum(hit.block in held_blocks for hit in self._manager.find(sequence.table, sequence.token_ids))
        needed = blocks_for(sequence.length + 1, self._manager.block_size) - shared
        return needed <= self._manager.device.total - len(held_blocks)

    def forget_refusal(self) -> None:
        """Blocks of a prompt have been recorded: the sequence refused last may share them, and fit."""
        self._refusal = None

    def _is_still_refused(self, sequence: TokenSequence) -> bool:
        """True if nothing has changed for the sequence since it did not fit."""
        return bool(self._running) and self._refusal == (sequence, self._manager.device.releases)

    def _running_siblings(self, sequence: TokenSequence) -> list[TokenSequence]:
        """Running sequences of the same prompt. None for a sequence that has run before: it has more than a prompt."""
        if sequence.state is not SequenceState.WAITING:
            return []
        return [sibling for sibling in sequence.siblings if sibling.state is SequenceState.RUNNING]

    def _open(self, sequence: TokenSequence) -> bool:
        """Gives the sequence the blocks that need not be computed, and sets `computed`. At least its last token is left
        to compute, because its logits are needed. False, and no change, if blocks are missing."""
        table = sequence.table
        for sibling in self._running_siblings(sequence):
            if sibling.computed >= sibling.prompt_length:
                sequence.computed = sequence.prompt_length - 1
                self._manager.fork(sibling.table, table, sequence.computed)
                return True
        if not self._manager.fits(table, sequence.token_ids, sequence.length + 1):
            self._refusal = (sequence, self._manager.device.releases)
            return False
        if table.host_blocks:
            try:
                self._manager.swap_in(table)
                return True
            except ResourceExhausted:
                return False
            except DeviceError:
                self._manager.close(table)
                sequence.computed = 0
        if sequence.scores_prompt and sequence.length == sequence.prompt_length:
            return True  # cached keys and values do not tell the logits of their tokens
        sequence.computed = min(self._manager.open(table, sequence.token_ids), sequence.length - 1)
        return True

    def _reserve_first(self, sequence: TokenSequence, budget: int) -> bool:
        """Reserves the first `budget` tokens that are left to compute. False, and no blocks, if that fails."""
        table = sequence.table
        try:
            self._manager.reserve(table, sequence.computed, sequence.computed + min(budget, sequence.pending))
            return True
        except ResourceExhausted:
            self._manager.close(table)
            sequence.computed = 0
            return False
        except DeviceError:  # a shared block could not be copied: without shared blocks nothing has to be copied
            self._manager.close(table)
            sequence.computed = 0
        try:
            self._manager.reserve(table, 0, min(budget, sequence.length))
            return True
        except ResourceExhausted:
            return False

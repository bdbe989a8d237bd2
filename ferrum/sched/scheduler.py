"""Whose tokens run in the next step, and who gets blocks.

Owns: the waiting and the running sequences, the token budget of a step, admission, preemption. One total order, the
rank, decides everything: those of smaller rank are admitted first, and of those that run, the one of the largest rank
gives way when blocks are missing. So the first in the order always comes forward, and with it everybody in turn.
Refuses to know: arrays, text, why a sequence is finished.
Specs: SCHED-01 to SCHED-31. Papers: Orca OSDI'22 (a new plan each step), Sarathi-Serve 2403.02310 (decodes and chunks
of prompts share one token budget), PagedAttention 2309.06180 (preemption). Next: `ferrum.engine.runner`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from ferrum.errors import DeviceError, RequestValidation, ResourceExhausted, SchedulerError
from ferrum.kv.block_table import blocks_for
from ferrum.kv.manager import KvManager
from ferrum.sched.drafts import Drafts, with_drafts
from ferrum.sched.in_flight import InFlight
from ferrum.sched.order import Order, Rank, fifo_rank
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.preemption import Preempter
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.sched.waiting import WaitingQueue
from ferrum.types import Priority

SCORED_TOKENS = 256
"""Tokens of a prompt to be scored that a step computes: their logits take as much memory as many a model's weights."""


@dataclass(frozen=True)
class Limits:
    """What a scheduler keeps to."""

    max_num_seqs: int  # sequences that run at a time
    max_num_batched_tokens: int  # tokens computed in a step
    max_model_len: int  # tokens of one sequence
    max_waiting: int = 1000  # sequences that wait


class Scheduler:
    """Plans steps. Between `plan` and its `commit` nothing else may be called but `plan` again, if the step failed."""

    def __init__(self, manager: KvManager, limits: Limits, order: Order = fifo_rank, swap_cost: float = 1.0) -> None:
        """`swap_cost`: see `Preempter`."""
        self.manager = manager
        self.limits = limits
        self.preempter = Preempter(manager, swap_cost)
        self._order = order
        self._in_flight = InFlight(manager)
        self._waiting = WaitingQueue()
        self._running: list[TokenSequence] = []  # by rank
        self._refused: tuple[TokenSequence, int] | None = None  # see _admit
        self._arrived = 0
        self._step = 0

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def waiting_sequences(self) -> list[TokenSequence]:
        """A copy of the queue, in the order of rank."""
        return sorted(self._waiting, key=_rank)

    def running_sequences(self) -> list[TokenSequence]:
        """A copy of the list of sequences that run, in the order of rank."""
        return list(self._running)

    # ---- sequences come and go
    def check(self, prompt_length: int, max_tokens: int | None) -> int:
        """-> the length at which such a sequence ends: max_tokens after its prompt, or where the context is full.
        Raises RequestValidation if it could never run."""
        room = self.manager.device.total * self.manager.block_size
        context = min(self.limits.max_model_len, room)
        if prompt_length < 1:
            raise RequestValidation("the prompt has no tokens")
        if prompt_length + 1 > self.limits.max_model_len:
            raise RequestValidation(
                f"a prompt of {prompt_length} tokens leaves no room in a context of {self.limits.max_model_len}"
            )
        if prompt_length + 1 > room:
            raise RequestValidation(
                f"a prompt of {prompt_length} tokens leaves no room in the {room} that kv_memory holds"
            )
        longest = context if max_tokens is None else min(prompt_length + max_tokens, self.limits.max_model_len)
        if longest > room:
            raise RequestValidation(
                f"{longest} tokens exceed the {room} that kv_memory holds: raise it, or lower max_tokens"
            )
        return longest

    def room_for(self, count: int) -> bool:
        """May so many more sequences be added?"""
        return self.waiting + count <= self.limits.max_waiting

    def add(self, sequence: TokenSequence) -> None:
        """Queues a new sequence. Raises RequestValidation if it could never run, ResourceExhausted if too many wait
        already, and then changes nothing."""
        if sequence.state is not SequenceState.NEW:
            raise SchedulerError(f"a sequence is added once: this one is {sequence.state.value}")
        longest = self.check(sequence.prompt_length, sequence.params.max_tokens)
        if not self.room_for(1):
            raise ResourceExhausted(f"{self.waiting} sequences are waiting already: try again later")
        self._arrived += 1
        sequence.max_length = longest
        sequence.table = self.manager.new_table()
        sequence.arrival, sequence.arrival_step = self._arrived, self._step
        sequence.rank = self._order(sequence)
        sequence.state = SequenceState.WAITING
        self._waiting.push(sequence)

    def finish(self, sequence: TokenSequence) -> None:
        """Takes a sequence out, wherever it stands, and frees its blocks. Raises SchedulerError if it is not here."""
        self._take_out(sequence)
        self._in_flight.withdraw(sequence)
        sequence.state = SequenceState.FINISHED
        self.manager.close(sequence.table)

    def update_priority(self, sequence: TokenSequence, priority: Priority) -> None:
        """Another class for a sequence that waits or runs; it keeps the time it has waited. Raises SchedulerError if it
        is not here."""
        self._take_out(sequence)
        sequence.priority = priority
        sequence.rank = self._order(sequence)
        if sequence.state is SequenceState.RUNNING:
            insort(self._running, sequence, key=_rank)
        else:
            self._waiting.push(sequence)

    # ---- a step
    def plan(self) -> StepPlan:
        """The next step: running sequences with one pending token first, then those with more, then newcomers. Admits
        and preempts, but counts nothing as computed: that is `commit`. Empty only if there is nothing to do."""
        self._step += 1
        preempted = self.preempter.total
        self._admit_urgent()
        chunks: dict[TokenSequence, Chunk] = {}
        budget = self._plan_running(chunks)
        if self.preempter.total == preempted:  # whoever just gave way would only come back to do it again
            while budget and (sequence := self._waiting.first()) and self._admit(sequence, budget):
                chunks[sequence] = _chunk(sequence, budget)
                budget -= chunks[sequence].count
        return StepPlan(tuple(chunks.values()))

    def add_drafts(self, plan: StepPlan, drafts: Drafts) -> StepPlan:
        """The same step with tokens that may come next, as far as there is room for them."""
        return with_drafts(plan, drafts, self.manager, self.limits.max_num_batched_tokens)

    def commit(self, plan: StepPlan, tokens: Sequence[int]) -> None:
        """The plan has been carried out: its tokens are computed, and plan.sampled[i] is continued by tokens[i]."""
        if len(plan.sampled) != len(tokens):
            raise SchedulerError(f"a plan that samples {len(plan.sampled)} tokens is committed with {len(tokens)}")
        size = self.manager.block_size
        somebody_fills = len(self._in_flight) > 0  # hardly ever while all decode
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed = computed = chunk.start + chunk.count
            table = sequence.table
            if computed // size > table.recorded:
                self.manager.record(table, sequence.token_ids, computed)
                if chunk.count > 1:
                    self._refused = None  # it may share these blocks, and fit
            if somebody_fills and computed == len(sequence.token_ids):
                self._in_flight.withdraw(sequence)
        for sequence, token in zip(plan.sampled, tokens, strict=True):
            sequence.token_ids.append(token)

    def reset(self) -> None:
        """Forgets every sequence and frees all blocks: the way out when an operation was broken off in the middle."""
        self._running.clear()
        self._waiting = WaitingQueue()
        self._in_flight = InFlight(self.manager)
        self._refused = None
        self.manager.reset()

    # ---- those that run
    def _plan_running(self, chunks: dict[TokenSequence, Chunk]) -> int:
        """Fills in the chunks of running sequences -> the tokens left of the budget."""
        budget = self.limits.max_num_batched_tokens
        decodes = [sequence for sequence in self._running if len(sequence.token_ids) - sequence.computed == 1]
        prompts = [] if len(decodes) == len(self._running) else [s for s in self._running if s.pending > 1]
        ended = [
            s.table for s in decodes[:budget] if s.computed >= s.table.own_until and s.computed == s.table.capacity
        ]
        if ended:
            self.manager.grow(ended)  # all at once where that goes; who is left out makes room for itself
        running = SequenceState.RUNNING  # before Python 3.12, to read a member of an enumeration takes a call
        for sequence in decodes + prompts:
            if not budget:
                break
            if sequence.state is not running:
                continue  # it gave way to one before it
            chunk = _chunk(sequence, budget)
            if chunk.start + chunk.count > sequence.table.own_until:
                budget += self._make_room(sequence, chunk.start + chunk.count, chunks)
                if sequence.state is not running:
                    continue
            chunks[sequence] = chunk
            budget -= chunk.count
        return budget

    def _make_room(self, sequence: TokenSequence, end: int, chunks: dict[TokenSequence, Chunk]) -> int:
        """Gets a running sequence the blocks up to `end`, at the cost of those after it in the order; if there is none
        left, it gives way itself. -> planned tokens that are not computed after all."""
        given_back = 0
        while sequence.state is SequenceState.RUNNING:
            try:
                self.manager.reserve(sequence.table, sequence.computed, end)
                break
            except ResourceExhausted:
                victim = self._running[-1]
            except DeviceError:
                victim = sequence  # its shared blocks cannot be copied: others cannot help
            self._preempt(victim)
            if victim in chunks:
                given_back += chunks.pop(victim).count
        return given_back

    def _preempt(self, sequence: TokenSequence) -> None:
        """A running sequence waits again, in the place of its rank."""
        self._running.remove(sequence)
        self._in_flight.withdraw(sequence)
        self.preempter.preempt(sequence)
        sequence.state = SequenceState.PREEMPTED
        self._waiting.push(sequence)

    # ---- those that wait
    def _admit_urgent(self) -> None:
        """Sequences that wait although they come before running ones in the order take the place of those."""
        while (sequence := self._waiting.first()) and self._is_urgent(sequence):
            while not self._admit(sequence, self.limits.max_num_batched_tokens):
                if not self._is_urgent(sequence) or not self._would_start_without_later(sequence):
                    return
                self._preempt(self._running[-1])

    def _is_urgent(self, sequence: TokenSequence) -> bool:
        """Does it come before one that runs, and has nothing to wait for but its place?"""
        comes_before = bool(self._running) and sequence.rank < self._running[-1].rank
        return comes_before and not self._waits_for_mate(sequence)

    def _admit(self, sequence: TokenSequence, budget: int) -> bool:
        """Lets a waiting sequence run, if there is a place for it and blocks for its text and the first `budget` tokens
        that it has to compute."""
        if len(self._running) >= self.limits.max_num_seqs:
            return False
        if self._running and self._refused == (sequence, self.manager.device.releases):
            return False  # it did not fit, and since then nothing was given back, and no prompt computed
        if self._waits_for_mate(sequence):
            return False
        if not (self._open(sequence) and self._reserve_first(sequence, budget)):
            return False
        if sequence.state is SequenceState.WAITING:
            sequence.cached = sequence.computed
        self._waiting.remove(sequence)
        sequence.state = SequenceState.RUNNING
        insort(self._running, sequence, key=_rank)
        self._in_flight.announce(sequence)
        return True

    def _reserve_first(self, sequence: TokenSequence, budget: int) -> bool:
        """Reserves the first `budget` tokens that a newcomer has to compute. False, and no blocks, if that fails."""
        table = sequence.table
        try:
            self.manager.reserve(table, sequence.computed, sequence.computed + min(budget, sequence.pending))
            return True
        except ResourceExhausted:
            self.manager.close(table)
            sequence.computed = 0
            return False
        except DeviceError:  # what it shares cannot be copied: then it shares nothing, and nothing has to be
            self.manager.close(table)
            sequence.computed = 0
        try:
            self.manager.reserve(table, 0, min(budget, sequence.length))
            return True
        except ResourceExhausted:
            return False

    def _open(self, sequence: TokenSequence) -> bool:
        """Gives a sequence the blocks that need not be computed: its own on the host, those of a sibling, those of a
        cached prefix. At least its last token is left to compute. False, and no change, if memory does not suffice."""
        table = sequence.table
        for sibling in self._running_siblings(sequence):
            if sibling.computed >= sibling.prompt_length:
                sequence.computed = sequence.prompt_length - 1
                self.manager.fork(sibling.table, table, sequence.computed)
                return True
        if not self.manager.fits(table, sequence.token_ids, sequence.length + 1):
            self._refused = (sequence, self.manager.device.releases)
            return False
        if table.host_blocks:
            try:
                self.manager.swap_in(table)
                return True
            except ResourceExhausted:
                return False
            except DeviceError:
                self.manager.close(table)
        if sequence.scores_prompt and sequence.length == sequence.prompt_length:
            return True  # known keys and values do not tell what was expected to come next
        sequence.computed = min(self.manager.open(table, sequence.token_ids), sequence.length - 1)
        return True

    def _running_siblings(self, sequence: TokenSequence) -> list[TokenSequence]:
        """Those whose prompt a newcomer could share; none if it has run before, and has more than a prompt."""
        if sequence.state is not SequenceState.WAITING:
            return []
        return [sibling for sibling in sequence.siblings if sibling.state is SequenceState.RUNNING]

    def _waits_for_mate(self, sequence: TokenSequence) -> bool:
        """Does somebody who runs compute most of what this one needs?"""
        siblings = self._running_siblings(sequence)
        if siblings:
            return all(sibling.computed < sibling.prompt_length for sibling in siblings)
        return self._in_flight.covers_most_of(sequence)

    def _would_start_without_later(self, sequence: TokenSequence) -> bool:
        """Is it worth preempting those after it in the order? What those before it hold stays, to be shared at most."""
        if self._running_siblings(sequence):
            return True  # one block is all it wants
        earlier = [other for other in self._running if other.rank < sequence.rank]
        kept = {block for other in earlier for block in other.table.blocks}
        shared = sum(hit.block in kept for hit in self.manager.find(sequence.table, sequence.token_ids))
        needed = blocks_for(sequence.length + 1, self.manager.block_size) - shared
        return needed <= self.manager.device.total - len(kept)

    def _take_out(self, sequence: TokenSequence) -> None:
        if sequence.state is SequenceState.RUNNING and sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            raise SchedulerError(f"a sequence is not here: it is {sequence.state.value}")


def _rank(sequence: TokenSequence) -> Rank:
    return sequence.rank


def _chunk(sequence: TokenSequence, budget: int) -> Chunk:
    start = sequence.computed
    pending = len(sequence.token_ids) - start
    if sequence.scores_prompt and start < sequence.prompt_length:
        count = min(pending, budget, SCORED_TOKENS)
        return Chunk(sequence, start, count, count)
    return Chunk(sequence, start, pending, 1) if pending <= budget else Chunk(sequence, start, budget, 0)

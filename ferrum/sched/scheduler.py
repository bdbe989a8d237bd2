"""Which tokens run in the next step, and which sequences have blocks.

Owns: the waiting and the running sequences, the token budget of a step, admission, preemption. One total order, the
rank, decides every conflict: sequences of smaller rank are admitted first, and when blocks are missing, the running
sequence of the largest rank is preempted. The sequence with the smallest rank never loses its blocks to another, so it
finishes; then the next one is smallest: no sequence starves. Two rules do not depend on ranks: sequences with one
pending token are planned before those with more, and a sequence whose shared blocks cannot be copied is preempted
itself.
Refuses to know: arrays, text, why a sequence is finished.
Specs: SCHED-01 to SCHED-31. Papers: Orca OSDI'22 (a new plan each step), Sarathi-Serve 2403.02310 (decodes and chunks
of prompts share one token budget), PagedAttention 2309.06180 (preemption). Next: `ferrum.engine.runner`.
"""

from __future__ import annotations

from bisect import insort
from collections.abc import Sequence
from dataclasses import dataclass

from ferrum.errors import DeviceError, RequestValidation, ResourceExhausted, SchedulerError
from ferrum.kv.manager import KvManager
from ferrum.sched.admission import Admission
from ferrum.sched.drafts import Drafts, with_drafts
from ferrum.sched.in_flight import InFlight
from ferrum.sched.order import Order, Rank, fifo_rank
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.preemption import Preempter
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.sched.waiting import WaitingQueue
from ferrum.types import Priority

SCORED_TOKENS = 256
"""Tokens of a scored prompt that a step computes at most: a row of logits is kept for each of them."""

RUNNING = SequenceState.RUNNING  # before Python 3.12, to read a member of an enumeration takes a call


@dataclass(frozen=True)
class Limits:
    """The bounds of a scheduler."""

    max_num_seqs: int  # sequences that run at a time
    max_num_batched_tokens: int  # tokens computed in a step
    max_model_len: int  # tokens of one sequence
    max_waiting: int = 1000  # sequences that wait


class Scheduler:
    """Plans steps: `plan`, then `commit` with the sampled tokens. Between the two only `add_drafts` may change it, and
    `finish` for a sequence that is then left out of the plan (`StepPlan.without`). A step that failed is not committed:
    after it any method may be called."""

    def __init__(self, manager: KvManager, limits: Limits, order: Order = fifo_rank, swap_cost: float = 1.0) -> None:
        """`swap_cost`: see `Preempter`."""
        self.manager = manager
        self.limits = limits
        self.preempter = Preempter(manager, swap_cost)
        self._order = order
        self._waiting = WaitingQueue()
        self._running: list[TokenSequence] = []  # the smallest rank first
        self._in_flight = InFlight(manager)
        self._admission = Admission(manager, self._in_flight, self._running, limits.max_num_seqs)
        self._arrived = 0  # sequences that were added, so far
        self._step = 0  # steps that were planned, so far

    @property
    def waiting(self) -> int:
        """How many sequences wait."""
        return len(self._waiting)

    @property
    def running(self) -> int:
        """How many sequences run."""
        return len(self._running)

    def waiting_sequences(self) -> list[TokenSequence]:
        """The waiting sequences, the smallest rank first."""
        return self._waiting.by_rank()

    def running_sequences(self) -> list[TokenSequence]:
        """The running sequences, the smallest rank first."""
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
        """True if `count` more sequences may be added."""
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
        """Takes out a sequence that waits or runs, and frees its blocks. Raises SchedulerError if it does neither."""
        self._take_out(sequence)
        self._in_flight.withdraw(sequence)
        sequence.state = SequenceState.FINISHED
        self.manager.close(sequence.table)

    def update_priority(self, sequence: TokenSequence, priority: Priority) -> None:
        """Another class for a sequence that waits or runs; the time that it has waited still counts. Raises
        SchedulerError if it does neither."""
        self._take_out(sequence)
        sequence.priority = priority
        sequence.rank = self._order(sequence)
        if sequence.state is RUNNING:
            insort(self._running, sequence, key=_rank)
        else:
            self._waiting.push(sequence)

    def reset(self) -> None:
        """Forgets all sequences and frees all blocks: for an operation that was interrupted in the middle."""
        self._running.clear()
        self._waiting.clear()
        self._in_flight.clear()
        self._admission.forget_refusal()
        self.manager.reset()

    def _take_out(self, sequence: TokenSequence) -> None:
        if sequence.state is RUNNING and sequence in self._running:
            self._running.remove(sequence)
        elif sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            raise SchedulerError(f"a sequence is not here: it is {sequence.state.value}")

    # ---- a step
    def plan(self) -> StepPlan:
        """The next step. Admits and preempts, but counts no token as computed: `commit` does. Empty if no sequence
        waits or runs. Rarely it is empty although a sequence waits: a move of its blocks failed, inputs of `embed` hold
        the blocks that it needs, or the only running sequence was preempted in this step."""
        self._step += 1
        chunks: dict[TokenSequence, Chunk] = {}
        budget = self.limits.max_num_batched_tokens
        preemptions = self.preempter.total
        self._admit_urgent()

        # Running sequences. Where blocks are missing, sequences of larger rank are preempted and lose their chunks.
        for sequence in self._running_in_order(budget):
            if not budget:
                break
            if sequence.state is not RUNNING:
                continue  # it was preempted for a sequence before it
            chunk = _chunk(sequence, budget)
            if chunk.start + chunk.count > sequence.table.writable_until:
                budget += self._make_room(sequence, chunk.start + chunk.count, chunks)
                if sequence.state is not RUNNING:
                    continue
            chunks[sequence] = chunk
            budget -= chunk.count

        # Waiting sequences by rank. The first that cannot be admitted ends the loop, so those behind it wait too: there
        # is no room for it, too many sequences run, or its prefix is being computed.
        if self.preempter.total == preemptions:  # else this would admit again what was preempted in this step
            while budget and (first := self._waiting.first()) and self._admit(first, budget):
                chunks[first] = _chunk(first, budget)
                budget -= chunks[first].count
        return StepPlan(tuple(chunks.values()))

    def add_drafts(self, plan: StepPlan, drafts: Drafts) -> StepPlan:
        """The same step with drafts, as far as there is room for them."""
        return with_drafts(plan, drafts, self.manager, self.limits.max_num_batched_tokens)

    def commit(self, plan: StepPlan, tokens: Sequence[int]) -> None:
        """The plan was carried out: its tokens are computed, and plan.sampled[i] is continued by tokens[i]. Raises
        SchedulerError, and changes nothing, if there is not one token for each sampled sequence."""
        if len(plan.sampled) != len(tokens):
            raise SchedulerError(f"a plan that samples {len(plan.sampled)} tokens is committed with {len(tokens)}")
        size = self.manager.block_size
        prompts_in_flight = len(self._in_flight) > 0  # False in most steps: all sequences decode
        for chunk in plan.chunks:
            sequence = chunk.sequence
            sequence.computed = computed = chunk.start + chunk.count
            table = sequence.table
            if computed // size > table.recorded:
                self.manager.record(table, sequence.token_ids, computed)
                if chunk.count > 1:
                    self._admission.forget_refusal()
            if prompts_in_flight and computed == len(sequence.token_ids):
                self._in_flight.withdraw(sequence)
        for sequence, token in zip(plan.sampled, tokens, strict=True):
            sequence.token_ids.append(token)

    # ---- how
    def _running_in_order(self, budget: int) -> list[TokenSequence]:
        """Running sequences with one pending token, then those with more, each by rank. Those of the first kind whose
        last block is full get a new block, in one operation for all, if there are enough."""
        decodes = [sequence for sequence in self._running if len(sequence.token_ids) - sequence.computed == 1]
        full_tables = [
            sequence.table
            for sequence in decodes[:budget]
            if sequence.computed >= sequence.table.writable_until and sequence.computed == sequence.table.capacity
        ]
        if full_tables:
            self.manager.grow(full_tables)
        if len(decodes) == len(self._running):
            return decodes
        return decodes + [sequence for sequence in self._running if sequence.pending > 1]

    def _make_room(self, sequence: TokenSequence, end: int, chunks: dict[TokenSequence, Chunk]) -> int:
        """Reserves blocks up to position `end` for a running sequence. While blocks are missing, the sequence of the
        largest rank is preempted, in the end this one itself. -> tokens of planned chunks that were taken back."""
        given_back = 0
        while sequence.state is RUNNING:
            try:
                self.manager.reserve(sequence.table, sequence.computed, end)
                break
            except ResourceExhausted:
                victim = self._running[-1]
            except DeviceError:
                victim = sequence  # its shared blocks cannot be copied: more free blocks would not help
            self._preempt(victim)
            if victim in chunks:
                given_back += chunks.pop(victim).count
        return given_back

    def _preempt(self, sequence: TokenSequence) -> None:
        """A running sequence loses its blocks and waits again, in the place of its rank."""
        self._running.remove(sequence)
        self._in_flight.withdraw(sequence)
        self.preempter.preempt(sequence)
        sequence.state = SequenceState.PREEMPTED
        self._waiting.push(sequence)

    def _admit(self, sequence: TokenSequence, budget: int) -> bool:
        """Lets a waiting sequence run. False if it has to wait."""
        if not self._admission.admit(sequence, budget):
            return False
        if sequence.state is SequenceState.WAITING:
            sequence.cached = sequence.computed
        self._waiting.remove(sequence)
        sequence.state = RUNNING
        insort(self._running, sequence, key=_rank)
        self._in_flight.announce(sequence)
        return True

    def _admit_urgent(self) -> None:
        """Lets waiting sequences run that have a smaller rank than running ones, which are preempted if need be."""
        admission = self._admission
        while (sequence := self._waiting.first()) and admission.is_urgent(sequence):
            while not self._admit(sequence, self.limits.max_num_batched_tokens):
                if not admission.is_urgent(sequence) or not admission.fits_if_later_are_preempted(sequence):
                    return
                self._preempt(self._running[-1])


def _rank(sequence: TokenSequence) -> Rank:
    return sequence.rank


def _chunk(sequence: TokenSequence, budget: int) -> Chunk:
    """The next tokens of a sequence, at most `budget`."""
    start = sequence.computed
    pending = len(sequence.token_ids) - start
    if sequence.scores_prompt and start < sequence.prompt_length:
        count = min(pending, budget, SCORED_TOKENS)
        return Chunk(sequence, start, count, count)
    return Chunk(sequence, start, pending, 1) if pending <= budget else Chunk(sequence, start, budget, 0)

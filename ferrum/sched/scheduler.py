"""First in, first out: whose tokens run in the next step, and who gets blocks.

Owns: the waiting and the running sequences, the token budget of a step, admission. A sequence is admitted when the
pool has blocks for the longest it can become, so that nothing that runs ever has to give way.
Refuses to know: arrays, text, why a sequence is finished.
Specs: SCHED-03 to SCHED-10. Papers: Orca OSDI'22 (a new plan each step), Sarathi-Serve 2403.02310 (decodes and chunks
of prompts share one token budget). Next: `ferrum.engine.runner`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Sequence

from ferrum.errors import RequestValidation, SchedulerError
from ferrum.kv.block_table import BlockTable, blocks_for
from ferrum.kv.pool import BlockPool
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import SequenceState, TokenSequence


class FifoScheduler:
    """Strictly in order of arrival: while the oldest waiting sequence does not fit, no later one is admitted."""

    def __init__(
        self, pool: BlockPool, block_size: int, max_num_seqs: int, max_num_batched_tokens: int, max_model_len: int
    ) -> None:
        """At most `max_num_seqs` sequences run at a time, at most `max_num_batched_tokens` tokens are computed in a
        step, and no sequence grows beyond `max_model_len` tokens."""
        self.pool = pool
        self.block_size = block_size
        self.max_num_seqs = max_num_seqs
        self.max_num_batched_tokens = max_num_batched_tokens
        self.max_model_len = max_model_len
        self._waiting: deque[TokenSequence] = deque()
        self._running: list[TokenSequence] = []  # in order of admission

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    @property
    def running(self) -> int:
        return len(self._running)

    def add(self, sequence: TokenSequence) -> None:
        """Queues a new sequence. Raises RequestValidation, and changes nothing, if it could never run."""
        if sequence.state is not SequenceState.NEW:
            raise SchedulerError(f"a sequence is added once: this one is {sequence.state.value}")
        sequence.max_length = self._longest(sequence)
        sequence.state = SequenceState.WAITING
        self._waiting.append(sequence)

    def plan(self) -> StepPlan:
        """The next step: sequences with one pending token first, then those with more, then new ones. Empty only if
        there is nothing to do. Admits sequences, but counts nothing as computed: that is `commit`."""
        budget = self.max_num_batched_tokens
        chunks: list[Chunk] = []
        for sequence in sorted(self._running, key=_has_prompt_left):  # stable: age decides among equals
            if not budget:
                break
            chunks.append(_chunk(sequence, budget))
            budget -= chunks[-1].count
        while budget and self._admit_oldest():
            chunks.append(_chunk(self._running[-1], budget))
            budget -= chunks[-1].count
        return StepPlan(tuple(chunks))

    def commit(self, plan: StepPlan, tokens: Sequence[int]) -> None:
        """The plan has been carried out: its tokens are computed, and plan.sampled[i] is continued by tokens[i]."""
        sampled = plan.sampled
        if len(sampled) != len(tokens):
            raise SchedulerError(f"a plan that samples {len(sampled)} tokens is committed with {len(tokens)}")
        for chunk in plan.chunks:
            chunk.sequence.computed += chunk.count
        for sequence, token in zip(sampled, tokens, strict=True):
            sequence.token_ids.append(token)

    def finish(self, sequence: TokenSequence) -> None:
        """Takes a sequence out, wherever it stands, and frees its blocks. Raises SchedulerError if it is not here."""
        if sequence.state is SequenceState.RUNNING and sequence in self._running:
            self._running.remove(sequence)
        elif sequence.state is SequenceState.WAITING and sequence in self._waiting:
            self._waiting.remove(sequence)
        else:
            raise SchedulerError(f"a sequence cannot be finished here: it is {sequence.state.value}")
        sequence.state = SequenceState.FINISHED
        if sequence.table is not None:
            self.pool.release(sequence.table.blocks)
            sequence.table = None

    def _longest(self, sequence: TokenSequence) -> int:
        """The length at which a sequence ends: max_tokens after its prompt, or where the context is full."""
        prompt, wanted = sequence.prompt_length, sequence.params.max_tokens
        room = self.pool.total * self.block_size
        context = min(self.max_model_len, room)
        if prompt < 1:
            raise RequestValidation("the prompt has no tokens")
        if prompt + 1 > context:
            raise RequestValidation(f"a prompt of {prompt} tokens leaves no room in a context of {context}")
        longest = context if wanted is None else min(prompt + wanted, self.max_model_len)
        if longest > room:
            raise RequestValidation(f"{longest} tokens exceed the {room} that the memory holds: lower max_tokens")
        return longest

    def _admit_oldest(self) -> bool:
        """Gives the oldest waiting sequence its blocks, if it can run now."""
        if not self._waiting or len(self._running) >= self.max_num_seqs:
            return False
        sequence = self._waiting[0]
        needed = blocks_for(sequence.max_length, self.block_size)
        if needed > self.pool.free:
            return False
        sequence.table = BlockTable(self.block_size, self.pool.allocate(needed))
        sequence.state = SequenceState.RUNNING
        self._running.append(self._waiting.popleft())
        return True


def _has_prompt_left(sequence: TokenSequence) -> bool:
    return sequence.pending > 1


def _chunk(sequence: TokenSequence, budget: int) -> Chunk:
    count = min(sequence.pending, budget)
    return Chunk(sequence, sequence.computed, count, rows=int(count == sequence.pending))

"""SCHED-01 to SCHED-10: any trace of submissions, steps and cancellations."""

from __future__ import annotations

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ferrum.errors import RequestValidation, SchedulerError
from ferrum.kv.pool import BlockPool
from ferrum.sched.plan import StepPlan
from ferrum.sched.scheduler import FifoScheduler
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.types import SamplingParams

TOKEN = 7


def sequence_of(prompt_length: int, max_tokens: int | None) -> TokenSequence:
    return TokenSequence([TOKEN] * prompt_length, SamplingParams(max_tokens=max_tokens), seed=0)


class SchedulerMachine(RuleBasedStateMachine):
    """What is checked is written down from the clauses; the scheduler is asked only for plans."""

    @initialize(
        blocks=st.integers(1, 12),
        block_size=st.integers(1, 5),
        seqs=st.integers(1, 4),
        budget=st.integers(1, 9),
        context=st.integers(2, 40),
    )
    def start(self, blocks: int, block_size: int, seqs: int, budget: int, context: int) -> None:
        self.pool = BlockPool(blocks)
        self.scheduler = FifoScheduler(self.pool, block_size, seqs, budget, context)
        self.context = min(context, blocks * block_size)
        self.live: list[TokenSequence] = []  # in order of arrival

    @rule(prompt=st.integers(0, 45), max_tokens=st.one_of(st.none(), st.integers(1, 20)))
    def add(self, prompt: int, max_tokens: int | None) -> None:
        sequence, scheduler = sequence_of(prompt, max_tokens), self.scheduler
        wanted = self.context if max_tokens is None else min(prompt + max_tokens, scheduler.max_model_len)
        if prompt == 0 or prompt >= self.context or wanted > self.context:
            before = (scheduler.waiting, scheduler.running, self.pool.free)
            with pytest.raises(RequestValidation):
                scheduler.add(sequence)
            assert (scheduler.waiting, scheduler.running, self.pool.free) == before
            assert sequence.state is SequenceState.NEW
            return
        scheduler.add(sequence)
        assert sequence.max_length == wanted
        self.live.append(sequence)

    @rule(data=st.data())
    def step(self, data: st.DataObject) -> None:
        stop_early = data.draw(st.booleans())
        self.run_step(stop_early)

    @precondition(lambda self: getattr(self, "live", None))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        self.take_out(data.draw(st.sampled_from(self.live)))

    @precondition(lambda self: getattr(self, "live", None))
    @rule(data=st.data())
    def add_again(self, data: st.DataObject) -> None:
        with pytest.raises(SchedulerError):
            self.scheduler.add(data.draw(st.sampled_from(self.live)))

    def run_step(self, stop_early: bool) -> None:
        pending = {id(s): s.pending for s in self.live if s.state is SequenceState.RUNNING}
        plan = self.scheduler.plan()
        assert bool(plan.chunks) == bool(self.live)
        self.check_plan(plan, pending)
        sampled = plan.sampled
        lengths = [sequence.length for sequence in sampled]
        self.scheduler.commit(plan, [TOKEN] * len(sampled))
        assert [sequence.length for sequence in sampled] == [length + 1 for length in lengths]
        for chunk in plan.chunks:
            assert chunk.sequence.computed == chunk.start + chunk.count
        for sequence in sampled:
            assert sequence.length <= sequence.max_length
            if stop_early or sequence.length == sequence.max_length:
                self.take_out(sequence)

    def check_plan(self, plan: StepPlan, pending: dict[int, int]) -> None:
        chunks, scheduler = plan.chunks, self.scheduler
        assert len({id(chunk.sequence) for chunk in chunks}) == len(chunks)
        for chunk in chunks:
            assert chunk.sequence.state is SequenceState.RUNNING
            assert chunk.start == chunk.sequence.computed
            assert 1 <= chunk.count <= chunk.sequence.pending
            assert chunk.rows == (chunk.start + chunk.count == chunk.sequence.length)
        assert plan.tokens == sum(chunk.count for chunk in chunks) <= scheduler.max_num_batched_tokens
        # Order: decodes, then running prompts, then newcomers; each by age; only the last chunk may be cut.
        place = {id(sequence): index for index, sequence in enumerate(self.live)}
        ids = [id(chunk.sequence) for chunk in chunks]
        key = [(pending.get(one, 1000) > 1, one not in pending, place[one]) for one in ids]
        assert key == sorted(key)
        assert all(chunk.rows for chunk in chunks[:-1])
        if plan.tokens < scheduler.max_num_batched_tokens:  # budget left: everything that can run runs to its end
            assert len(chunks) == scheduler.running
            assert all(chunk.rows for chunk in chunks)
            self.check_admission_was_exhausted()

    def check_admission_was_exhausted(self) -> None:
        waiting = [s for s in self.live if s.state is SequenceState.WAITING]
        if waiting and self.scheduler.running < self.scheduler.max_num_seqs:
            assert waiting[0].max_length > self.pool.free * self.scheduler.block_size

    def take_out(self, sequence: TokenSequence) -> None:
        self.scheduler.finish(sequence)
        assert sequence.state is SequenceState.FINISHED
        self.live.remove(sequence)
        with pytest.raises(SchedulerError):
            self.scheduler.finish(sequence)

    @invariant()
    def blocks_are_where_they_belong(self) -> None:
        if not hasattr(self, "pool"):
            return
        running = [s for s in self.live if s.state is SequenceState.RUNNING]
        held = [block for s in running if s.table is not None for block in s.table.blocks]
        assert len(set(held)) == len(held) == self.pool.total - self.pool.free
        assert all((s.table is not None) == (s.state is SequenceState.RUNNING) for s in self.live)
        assert all(s.table.capacity >= s.max_length for s in running if s.table is not None)
        assert len(running) == self.scheduler.running <= self.scheduler.max_num_seqs
        assert self.live == running + [s for s in self.live if s.state is SequenceState.WAITING]  # first in, first out

    def teardown(self) -> None:
        if not hasattr(self, "pool"):
            return
        for _ in range(sum(sequence.max_length for sequence in self.live)):  # one token a step is the least
            if self.live:
                self.run_step(stop_early=False)
        assert self.live == []
        assert self.pool.free == self.pool.total
        assert self.scheduler.plan() == StepPlan(())


@pytest.mark.clause("SCHED-01", "SCHED-02", "SCHED-03", "SCHED-04", "SCHED-05")
@pytest.mark.clause("SCHED-06", "SCHED-07", "SCHED-08", "SCHED-09", "SCHED-10")
class TestScheduler(SchedulerMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


@pytest.mark.clause("SCHED-04")
def test_a_decode_does_not_wait_for_a_long_prompt() -> None:
    scheduler = FifoScheduler(BlockPool(100), 4, max_num_seqs=4, max_num_batched_tokens=8, max_model_len=100)
    short, long = sequence_of(3, 50), sequence_of(40, 50)
    scheduler.add(short)
    scheduler.commit(scheduler.plan(), [TOKEN])
    scheduler.add(long)
    for step in range(5):
        plan = scheduler.plan()
        assert [(c.sequence, c.count) for c in plan.chunks] == [(short, 1), (long, 7)]
        assert plan.sampled == [short]
        scheduler.commit(plan, [TOKEN])
        assert long.computed == 7 * (step + 1)


@pytest.mark.clause("SCHED-05")
def test_nobody_overtakes() -> None:
    scheduler = FifoScheduler(BlockPool(4), 4, max_num_seqs=4, max_num_batched_tokens=100, max_model_len=16)
    first, large, small = sequence_of(4, 4), sequence_of(8, 8), sequence_of(1, 1)
    for sequence in (first, large, small):
        scheduler.add(sequence)
    assert scheduler.plan().sampled == [first]
    assert small.state is SequenceState.WAITING  # it would fit; large, before it, does not
    scheduler.finish(first)
    assert scheduler.plan().sampled == [large]
    scheduler.finish(large)
    assert scheduler.plan().sampled == [small]


@pytest.mark.clause("SCHED-07")
@pytest.mark.parametrize(
    ("prompt", "max_tokens", "reason"),
    [
        (0, 1, "no tokens"),
        (16, 1, "no room in a context of 16"),
        (40, None, "no room"),
        (10, 12, "lower max_tokens"),
    ],
)
def test_refusals_say_why(prompt: int, max_tokens: int | None, reason: str) -> None:
    scheduler = FifoScheduler(BlockPool(4), 4, max_num_seqs=4, max_num_batched_tokens=100, max_model_len=30)
    with pytest.raises(RequestValidation, match=reason):
        scheduler.add(sequence_of(prompt, max_tokens))
    assert scheduler.waiting == 0


@pytest.mark.clause("SCHED-02")
def test_a_commit_needs_one_token_per_sample() -> None:
    scheduler = FifoScheduler(BlockPool(4), 4, max_num_seqs=4, max_num_batched_tokens=100, max_model_len=16)
    scheduler.add(sequence_of(3, 3))
    plan = scheduler.plan()
    with pytest.raises(SchedulerError):
        scheduler.commit(plan, [])
    assert plan.chunks[0].sequence.computed == 0

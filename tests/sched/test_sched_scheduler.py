"""SCHED-01 to SCHED-13, SCHED-30, SCHED-31: any trace of submissions, steps, faults and cancellations."""

from __future__ import annotations

from unittest.mock import patch

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ferrum.errors import RequestValidation, ResourceExhausted, SchedulerError
from ferrum.kv.eviction import POLICIES
from ferrum.sampling_params import SamplingParams
from ferrum.sched import order
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.types import Priority
from tests.sched.checks import check_books
from tests.sched.world import World

COMMON = [0, 1, 1, 0, 1, 0, 0, 1, 1, 0, 0, 1, 0, 1]
"""The beginning that many texts share."""

texts = st.builds(
    lambda shared, own: COMMON[:shared] + own,
    st.integers(0, len(COMMON)),
    st.lists(st.integers(0, 1), max_size=4),
)
places = st.integers(0, 9)
requests = st.tuples(
    texts,
    st.one_of(st.none(), st.integers(1, 8)),  # max_tokens
    st.sampled_from(Priority),
    st.sampled_from([1, 1, 1, 3]),  # choices
)


class SchedulerMachine(RuleBasedStateMachine):
    """Compares a scheduler with the checks of `tests.sched.checks`, which `World` makes for every plan and this machine
    after every rule. Rules: add (also what must be refused), cancel, change a priority, steps, a step that fails, a
    step in which allocations and moves fail, a step after which sequences end early. Six steps of age make up for a
    class of priority, so that ages matter in short runs."""

    def __init__(self) -> None:
        super().__init__()
        self.ageing = patch.object(order, "AGEING", 6)
        self.ageing.start()
        self.world = World()

    @initialize(
        blocks=st.integers(1, 12),
        block_size=st.integers(1, 4),
        host=st.sampled_from([0, 2, 30]),
        seqs=st.integers(1, 4),
        budget=st.integers(1, 9),
        context=st.sampled_from([40, 20, 9, 2]),
        max_waiting=st.sampled_from([9, 4, 1]),
        policy=st.sampled_from(sorted(order.ORDERS)),
        eviction=st.sampled_from(sorted(POLICIES)),
        swap_cost=st.sampled_from([0.0, 0.5, 1e9]),
        caching=st.booleans(),
    )
    def start(self, **settings: object) -> None:
        self.world = World(**settings)  # type: ignore[arg-type]
        assert isinstance(settings["context"], int)
        self.context = min(settings["context"], self.world.device.total * self.world.block_size)

    # ---- sequences
    @rule(several=st.lists(requests, min_size=1, max_size=4))
    def add(self, several: list[tuple[list[int], int | None, Priority, int]]) -> None:
        for text, max_tokens, priority, choices in several:
            end = self.context if max_tokens is None else min(len(text) + max_tokens, self.world.limits.max_model_len)
            source: TokenSequence | None = None
            for _ in range(choices):
                if not text or len(text) >= self.context or end > self.context:
                    self.is_refused(RequestValidation, text, max_tokens)
                elif len(self.world.waiting) >= self.world.limits.max_waiting:
                    self.is_refused(ResourceExhausted, text, max_tokens)
                else:
                    sequence = self.world.add(text, max_tokens, priority, source)
                    source = source or sequence
                    assert sequence.max_length == end
                    assert sequence.state is SequenceState.WAITING

    def is_refused(self, error: type[Exception], text: list[int], max_tokens: int | None) -> None:
        scheduler = self.world.scheduler
        before = (scheduler.waiting, scheduler.running, scheduler.manager.device.free)
        sequence = TokenSequence(text, SamplingParams(max_tokens=max_tokens), 0)
        with pytest.raises(error):
            scheduler.add(sequence)
        assert (scheduler.waiting, scheduler.running, scheduler.manager.device.free) == before
        assert sequence.state is SequenceState.NEW
        with pytest.raises(SchedulerError):
            scheduler.finish(sequence)

    @precondition(lambda self: self.world.live)
    @rule(place=places)
    def cancel(self, place: int) -> None:
        sequence = self.at(place)
        self.world.finish(sequence)
        for again in (self.world.scheduler.finish, self.world.scheduler.add):
            with pytest.raises(SchedulerError):
                again(sequence)

    @precondition(lambda self: self.world.live)
    @rule(place=places, priority=st.sampled_from(Priority))
    def update_priority(self, place: int, priority: Priority) -> None:
        state = self.at(place).state
        sequence = self.at(place)
        self.world.update(sequence, priority)
        assert sequence.state is state

    def at(self, place: int) -> TokenSequence:
        live = list(self.world.live)
        return live[place % len(live)]

    # ---- steps
    @rule(count=st.integers(1, 6), tokens=st.integers(0, 3))
    def steps(self, count: int, tokens: int) -> None:
        for _ in range(count):
            self.world.step(lambda sequence: COMMON[(sequence.length + tokens) % len(COMMON)])

    @rule()
    def step_that_fails(self) -> None:
        self.world.step(fails=True)

    @rule(pattern=st.integers(1, 255))
    def step_in_memory_that_fails(self, pattern: int) -> None:
        self.world.faults.pattern = pattern
        self.world.step()
        self.world.faults.pattern = 0

    @rule()
    def step_and_stop_early(self) -> None:
        for sequence in self.world.step().sampled:
            if sequence in self.world.live:
                self.world.finish(sequence)

    @invariant()
    def books_agree(self) -> None:
        check_books(self.world)

    def teardown(self) -> None:
        try:
            lengths = sum(sequence.max_length for sequence in self.world.live)
            self.world.drain(10 + 3 * lengths)
        finally:
            self.ageing.stop()


@pytest.mark.clause("SCHED-01", "SCHED-02", "SCHED-03", "SCHED-04", "SCHED-05", "SCHED-06", "SCHED-07", "SCHED-08")
@pytest.mark.clause("SCHED-09", "SCHED-10", "SCHED-11", "SCHED-12", "SCHED-13", "SCHED-21", "SCHED-30", "SCHED-31")
class TestScheduler(SchedulerMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


# ---- plans
@pytest.mark.clause("SCHED-04")
def test_a_decode_does_not_wait_for_a_long_prompt() -> None:
    world = World(budget=8)
    short = world.add([0] * 3, 50)
    world.step()
    long = world.add([1] * 40, 50)
    for step in range(5):
        plan = world.step()
        assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [(short, 1), (long, 7)]
        assert plan.sampled == [short]
        assert long.computed == 7 * (step + 1)


@pytest.mark.clause("SCHED-02", "SCHED-03", "SCHED-04")
def test_a_step_in_which_everything_happens() -> None:
    world = World(budget=12, seqs=4)
    decode, prompt = world.add([0] * 2), world.add([1] * 15)
    world.step()
    assert [decode.pending, prompt.pending] == [1, 5]
    newcomer, cut, late = world.add([0, 1] * 2), world.add([1, 0] * 9), world.add([1])
    plan = world.step()
    assert [(chunk.sequence, chunk.start, chunk.count, chunk.rows) for chunk in plan.chunks] == [
        (decode, 2, 1, 1),
        (prompt, 10, 5, 1),
        (newcomer, 0, 4, 1),
        (cut, 0, 2, 0),
    ]
    assert plan.sampled == [decode, prompt, newcomer]
    assert plan.tokens == 12
    assert late.state is SequenceState.WAITING
    plan = world.step()
    assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [
        (decode, 1),
        (prompt, 1),
        (newcomer, 1),
        (cut, 9),
    ]
    world.drain(20)


@pytest.mark.clause("SCHED-05")
def test_no_sequence_overtakes() -> None:
    world = World(blocks=4)
    first, large, small = world.add([0] * 4), world.add([1] * 13, 3), world.add([0], 1)
    assert world.step().sampled == [first]
    assert small.state is SequenceState.WAITING  # it would fit, but `large`, which is before it, does not
    world.finish(first)
    assert world.step().sampled == [large]
    world.finish(large)
    assert world.step().sampled == [small]


@pytest.mark.clause("SCHED-02", "SCHED-10")
def test_a_step_that_failed_is_planned_again() -> None:
    world = World(budget=8)
    decode = world.add([0] * 3)
    world.step()
    prompt = world.add([1] * 20)
    failed, plan = world.step(fails=True), world.step()
    for chunks in (failed.chunks, plan.chunks):
        assert [(chunk.sequence, chunk.start, chunk.count) for chunk in chunks] == [(decode, 3, 1), (prompt, 0, 7)]
    world.drain(20)


@pytest.mark.clause("SCHED-06")
def test_a_block_that_another_table_came_to_hold_is_copied_before_it_is_written() -> None:
    world = World()
    sequence = world.add([0] * 6)
    world.step()
    other = world.manager.new_table()
    world.manager.fork(sequence.table, other, sequence.computed)
    assert sequence.table.blocks == other.blocks
    (chunk,) = world.scheduler.plan().chunks
    assert (chunk.start, chunk.count) == (6, 1)
    assert sequence.table.blocks[0] == other.blocks[0]
    assert sequence.table.blocks[1] != other.blocks[1]
    contents = world.store.device[sequence.table.blocks].reshape(-1)[:6]
    assert contents.tolist() == world.live[sequence].trace[:6]


@pytest.mark.clause("SCHED-02")
def test_a_commit_needs_one_token_per_sample() -> None:
    world = World()
    sequence = world.add([0] * 3)
    plan = world.plan()
    for tokens in ([], [0, 1]):
        with pytest.raises(SchedulerError, match=rf"samples 1 tokens is committed with {len(tokens)}"):
            world.scheduler.commit(plan, tokens)
        assert (sequence.computed, sequence.length) == (0, 3)
    check_books(world)


# ---- admission
@pytest.mark.clause("SCHED-07")
@pytest.mark.parametrize(
    ("prompt", "max_tokens", "reason"),
    [
        (0, 1, "the prompt has no tokens"),
        (16, 1, "a prompt of 16 tokens leaves no room in the 16 that kv_memory holds"),
        (40, None, "a prompt of 40 tokens leaves no room in a context of 30"),
        (10, 7, "17 tokens exceed the 16 that kv_memory holds: raise it, or lower max_tokens"),
        (10, 50, "30 tokens exceed the 16 that kv_memory holds: raise it, or lower max_tokens"),
    ],
)
def test_refusals_say_why(prompt: int, max_tokens: int | None, reason: str) -> None:
    world = World(blocks=4, context=30)
    with pytest.raises(RequestValidation, match=reason) as caught:
        world.add([0] * prompt, max_tokens)
    assert not caught.value.is_retryable
    assert (world.scheduler.waiting, world.device.free) == (0, 4)
    assert not world.scheduler.plan().chunks


@pytest.mark.clause("SCHED-08")
@pytest.mark.parametrize(
    ("blocks", "context", "prompt", "max_tokens", "end"),
    [
        (10, 30, 5, 4, 9),
        (10, 30, 5, 25, 30),
        (10, 30, 5, 26, 30),  # the context is full
        (10, 30, 5, None, 30),
        (10, 30, 29, 9, 30),
        (4, 30, 5, None, 16),  # what the pool holds
        (4, 30, 15, None, 16),
        (4, 30, 5, 11, 16),
    ],
)
def test_where_a_sequence_ends(blocks: int, context: int, prompt: int, max_tokens: int | None, end: int) -> None:
    world = World(blocks=blocks, context=context)
    sequence = world.add([0] * prompt, max_tokens)
    assert world.scheduler.check(prompt, max_tokens) == sequence.max_length == end
    world.drain(40)
    assert sequence.length == end
    assert world.scheduler.preempter.total == 0  # a sequence alone in the memory is never preempted


@pytest.mark.clause("SCHED-11")
def test_a_full_queue_can_be_tried_again() -> None:
    world = World(seqs=1, max_waiting=2)
    running = world.add([0])
    world.step()
    world.add([0])
    assert world.scheduler.room_for(1)
    assert not world.scheduler.room_for(2)
    world.add([0])
    for _ in range(2):
        with pytest.raises(ResourceExhausted, match="2 sequences are waiting already: try again later") as caught:
            world.add([1])
        assert caught.value.is_retryable
        assert (world.scheduler.waiting, world.scheduler.running) == (2, 1)
        check_books(world)
    world.finish(running)
    world.step()
    world.add([1])
    world.drain(20)


@pytest.mark.clause("SCHED-01")
def test_a_refused_sequence_is_still_new() -> None:
    world = World(seqs=1, max_waiting=1)
    world.add([0])
    refused = TokenSequence([1], SamplingParams(max_tokens=2), 0)
    with pytest.raises(ResourceExhausted):
        world.scheduler.add(refused)
    assert refused.state is SequenceState.NEW
    world.step()
    world.scheduler.add(refused)  # it may be added later
    with pytest.raises(SchedulerError, match="a sequence is added once: this one is waiting"):
        world.scheduler.add(refused)
    world.scheduler.finish(refused)
    world.drain(20)


# ---- the end of a sequence
@pytest.mark.clause("SCHED-09")
@pytest.mark.parametrize("caching", [False, True])
def test_a_sequence_is_taken_out_in_any_state(caching: bool) -> None:
    for state in ("waiting", "planned", "filling", "decoding", "recomputed", "swapped"):
        world = World(blocks=8, host=8, budget=6, caching=caching, swap_cost=0.0 if state == "swapped" else 1e9)
        sequence = world.add([0] * 9, 5)
        if state == "planned":
            world.step(fails=True)
        for _ in range({"waiting": 0, "planned": 0, "filling": 1}.get(state, 3)):
            world.step()
        if state in ("recomputed", "swapped"):
            world.scheduler._preempt(sequence)
            assert bool(sequence.table.host_blocks) == (state == "swapped")
        world.finish(sequence)
        assert sequence.state is SequenceState.FINISHED
        with pytest.raises(SchedulerError, match="not here: it is finished"):
            world.scheduler.finish(sequence)
        with pytest.raises(SchedulerError, match="not here: it is finished"):
            world.scheduler.update_priority(sequence, Priority.HIGH)
        world.drain(0)
        assert (world.scheduler.waiting, world.scheduler.running) == (0, 0)


@pytest.mark.clause("SCHED-09")
def test_a_reset_leaves_nothing_behind() -> None:
    """After a reset no sequence waits for one from before it, and all memory is free."""
    world = World(blocks=8, host=8, seqs=3, budget=6, swap_cost=0.0)
    text = list(range(20))
    preempted, fills, waits = world.add([0, 1], 9), world.add(text, 5), world.add(text, 5)
    world.step()
    world.scheduler._preempt(preempted)
    assert [bool(preempted.table.host_blocks), fills.pending > 1, waits.state] == [True, True, SequenceState.WAITING]
    world.scheduler.reset()
    world.live.clear()
    assert (world.scheduler.waiting, world.scheduler.running) == (0, 0)
    world.drain(0)
    again = world.add(text, 5)
    plan = world.step()
    assert [(chunk.sequence, chunk.start, chunk.count) for chunk in plan.chunks] == [(again, 0, 6)]
    world.drain(20)

"""SCHED-12 to SCHED-15: which sequence is preempted, by recomputation or by swapping, and how it runs again."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.sched.preemption import Preemption
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.types import Priority
from tests.sched.world import World

RUNNING, WAITING, PREEMPTED = SequenceState.RUNNING, SequenceState.WAITING, SequenceState.PREEMPTED
RECOMPUTE, SWAP = Preemption.RECOMPUTE, Preemption.SWAP


def preempt(world: World, sequence: TokenSequence) -> Preemption:
    """Preempts a running sequence. Returns the way that the scheduler chose."""
    world.scheduler._preempt(sequence)
    assert sequence.state is PREEMPTED
    assert world.scheduler.preempter.total == 1
    (taken,) = world.scheduler.preempter.counts
    assert (taken is SWAP) == bool(sequence.table.host_blocks)
    return taken


# ---- which sequence
@pytest.mark.clause("SCHED-12")
def test_the_last_is_preempted_and_comes_back_in_its_place() -> None:
    world = World(blocks=4, block_size=4, caching=False)
    first, second, third = world.add([0] * 3, 8), world.add([1] * 3, 8), world.add([0, 1], 8)
    world.step()
    fourth = world.add([1] * 4, 4)  # two blocks, and only one is left
    world.run_until(lambda: third.state is PREEMPTED)
    assert [first.state, second.state, fourth.state] == [RUNNING, RUNNING, WAITING]
    world.run_until(lambda: second.state is PREEMPTED)
    assert [first.state, third.state, fourth.state] == [RUNNING, PREEMPTED, WAITING]
    assert world.waiting == [second, third, fourth]
    ends: list[TokenSequence] = []
    for _ in range(60):
        before = list(world.live)
        world.step()
        ends += [sequence for sequence in before if sequence not in world.live]
    assert ends[0] is first
    assert ends.index(second) < ends.index(fourth)


@pytest.mark.clause("SCHED-03", "SCHED-12")
def test_a_prompt_that_comes_first_takes_blocks_and_budget_of_a_decode_that_was_planned_before_it() -> None:
    world = World(blocks=10, block_size=4, budget=8, caching=False, policy="priority")
    late = world.add([1] * 7, 8, Priority.LOW)
    world.step()
    early, middle = world.add([0] * 21, 2, Priority.CRITICAL), world.add([0, 1] * 3, 2, Priority.HIGH)
    for _ in range(2):
        plan = world.step()
        assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [(late, 1), (early, 7)]
    assert world.device.free == 1
    plan = world.step()  # early wants two
    assert late.state is PREEMPTED
    assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [(early, 7), (middle, 1)]
    world.drain(60)


@pytest.mark.clause("SCHED-03", "SCHED-12")
def test_after_a_preempted_sequence_the_others_run() -> None:
    world = World(blocks=10, block_size=4, budget=8, caching=False, policy="priority")
    early, late = world.add([0] * 4, 9, Priority.CRITICAL), world.add([1] * 3, 9, Priority.LOW)
    world.step()
    middle = world.add([0, 1] * 14, 2, Priority.HIGH)
    for _ in range(4):
        plan = world.step()
        assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [(early, 1), (late, 1), (middle, 6)]
    assert world.device.free == 0
    plan = world.step()  # early needs a block, and the turn of late was before that of middle
    assert late.state is PREEMPTED
    assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [(early, 1), (middle, 4)]
    world.drain(60)


@pytest.mark.clause("SCHED-12")
def test_no_sequence_is_admitted_into_the_room_that_was_just_made() -> None:
    world = World(blocks=4, block_size=4, caching=False)
    first, second = world.add([0] * 4, 12), world.add([1] * 8, 6)
    world.step()
    assert [first.state, second.state] == [RUNNING, RUNNING]
    newcomer = world.add([1], 2)
    world.run_until(lambda: second.state is PREEMPTED)
    assert newcomer.state is WAITING  # one block would be enough, but `second` is before it in the order
    assert first.state is RUNNING
    world.drain(60)


@pytest.mark.clause("SCHED-12")
def test_no_sequence_is_preempted_while_there_is_room() -> None:
    world = World(blocks=16, block_size=4, policy="priority")
    for place, priority in enumerate([Priority.LOW, Priority.NORMAL, Priority.HIGH, Priority.CRITICAL]):
        world.add([place] * 8, 8, priority)
        world.step()
    world.drain(20)
    assert world.scheduler.preempter.total == 0


# ---- recomputation or swapping
def ran(swap_cost: float, *, host: int = 10, prompt: int = 9, caching: bool = True) -> tuple[World, TokenSequence]:
    """A world and its only sequence, of which prompt + 1 tokens are computed, in blocks of four."""
    world = World(block_size=4, host=host, swap_cost=swap_cost, caching=caching)
    sequence = world.add([0] * prompt, 20)
    world.step()
    world.step()
    assert sequence.computed == prompt + 1
    return world, sequence


@pytest.mark.clause("SCHED-14")
@pytest.mark.parametrize(
    ("computed", "swap_cost", "expected"),
    [
        (10, 0.0, SWAP),
        (10, 3.3, SWAP),  # 3 blocks * 3.3 < 10 tokens
        (10, 3.4, RECOMPUTE),
        (12, 3.9, SWAP),
        (12, 4.0, RECOMPUTE),  # no less
        (13, 3.2, SWAP),  # 4 blocks
        (13, 3.3, RECOMPUTE),
        (10, 1e9, RECOMPUTE),
    ],
)
def test_the_cheaper_way_is_taken(computed: int, swap_cost: float, expected: Preemption) -> None:
    world, sequence = ran(swap_cost, prompt=computed - 1)
    assert preempt(world, sequence) is expected
    assert sequence.computed == (computed if expected is SWAP else 0)
    world.drain(60)


@pytest.mark.clause("SCHED-14")
def test_without_a_host_everything_is_computed_again() -> None:
    world, sequence = ran(0.0, host=0)
    assert preempt(world, sequence) is RECOMPUTE
    world.drain(60)


@pytest.mark.clause("SCHED-14", "SCHED-15")
@pytest.mark.parametrize(("host", "expected"), [(2, RECOMPUTE), (3, SWAP)])
def test_there_must_be_room_on_the_host(host: int, expected: Preemption) -> None:
    world, sequence = ran(0.0, host=host)
    assert preempt(world, sequence) is expected
    world.drain(60)


@pytest.mark.clause("SCHED-14")
@pytest.mark.parametrize(("swap_cost", "expected"), [(0.9, SWAP), (1.1, RECOMPUTE)])
def test_what_others_keep_in_memory_need_not_be_computed_again(swap_cost: float, expected: Preemption) -> None:
    world, first = ran(swap_cost, prompt=11)
    second = world.add([0] * 9, 20)
    world.step()
    world.step()
    assert second.computed == 10
    assert second.table.blocks[:2] == first.table.blocks[:2]
    # of ten tokens in three blocks, two tokens in one block are only its own; the other two blocks go to the host too
    assert preempt(world, second) is expected
    world.drain(60)


@pytest.mark.clause("SCHED-14")
@given(
    prompt=st.integers(1, 20),
    common=st.integers(1, 20),
    on_host=st.integers(0, 5),
    swap_cost=st.integers(0, 64).map(lambda eighths: eighths / 8),
)
def test_the_cheaper_way_is_the_one_that_costs_less_when_it_is_taken(
    prompt: int, common: int, on_host: int, swap_cost: float
) -> None:
    """Each way of preemption is measured in a new world. A move costs half of `swap_cost`, a computed token 1."""

    def begun() -> tuple[World, TokenSequence]:
        """A sequence whose first blocks another one shares, and some of whose first blocks are on the host as well."""
        world, sequence = ran(0.0, host=20, prompt=prompt)
        assert world.host is not None
        world.scheduler._preempt(sequence)
        world.step()
        world.host.evict(max(0, world.host.cached - on_host))
        world.add([0] * min(common, prompt), 20)
        world.step()
        world.scheduler.preempter.counts.clear()
        return world, sequence

    def cost(forced: float) -> float:
        world, sequence = begun()
        before = world.manager.counters()
        world.scheduler.preempter._swap_cost = forced
        world.scheduler._preempt(sequence)
        world.device.evict(world.device.cached)  # what only this sequence held is lost
        chunk = next(chunk for chunk in world.step().chunks if chunk.sequence is sequence)
        after = world.manager.counters()
        names = ("swapped_out", "swapped_in", "promoted")
        moved = sum(getattr(after, name) - getattr(before, name) for name in names)
        return moved * swap_cost / 2 + chunk.count

    world, sequence = begun()
    world.scheduler.preempter._swap_cost = swap_cost
    assert preempt(world, sequence) is (SWAP if cost(0.0) < cost(1e9) else RECOMPUTE)


@pytest.mark.clause("SCHED-14")
@pytest.mark.parametrize("caching", [False, True])
def test_blocks_of_a_choice_count_as_kept_only_if_they_can_be_found(caching: bool) -> None:
    world = World(block_size=4, host=10, swap_cost=3.0, caching=caching)
    first, second = world.choices([0] * 9, 2, max_tokens=20)
    for _ in range(3):
        world.step()
    assert second.computed == 10
    assert second.table.blocks[:2] == first.table.blocks[:2]
    assert preempt(world, second) is (RECOMPUTE if caching else SWAP)
    world.drain(60)


@pytest.mark.clause("SCHED-14")
def test_a_sequence_without_computed_tokens_is_not_swapped() -> None:
    world = World(block_size=4, host=10, swap_cost=0.0)
    sequence = world.add([0] * 9, 4)
    world.plan()
    assert preempt(world, sequence) is RECOMPUTE
    world.drain(60)


@pytest.mark.clause("SCHED-14")
@pytest.mark.parametrize(("swap_cost", "expected"), [(0.0, SWAP), (1e9, RECOMPUTE)])
def test_every_preemption_is_counted(swap_cost: float, expected: Preemption) -> None:
    world, sequence = ran(swap_cost)
    assert preempt(world, sequence) is expected
    world.step()
    world.scheduler._preempt(sequence)
    assert world.scheduler.preempter.counts == {expected: 2}
    assert world.scheduler.preempter.total == 2


# ---- after a preemption
@pytest.mark.clause("SCHED-13")
@given(
    caching=st.booleans(),
    swap_cost=st.sampled_from([0.0, 1e9]),
    host=st.sampled_from([0, 3, 20]),
    moments=st.lists(st.booleans(), max_size=12),
    prompt=st.integers(1, 9),
)
def test_the_tokens_are_those_of_an_undisturbed_run(
    caching: bool, swap_cost: float, host: int, moments: list[bool], prompt: int
) -> None:
    def tokens(interrupted: list[bool]) -> list[int]:
        world = World(block_size=4, host=host, swap_cost=swap_cost, caching=caching, budget=5)
        sequence = world.add([0, 1, 1] * prompt, 9)
        for moment in interrupted:
            if moment and sequence.state is RUNNING:
                world.scheduler._preempt(sequence)
                assert sequence.table.blocks == []
            if world.live:
                world.step()
        world.drain(60)
        return sequence.token_ids

    assert tokens(moments) == tokens([])


@pytest.mark.clause("SCHED-13")
def test_what_was_swapped_is_not_computed_again() -> None:
    world, sequence = ran(0.0)
    assert preempt(world, sequence) is SWAP
    plan = world.step()
    assert [(chunk.start, chunk.count, chunk.rows) for chunk in plan.chunks] == [(10, 1, 1)]
    assert (world.manager.counters().swapped_out, world.manager.counters().swapped_in) == (3, 1)  # two are still there
    world.drain(60)


@pytest.mark.clause("SCHED-15")
def test_a_move_to_the_host_that_fails_means_computing_again() -> None:
    world, sequence = ran(0.0, caching=False)
    world.faults.pattern = 0b10  # the host gives blocks, the move fails
    assert preempt(world, sequence) is RECOMPUTE
    assert sequence.computed == 0
    assert world.host is not None
    assert world.host.held == 0
    plan = world.step()
    assert [(chunk.start, chunk.count, chunk.rows) for chunk in plan.chunks] == [(0, 11, 1)]
    world.drain(60)


@pytest.mark.clause("SCHED-15")
def test_a_move_from_the_host_that_fails_means_computing_again() -> None:
    world, sequence = ran(0.0, caching=False)
    assert preempt(world, sequence) is SWAP
    world.faults.pattern = 0b10  # the device gives blocks, the move fails
    plan = world.step()
    assert world.faults.struck
    assert [(chunk.start, chunk.count, chunk.rows) for chunk in plan.chunks] == [(0, 11, 1)]
    assert world.host is not None
    assert world.host.held == 0
    world.drain(60)


@pytest.mark.clause("SCHED-15")
def test_memory_that_is_missing_for_a_moment_loses_nothing() -> None:
    world, sequence = ran(0.0, caching=False)
    assert preempt(world, sequence) is SWAP
    world.faults.pattern = 0b1  # the device gives no blocks
    assert world.step().chunks == ()
    assert sequence.state is PREEMPTED
    plan = world.step()
    assert [(chunk.start, chunk.count, chunk.rows) for chunk in plan.chunks] == [(10, 1, 1)]
    world.drain(60)


@pytest.mark.clause("SCHED-15")
def test_a_copy_that_fails_is_made_up_for() -> None:
    world = World(block_size=4, caching=False)
    first, second = world.choices([0] * 6, 2)
    world.step()
    world.faults.pattern = 0b10  # a block is given, the copy fails
    world.step()
    assert world.faults.struck
    assert [first.state, second.state] == [RUNNING, RUNNING]
    assert not set(first.table.blocks) & set(second.table.blocks)  # it shares nothing, and computed its prompt itself
    assert second.cached == 0
    world.drain(60)


@pytest.mark.clause("SCHED-15")
def test_after_a_copy_that_fails_memory_may_be_missing() -> None:
    world = World(block_size=4, caching=False)
    first, second = world.choices([0] * 6, 2)
    world.step()
    world.faults.pattern = 0b110  # a block is given, the copy fails, then no block is given
    world.step()
    assert [first.state, second.state] == [RUNNING, WAITING]
    assert second.table.blocks == []
    world.drain(60)


@pytest.mark.clause("SCHED-15")
def test_a_sequence_whose_blocks_cannot_be_copied_is_the_victim_itself(monkeypatch: pytest.MonkeyPatch) -> None:
    """Preemption of other sequences would not help. This cannot happen if new sequences copy shared blocks at once, so
    the test switches that off."""
    world = World(block_size=2)
    first, second = world.add([0] * 2, 6), world.add([1], 6)
    world.step()
    reserve = world.manager.reserve

    def fails_once(*_: object) -> None:
        monkeypatch.setattr(world.manager, "reserve", reserve)
        raise DeviceError("a test says so")

    monkeypatch.setattr(world.manager, "reserve", fails_once)
    monkeypatch.setattr(world.manager, "grow", lambda tables: None)  # so that each sequence has to reserve
    plan = world.scheduler.plan()
    assert [first.state, second.state] == [PREEMPTED, RUNNING]
    assert [chunk.sequence for chunk in plan.chunks] == [second]


@pytest.mark.clause("SCHED-11")
def test_those_that_were_preempted_are_not_refused() -> None:
    world = World(blocks=4, block_size=4, max_waiting=1, caching=False)
    first = world.add([0] * 7, 8)
    world.step()
    second = world.add([1] * 7, 8)
    world.step()
    third = world.add([0] * 7, 8)
    world.run_until(lambda: second.state is PREEMPTED)
    assert world.waiting == [second, third]  # two, where one new one may wait
    assert world.running == [first]
    with pytest.raises(ResourceExhausted):
        world.add([1], 2)
    world.drain(60)

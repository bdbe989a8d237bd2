"""SCHED-05, SCHED-20 to SCHED-22: ranks, against an order that is computed from ages."""

from __future__ import annotations

from fractions import Fraction
from unittest.mock import patch

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import SamplingParams
from ferrum.sched import order
from ferrum.sched.order import AGEING, fifo_rank, find_order, priority_rank
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.types import Priority
from tests.sched.world import World

RUNNING, WAITING, PREEMPTED = SequenceState.RUNNING, SequenceState.WAITING, SequenceState.PREEMPTED
LOW, NORMAL, HIGH, CRITICAL = Priority

arrivals = st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 3 * AGEING)), min_size=1, max_size=9)


def arrived(classes_and_gaps: list[tuple[Priority, int]]) -> list[TokenSequence]:
    """Sequences in the order of their arrival: for each its class, and the steps since the one before it arrived."""
    sequences, step = [], 0
    for arrival, (priority, gap) in enumerate(classes_and_gaps):
        step += gap
        sequence = TokenSequence([1], SamplingParams(), 0, priority)
        sequence.arrival, sequence.arrival_step = arrival, step
        sequences.append(sequence)
    return sequences


@pytest.mark.clause("SCHED-20")
@given(arrivals)
def test_first_in_first_out(classes_and_gaps: list[tuple[Priority, int]]) -> None:
    sequences = arrived(classes_and_gaps)
    sequences.reverse()
    assert sorted(sequences, key=fifo_rank) == sequences[::-1]


@pytest.mark.clause("SCHED-21")
@given(arrivals, st.integers(0, 5000))
@example([(LOW, 0), (NORMAL, AGEING)], 0)  # its age makes up exactly for the class: the older one is first
@example([(LOW, 0), (NORMAL, AGEING - 1)], 0)
@example([(LOW, 0), (CRITICAL, 3 * AGEING)], 0)
def test_the_class_and_then_the_age_and_a_class_is_an_age(
    classes_and_gaps: list[tuple[Priority, int]], later: int
) -> None:
    sequences = arrived(classes_and_gaps)
    now = sequences[-1].arrival_step + later

    def worth(sequence: TokenSequence) -> Fraction:
        return sequence.priority + Fraction(now - sequence.arrival_step, AGEING)

    expected = sorted(sequences, key=lambda sequence: (-worth(sequence), sequence.arrival))
    assert sorted(sequences, key=priority_rank) == expected
    assert len(set(map(priority_rank, sequences))) == len(sequences)


@pytest.mark.clause("SCHED-21")
def test_in_one_step_only_the_class_and_the_arrival_count() -> None:
    sequences = arrived([(LOW, 0), (HIGH, 0), (NORMAL, 0), (HIGH, 0), (CRITICAL, 0), (LOW, 0)])
    ordered = sorted(sequences, key=priority_rank)
    assert [sequences.index(sequence) for sequence in ordered] == [4, 1, 3, 2, 0, 5]


@pytest.mark.clause("SCHED-20", "SCHED-21")
def test_policies_are_found_by_name() -> None:
    assert (find_order("fifo"), find_order("priority")) == (fifo_rank, priority_rank)
    with pytest.raises(InvalidParameter, match="scheduler must be one of fifo, priority, not 'lifo'"):
        find_order("lifo")


@pytest.mark.clause("SCHED-05", "SCHED-20", "SCHED-21")
@given(
    policy=st.sampled_from(sorted(order.ORDERS)),
    requests=st.lists(st.tuples(st.sampled_from(Priority), st.integers(0, 20)), min_size=2, max_size=9),
)
def test_sequences_run_in_the_order_of_class_and_age(policy: str, requests: list[tuple[Priority, int]]) -> None:
    with patch.object(order, "AGEING", 7):
        world = World(seqs=1, policy=policy, blocks=300)
        blocker = world.add([0], None, CRITICAL)  # the first of the highest class: no later one comes before it
        world.step()
        for priority, gap in requests:
            for _ in range(gap):
                world.step()
            world.add([0], 1, priority)
        expected = sorted(world.waiting, key=world.key)
        world.finish(blocker)
        assert [world.step().sampled for _ in requests] == [[sequence] for sequence in expected]


@pytest.mark.clause("SCHED-21")
@pytest.mark.parametrize("priority", [LOW, NORMAL, HIGH])
def test_no_sequence_starves(priority: Priority) -> None:
    """There is one place, and a critical request arrives in every step. Once the old sequence is so old that its age
    makes up for its class, new ones come after it, and at most one of those before it is left."""
    world = World(seqs=1, policy="priority", caching=False)
    world.add([1], 1, CRITICAL)
    old = world.add([0], 3, priority)
    for step in range((CRITICAL - priority) * AGEING + 2):
        assert old.state is WAITING or step > (CRITICAL - priority) * AGEING
        world.add([1], 1, CRITICAL)
        world.step()
    for _ in range(2):  # it runs now, and is not preempted
        assert old.state is RUNNING
        world.add([1], 1, CRITICAL)
        world.step()
    assert old.state is SequenceState.FINISHED


# ---- changes
@pytest.mark.clause("SCHED-22")
@given(arrivals, st.data())
def test_a_changed_class_is_as_good_as_one_from_the_beginning(
    classes_and_gaps: list[tuple[Priority, int]], data: st.DataObject
) -> None:
    world = World(policy="priority", seqs=1)
    sequences = []
    for priority, gap in classes_and_gaps:
        for _ in range(gap % 5):
            world.scheduler.plan()
            world.steps += 1
        sequences.append(world.add([0], 1, data.draw(st.sampled_from(Priority))))
        world.update(sequences[-1], data.draw(st.sampled_from(Priority)))
        world.update(sequences[-1], priority)
    assert [sequence.rank for sequence in sequences] == [priority_rank(sequence) for sequence in sequences]
    assert sorted(sequences, key=lambda sequence: sequence.rank) == sorted(sequences, key=world.key)


@pytest.mark.clause("SCHED-22")
def test_a_changed_class_keeps_the_age() -> None:
    world = World(seqs=1, policy="priority")
    blocker = world.add([1] * 3, 20, CRITICAL)
    world.step()
    oldest, middle, newest = world.add([0], 1, LOW), world.add([0], 1, HIGH), world.add([0], 1, HIGH)
    world.step()
    world.update(oldest, HIGH)
    world.update(middle, LOW)
    world.update(middle, HIGH)
    world.finish(blocker)
    assert [world.step().sampled for _ in range(3)] == [[oldest], [middle], [newest]]


def comes_back(world: World, victim: TokenSequence, urgent: TokenSequence, already: list[int]) -> None:
    """Checks that the victim runs again after the urgent sequence, and keeps the tokens that it had already."""
    assert (urgent.state, victim.state) == (RUNNING, PREEMPTED)
    assert victim.token_ids == already
    world.run_until(lambda: urgent not in world.live)
    assert victim.state is PREEMPTED
    world.step()
    assert victim.state is RUNNING
    assert victim.token_ids[: len(already)] == already
    assert victim.length == len(already) + 1
    world.drain(60)


@pytest.mark.clause("SCHED-13", "SCHED-22")
@pytest.mark.parametrize(("host", "swap_cost"), [(0, 1.0), (20, 0.0)])
@pytest.mark.parametrize("blocks", [9, 50])
def test_a_critical_sequence_takes_the_place_of_a_running_one(blocks: int, host: int, swap_cost: float) -> None:
    """In one case places are missing, in the other blocks."""
    seqs = 1 if blocks == 50 else 4
    world = World(seqs=seqs, blocks=blocks, host=host, swap_cost=swap_cost, policy="priority", caching=False)
    victim = world.add([0] * 10, 20, LOW)
    for _ in range(3):
        world.step()
    already = list(victim.token_ids)
    urgent = world.add([1] * 26, 2, CRITICAL)
    plan = world.step()
    assert [(chunk.sequence, chunk.count) for chunk in plan.chunks] == [(urgent, 26)]  # at once, in the same step
    assert bool(victim.table.host_blocks) == bool(host)
    comes_back(world, victim, urgent, already)


@pytest.mark.clause("SCHED-22")
@pytest.mark.parametrize("priority", [LOW, CRITICAL])
def test_a_change_takes_effect_in_the_next_plan(priority: Priority) -> None:
    """In one case the waiting sequence gets a higher priority, in the other the running one a lower priority."""
    world = World(seqs=1, policy="priority")
    runs = world.add([0] * 5, 9)
    world.step()
    waits = world.add([1] * 5, 2)
    assert world.step().sampled == [runs]
    already = list(runs.token_ids)
    world.update(waits if priority is CRITICAL else runs, priority)
    assert runs.state is RUNNING  # until then no block changes its holder
    assert world.step().sampled == [waits]
    comes_back(world, runs, waits, already)


@pytest.mark.clause("SCHED-22")
def test_as_few_as_possible_are_preempted_and_the_last_first() -> None:
    world = World(blocks=12, policy="priority", caching=False)
    first, second, third = (world.add([place] * 12, 4, LOW) for place in range(3))
    world.step()
    assert world.device.available == 3
    urgent = world.add([1] * 18, 2, HIGH)  # five blocks, one decode more for each of the others
    world.step()
    assert [s.state for s in (urgent, first, second, third)] == [RUNNING, RUNNING, PREEMPTED, PREEMPTED]
    world.drain(60)


@pytest.mark.clause("SCHED-22")
def test_no_sequence_is_preempted_in_vain() -> None:
    """The urgent sequence needs more blocks than the later ones could release: they share most of their blocks with an
    earlier one."""
    world = World(blocks=12, policy="priority")
    prefix = [0, 1, 1, 0] * 6
    early, late = world.add([*prefix, 0], 9, CRITICAL), world.add([*prefix, 1], 9, LOW)
    world.step()
    world.step()
    assert early.table.blocks[:6] == late.table.blocks[:6]
    newcomer = world.add([1] * 20, 2, HIGH)
    world.step()
    assert [early.state, late.state, newcomer.state] == [RUNNING, RUNNING, WAITING]
    world.drain(60)


@pytest.mark.clause("SCHED-22")
def test_a_preempted_sequence_does_not_come_back_in_the_same_step() -> None:
    """The preempted sequence needs its third block only a step later, and its preemption has made room for it."""
    world = World(blocks=4, policy="priority")
    late = world.add([1] * 6, 2, LOW)
    world.step()
    newcomer = world.add([0] * 8, 3, HIGH)
    for _ in range(2):
        world.step()
        assert [late.state, newcomer.state] == [PREEMPTED, RUNNING]
    assert world.scheduler.preempter.total == 1
    world.drain(20)


@pytest.mark.clause("SCHED-22")
def test_blocks_that_can_be_shared_are_not_taken_from_later_sequences() -> None:
    world = World(blocks=9, policy="priority")
    prefix = [0, 1, 1, 0] * 6
    early, late = world.add([*prefix, 0], 4, CRITICAL), world.add([1] * 5, 6, LOW)
    for _ in range(2):
        world.step()
    assert world.device.available == 0
    newcomer = world.add([*prefix, 1], 2, HIGH)  # it needs only one more block
    world.step()
    assert [early.state, late.state, newcomer.state] == [RUNNING, PREEMPTED, RUNNING]
    world.drain(60)


@pytest.mark.clause("SCHED-22", "SCHED-31")
@pytest.mark.parametrize("caching", [False, True])
def test_a_choice_asks_for_one_block_of_those_after_it(caching: bool) -> None:
    world = World(blocks=9, policy="priority", caching=caching)
    text = [0, 1, 1, 0] * 6 + [0]
    source, late = world.add(text, 4, CRITICAL), world.add([1] * 5, 6, LOW)
    for _ in range(2):
        world.step()
    assert world.device.available == 0
    choice = world.add(text, 2, HIGH, source)
    world.step()
    assert [source.state, late.state, choice.state] == [RUNNING, PREEMPTED, RUNNING]
    assert world.computed[choice] == 1
    world.drain(60)

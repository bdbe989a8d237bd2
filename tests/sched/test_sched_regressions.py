"""Mistakes of other engines, and of earlier versions of this one: a small example of each."""

from __future__ import annotations

import pytest

from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.types import Priority
from tests.sched.world import World

RUNNING, WAITING, PREEMPTED = SequenceState.RUNNING, SequenceState.WAITING, SequenceState.PREEMPTED
SIZE = 4
Chunks = list[tuple[TokenSequence, int, int, int]]


def chunks(plan: StepPlan) -> Chunks:
    return [(chunk.sequence, chunk.start, chunk.count, chunk.rows) for chunk in plan.chunks]


def text(length: int) -> list[int]:
    return list(range(length))


@pytest.mark.clause("SCHED-02", "SCHED-13")
@pytest.mark.parametrize("generated", range(1, 7))
def test_a_preempted_sequence_finds_its_own_prefix_again(generated: int) -> None:
    """Generated tokens are found like those of the prompt: the hit may be longer than the prompt, but never contains
    the last token."""
    world = World()
    sequence = world.add(text(6), 12)
    for _ in range(generated):
        world.step()
    computed = sequence.computed
    assert computed == 5 + generated
    world.scheduler._preempt(sequence)
    assert (sequence.state, sequence.computed) == (PREEMPTED, 0)
    found = computed // SIZE * SIZE
    assert chunks(world.step()) == [(sequence, found, sequence.length - 1 - found, 1)]
    assert sequence.cached == 0  # at its first start it found nothing
    world.drain(20)


@pytest.mark.clause("SCHED-02")
@pytest.mark.parametrize("length", [1, SIZE, 3 * SIZE])
def test_a_prompt_that_is_cached_in_full_computes_its_last_token(length: int) -> None:
    world = World()
    world.add([*text(length), 99], 1)
    world.step()
    sequence = world.add(text(length))
    known = (length - 1) if length >= SIZE else 0
    assert chunks(world.step()) == [(sequence, known, 1, 1)]
    assert sequence.cached == known
    world.drain(20)


@pytest.mark.clause("SCHED-02", "SCHED-06")
@pytest.mark.parametrize(("blocks", "copied"), [(2, 1), (3, 2)])
def test_the_last_token_of_a_cached_prompt_does_not_overwrite_what_others_find(blocks: int, copied: int) -> None:
    """Two blocks are enough for the prompt and its copy, and later for the generated tokens in place of the prompt."""
    world = World(blocks=blocks)
    for _ in range(3):
        world.add(text(SIZE), 2)
        world.drain(10)
        assert world.scheduler.preempter.total == 0
    assert world.manager.counters().copied == copied


@pytest.mark.clause("SCHED-02", "SCHED-06")
@pytest.mark.parametrize("length", [SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 5 * SIZE])
@pytest.mark.parametrize("budget", [1, SIZE, 100])
def test_a_prompt_may_end_where_a_block_ends(length: int, budget: int) -> None:
    """The first generated token then needs a new block, which may be the last one."""
    world = World(blocks=length // SIZE + 1, budget=budget)
    sequence = world.add(text(length), SIZE - length % SIZE)
    world.drain(40)
    assert sequence.length == (length // SIZE + 1) * SIZE
    assert world.computed[sequence] == length
    assert world.scheduler.preempter.total == 0


@pytest.mark.clause("SCHED-02", "SCHED-30")
def test_a_block_that_is_still_being_filled_is_not_found() -> None:
    world = World(budget=6)
    first = world.add(text(11), 9)
    world.step()
    assert first.computed == 6
    second = world.add(text(6), 1)  # as far as the first has come: its second block is not full
    assert chunks(world.step()) == [(first, 6, 5, 1), (second, SIZE, 1, 0)]
    assert second.table.blocks[1] != first.table.blocks[1]
    world.drain(20)


@pytest.mark.clause("SCHED-02", "SCHED-30")
def test_a_step_that_failed_leaves_nothing_to_be_found() -> None:
    world = World(budget=20)
    first = world.add(text(9))
    world.step(fails=True)
    world.finish(first)
    second = world.add(text(9))
    assert chunks(world.step()) == [(second, 0, 9, 1)]


@pytest.mark.clause("SCHED-02", "SCHED-04", "SCHED-13")
def test_a_preempted_sequence_is_no_decode() -> None:
    """It had one pending token while it decoded. Now all its tokens are pending, and it comes after the sequence that
    decodes."""
    world = World(caching=False, budget=8, policy="priority")
    other, victim = world.add(text(3), 30, Priority.LOW), world.add(text(5), 30, Priority.HIGH)
    for _ in range(4):
        world.step()
    assert (other.pending, victim.pending) == (1, 1)
    length = victim.length
    world.scheduler._preempt(victim)
    assert victim.pending == length
    assert chunks(world.step()) == [(other, other.computed - 1, 1, 1), (victim, 0, 7, 0)]
    assert chunks(world.step()) == [(other, other.computed - 1, 1, 1), (victim, 7, length - 7, 1)]
    world.drain(60)


@pytest.mark.clause("SCHED-10", "SCHED-22")
def test_the_step_that_preempts_the_only_running_sequence_is_not_empty() -> None:
    world = World(seqs=1, policy="priority")
    runs = world.add(text(3), 9, Priority.LOW)
    world.step()
    urgent = world.add(text(2), 1, Priority.HIGH)
    assert chunks(world.step()) == [(urgent, 0, 2, 1)]
    assert runs.state is PREEMPTED
    world.drain(20)


@pytest.mark.clause("SCHED-10")
def test_memory_that_is_just_enough_for_one_is_enough_for_all_in_turn() -> None:
    for caching in (False, True):
        for host in (0, 3):
            world = World(blocks=3, block_size=2, caching=caching, host=host, swap_cost=0.0)
            for number in range(4):
                world.add([number, *text(2)], 3)
            world.drain(60)

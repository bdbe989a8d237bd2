"""SCHED-30 and SCHED-31: a prefix that several sequences need is computed once."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.types import Priority
from tests.sched.world import World

RUNNING, WAITING, PREEMPTED = SequenceState.RUNNING, SequenceState.WAITING, SequenceState.PREEMPTED
SIZE = 4


def letters(seed: int, count: int) -> list[int]:
    """A random text, different for each seed."""
    return [seed * 1000 + place for place in range(count)]


def all_computed(world: World, sequences: list[TokenSequence]) -> int:
    """The number of prompt tokens that were computed, repetitions included."""
    return sum(world.computed[sequence] for sequence in sequences)


# ---- prefixes
@pytest.mark.clause("SCHED-30")
@pytest.mark.parametrize(("caching", "expected"), [(True, 512 + 16 * 5), (False, 16 * 517)])
def test_sixteen_requests_with_one_prefix_compute_it_once(caching: bool, expected: int) -> None:
    world = World(blocks=1000, block_size=16, seqs=32, budget=2048, caching=caching)
    sequences = [world.add(letters(0, 512) + letters(number + 1, 5)) for number in range(16)]
    world.drain(40)
    assert all_computed(world, sequences) == expected
    assert [sequence.cached for sequence in sequences] == [0] + [512 * caching] * 15


@pytest.mark.clause("SCHED-30")
@pytest.mark.parametrize(
    ("shared", "own", "waits"),
    [
        (4, 0, True),
        (4, 4, True),  # exactly half
        (4, 5, False),
        (3, 0, False),  # no whole block
        (16, 16, True),
        (16, 17, False),
        (19, 16, False),  # four whole blocks of five
        (0, 8, False),
    ],
)
def test_half_of_the_text_is_worth_waiting_for(shared: int, own: int, waits: bool) -> None:
    world = World(budget=200)
    first = world.add(letters(0, shared) + letters(1, 20))
    second = world.add(letters(0, shared) + letters(2, own))
    world.step()
    assert first.state is RUNNING
    assert second.state is (WAITING if waits else RUNNING)
    world.step()
    assert second.state is RUNNING
    assert second.cached == (min(shared // SIZE * SIZE, shared + own - 1) if waits else 0)
    world.drain(20)


@pytest.mark.clause("SCHED-30")
@pytest.mark.parametrize(("own", "waits"), [(1, True), (2, False)])
def test_one_token_is_worth_waiting_for_where_it_is_half(own: int, waits: bool) -> None:
    world = World(block_size=1, budget=200)
    world.add([0, *letters(1, 20)])
    second = world.add([0, *letters(2, own)])
    world.step()
    assert second.state is (WAITING if waits else RUNNING)
    world.drain(30)


@pytest.mark.clause("SCHED-30")
def test_what_is_known_already_does_not_count_as_coming() -> None:
    """Of the second text, 32 tokens are cached, 8 are being computed, 12 are its own: it does not wait."""
    world = World(budget=200)
    world.add(letters(0, 32), 1)
    world.step()
    world.add(letters(0, 32) + letters(1, 8))
    second = world.add(letters(0, 32) + letters(1, 8) + letters(2, 12))
    third = world.add(letters(0, 32) + letters(1, 8) + letters(3, 8))
    world.step()
    assert [second.state, third.state] == [RUNNING, WAITING]
    assert second.cached == 32
    world.drain(20)


@pytest.mark.clause("SCHED-30")
def test_two_prompts_that_share_little_run_together() -> None:
    world = World(block_size=16, budget=400)
    first = world.add(letters(0, 16) + letters(1, 100))
    second = world.add(letters(0, 16) + letters(2, 100))
    assert world.step().sampled == [first, second]


@pytest.mark.clause("SCHED-30")
def test_a_prefix_that_is_cut_in_chunks_is_waited_for_to_its_end() -> None:
    world = World(budget=8)
    first, second = world.add(letters(0, 30)), world.add(letters(0, 30) + letters(1, 2))
    for _ in range(3):
        world.step()
        assert [first.state, second.state] == [RUNNING, WAITING]
    world.step()
    assert first.pending == 1
    assert second.state is WAITING or second.cached >= 24
    world.step()
    assert second.state is RUNNING
    assert second.cached == 28
    world.drain(20)


def waiting_pair(blocks: int = 100) -> tuple[World, TokenSequence, TokenSequence]:
    """A world, a sequence that computes a text, and a sequence that waits for its blocks."""
    world = World(budget=8, blocks=blocks, policy="priority")
    first, second = world.add(letters(0, 30)), world.add(letters(0, 30) + letters(1, 2))
    world.step()
    assert [first.state, second.state] == [RUNNING, WAITING]
    return world, first, second


@pytest.mark.clause("SCHED-30", "SCHED-09")
def test_no_sequence_waits_for_a_prefix_whose_computation_was_cancelled() -> None:
    world, first, second = waiting_pair()
    world.finish(first)
    world.step()
    assert second.state is RUNNING
    assert second.cached == 8  # what the first had done
    world.drain(20)


@pytest.mark.clause("SCHED-30")
def test_no_sequence_waits_for_a_prefix_of_a_preempted_one() -> None:
    world, first, second = waiting_pair(blocks=12)
    world.update(second, Priority.HIGH)
    urgent = world.add(letters(2, 40), 2, Priority.CRITICAL)  # needs all but one of the blocks
    world.step()
    assert [urgent.state, first.state, second.state] == [RUNNING, PREEMPTED, WAITING]
    world.run_until(lambda: urgent not in world.live)
    world.step()
    assert [second.state, first.state] == [RUNNING, PREEMPTED]  # now the first waits for the second
    world.drain(40)


@pytest.mark.clause("SCHED-30")
def test_no_sequence_waits_for_one_that_only_decodes() -> None:
    """The decoding sequence found its whole text in the cache, and does not compute blocks that were evicted since."""
    world = World(budget=8)
    world.add(letters(0, SIZE), 1)
    world.step()
    decodes = world.add(letters(0, SIZE), 20)
    world.step()
    assert (decodes.cached, decodes.computed) == (SIZE - 1, SIZE)
    assert world.manager.gc() == 1
    newcomer = world.add(letters(0, SIZE), 2)
    world.step()
    assert [decodes.state, newcomer.computed] == [RUNNING, SIZE]


@pytest.mark.clause("SCHED-30")
def test_no_sequence_waits_for_one_whose_last_chunk_was_a_single_token() -> None:
    world = World(budget=8, blocks=10)
    first = world.add(letters(0, 9), 8)
    world.step()
    world.step()
    assert first.pending == 1
    assert len(world.scheduler._in_flight) == 0
    world.drain(20)


@pytest.mark.clause("SCHED-30")
def test_a_text_that_two_compute_is_still_coming_when_one_of_them_leaves() -> None:
    world = World(budget=40)
    first = world.add(letters(0, 8) + letters(1, 30))
    second = world.add(letters(0, 8) + letters(2, 20))
    world.step()
    assert [first.computed, second.computed] == [38, 2]
    world.finish(first)
    world.manager.gc()
    third = world.add(letters(0, 8) + letters(3, 1))
    world.step()
    assert third.state is WAITING
    world.step()
    assert third.cached == 8
    world.drain(20)


@pytest.mark.clause("SCHED-10")
def test_one_that_did_not_fit_does_as_soon_as_it_can_share() -> None:
    """It needs twelve blocks, eleven are left, and none is released. It fits when it can share four of another's."""
    world = World(blocks=20, budget=200)
    world.add(letters(0, 16) + letters(1, 20), 20)
    newcomer = world.add(letters(0, 16) + letters(2, 28))
    world.step()
    assert (newcomer.state, world.device.available) == (WAITING, 11)
    world.step()
    assert (newcomer.state, newcomer.cached) == (RUNNING, 16)
    world.drain(40)


@pytest.mark.clause("SCHED-10")
def test_the_end_of_a_prompt_can_be_what_it_waits_for() -> None:
    """It needs nine blocks and eight are left, until the last four tokens of the other prompt fill a block."""
    world = World(blocks=13, budget=14)
    world.add(letters(0, 16) + letters(1, 2))
    world.step()
    newcomer = world.add(letters(0, 16) + letters(2, 28))
    world.step()
    assert (newcomer.state, world.device.available) == (WAITING, 8)
    world.step()
    assert (newcomer.state, newcomer.cached) == (RUNNING, 16)
    world.drain(40)


@pytest.mark.clause("SCHED-13", "SCHED-30")
def test_a_sequence_with_its_text_on_the_host_waits_for_no_prefix() -> None:
    """This is true even if its blocks have no digests, because another sequence computed the same prefix in the same
    step and has ended since."""
    world = World(host=20, swap_cost=0.0)
    first, second = (world.add(letters(0, 8) + letters(number, 20), 9) for number in (1, 2))
    world.step()
    assert second.state is RUNNING
    world.finish(first)
    world.manager.gc()
    third = world.add(letters(0, 8) + letters(2, 20))
    world.step(fails=True)
    assert (third.state, third.cached) == (RUNNING, 0)  # it is about to compute the text of the second
    world.scheduler._preempt(second)
    assert second.table.host_blocks
    world.manager.gc()
    assert [(chunk.sequence, chunk.count) for chunk in world.step().chunks] == [(second, 1), (third, 28)]
    world.drain(20)


# ---- choices
@pytest.mark.clause("SCHED-31")
@pytest.mark.parametrize("caching", [False, True])
@pytest.mark.parametrize("length", [1, SIZE - 1, SIZE, SIZE + 1, 2 * SIZE, 3 * SIZE + 2])
def test_choices_compute_their_prompt_once_and_the_last_token_each(length: int, caching: bool) -> None:
    world = World(caching=caching)
    choices = world.choices(letters(0, length), 4, max_tokens=6)
    world.step()
    assert [choice.state for choice in choices] == [RUNNING, WAITING, WAITING, WAITING]
    world.step()
    assert [choice.state for choice in choices] == [RUNNING] * 4
    assert [choice.cached for choice in choices] == [0] + [length - 1] * 3
    assert [world.computed[choice] for choice in choices] == [length, 1, 1, 1]
    full = (length - 1) // SIZE
    assert all(choice.table.blocks[:full] == choices[0].table.blocks[:full] for choice in choices)
    assert len({choice.table.blocks[full] for choice in choices}) == 4  # the rest was copied
    assert world.manager.counters().copied == (3 if (length - 1) % SIZE else 0)
    world.drain(20)


@pytest.mark.clause("SCHED-31")
@given(
    length=st.integers(1, 14),
    count=st.integers(2, 5),
    caching=st.booleans(),
    budget=st.integers(1, 9),
    seqs=st.integers(1, 5),
    cancelled=st.integers(0, 6),
)
def test_choices_go_on_when_their_source_leaves(
    length: int, count: int, caching: bool, budget: int, seqs: int, cancelled: int
) -> None:
    """The source may leave while it waits, computes the prompt, or decodes."""
    world = World(budget=budget, seqs=seqs, caching=caching, blocks=30)
    source, *others = world.choices(letters(0, length), count, max_tokens=4)
    for _ in range(cancelled):
        world.step()
    if source in world.live:
        world.finish(source)
    world.drain(200)
    texts = {tuple(choice.token_ids) for choice in others}
    assert [choice.length for choice in others] == [length + 4] * (count - 1)
    assert len(texts) == 1  # equal texts have the same next tokens


@pytest.mark.clause("SCHED-31")
def test_choices_that_continue_differently_keep_apart() -> None:
    world = World(blocks=30)
    choices = world.choices(letters(0, 6), 4, max_tokens=8)
    number = {choice: place for place, choice in enumerate(choices)}
    for _ in range(20):
        world.step(lambda sequence: number[sequence])
    assert [choice.output_ids for choice in choices] == [[place] * 8 for place in range(4)]


@pytest.mark.clause("SCHED-30", "SCHED-31")
def test_a_preempted_choice_waits_while_its_source_computes_the_prompt_again() -> None:
    world = World(blocks=12, policy="priority")
    source, choice = world.choices(letters(0, 16), 2, max_tokens=10)
    world.step()
    world.step()
    assert choice.computed == 16
    urgent = world.add(letters(1, 40), 2, Priority.CRITICAL)
    world.run_until(lambda: urgent not in world.live)
    assert [source.state, choice.state] == [PREEMPTED, PREEMPTED]
    world.manager.gc()
    world.step()
    assert [source.state, choice.state] == [RUNNING, PREEMPTED]
    world.step()
    assert choice.state is RUNNING
    world.drain(40)


@pytest.mark.clause("SCHED-31")
def test_a_choice_shares_the_prompt_of_any_that_has_it() -> None:
    """The first choice was preempted and computes the prompt again. The second has the prompt, and the third shares
    its blocks."""
    world = World(seqs=3, budget=10, caching=False)
    prompt = letters(0, 12)
    source = world.add(prompt, 20)
    second, other, third = world.add(prompt, 20, source=source), world.add([1], 20), world.add(prompt, source=source)
    world.run_until(lambda: len(world.running) == 3 and all(sequence.pending == 1 for sequence in world.running))
    assert third.state is WAITING
    world.scheduler._preempt(source)
    world.finish(other)
    plan = world.step()
    assert [(chunk.sequence, chunk.start, chunk.count) for chunk in plan.chunks][1:] == [(source, 0, 9)]
    plan = world.step()
    assert [chunk.sequence for chunk in plan.chunks] == [second, source, third]
    assert (third.cached, world.computed[third]) == (11, 1)
    assert third.table.blocks[:2] == second.table.blocks[:2]
    world.drain(60)

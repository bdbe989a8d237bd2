"""The clauses that hold at any time and for any plan, as functions for all tests that drive a `World`."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferrum.kv.block_table import blocks_for
from ferrum.kv.prefix import child_digest
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import SequenceState, TokenSequence
from ferrum.testing.audit import audit

if TYPE_CHECKING:
    from tests.sched.world import Key, World

RUNNING, WAITING, PREEMPTED = SequenceState.RUNNING, SequenceState.WAITING, SequenceState.PREEMPTED


@dataclass(frozen=True)
class Before:
    """The states of all sequences before a plan was made."""

    running: dict[TokenSequence, int]  # and how much each has computed
    new: list[TokenSequence]  # waits for the first time
    swapped: list[TokenSequence]  # waits with blocks on the host
    waiting: list[TokenSequence]

    @classmethod
    def of(cls, world: World) -> Before:
        swapped = [sequence for sequence in world.waiting if sequence.table.host_blocks]
        running = {sequence: sequence.computed for sequence in world.running}
        return cls(running, world.those(WAITING), swapped, world.waiting)


def check_books(world: World) -> None:
    """What is true between any two calls: SCHED-01, SCHED-03, SCHED-13, and memory holds what was computed."""
    audit(world.manager, [sequence.table for sequence in world.live])
    assert len(world.running) == world.scheduler.running <= world.limits.max_num_seqs
    assert len(world.waiting) == world.scheduler.waiting
    running = world.scheduler.running_sequences()
    assert running == sorted(world.running, key=world.key)
    running.clear()  # a copy: the scheduler's own list does not change
    assert world.scheduler.waiting_sequences() == sorted(world.waiting, key=world.key)
    assert len(world.running) + len(world.waiting) == len(world.live)
    for sequence, entry in world.live.items():
        table, computed = sequence.table, sequence.computed
        assert bool(table.blocks) == (sequence.state is RUNNING)
        assert not table.host_blocks or sequence.state is PREEMPTED
        assert sequence.token_ids == entry.text
        assert 0 <= computed <= sequence.length
        if sequence.state is RUNNING:
            assert computed < sequence.length
            held = world.store.device.reshape(-1)[table.slots(0, computed)]
        else:
            assert table.host_blocks or not computed
            held = world.store.host[table.host_blocks].reshape(-1)[:computed]
        assert held.tolist() == entry.trace[:computed], "memory does not hold the text"


def check_plan(world: World, before: Before, plan: StepPlan) -> None:
    """What is true of a plan before it runs."""
    check_chunks(world, plan)
    check_admission(world, before)
    for sequence, computed in before.running.items():
        assert sequence.state is not RUNNING or sequence.computed == computed, "a plan counts nothing as computed"
    if not world.faults.struck:  # if memory fails, only the checks above hold
        assert bool(plan.chunks) == bool(world.live)  # SCHED-10
        check_order(world, before, plan)
        check_preemption(world, before)
        check_shared_work(world, before, plan)


def check_chunks(world: World, plan: StepPlan) -> None:
    """SCHED-02, SCHED-03 and SCHED-06."""
    chunks, size = plan.chunks, world.block_size
    assert len({chunk.sequence for chunk in chunks}) == len(chunks)
    for chunk in chunks:
        sequence, end = chunk.sequence, chunk.start + chunk.count
        assert sequence.state is RUNNING
        assert chunk.start == sequence.computed
        assert chunk.count >= 1
        assert end <= sequence.length
        assert chunk.rows == (end == sequence.length)
        for index in range(chunk.start // size, blocks_for(end, size)):
            block = sequence.table.blocks[index]
            assert world.device.references(block) == 1
            assert world.device.digest(block) is None
    assert plan.sampled == [chunk.sequence for chunk in chunks if chunk.rows]
    assert plan.tokens == sum(chunk.count for chunk in chunks) <= world.limits.max_num_batched_tokens
    if plan.tokens < world.limits.max_num_batched_tokens:
        assert {chunk.sequence for chunk in chunks} == set(world.running), "there was budget for all running sequences"


def check_order(world: World, before: Before, plan: StepPlan) -> None:
    """SCHED-04: first decodes, then other running sequences, then new ones. A sequence that took the place of a running
    one counts as running."""
    last = max(map(world.key, before.running), default=None)
    places: list[tuple[int, Key]] = []
    for chunk in plan.chunks:
        key = world.key(chunk.sequence)
        runs = chunk.sequence in before.running or (last is not None and key < last)
        places.append((int(chunk.sequence.pending > 1) if runs else 2, key))
    assert places == sorted(places)
    if all(sequence.state is RUNNING for sequence in before.running):
        assert all(chunk.rows for chunk in plan.chunks[:-1]), "only the last chunk is cut"


def check_admission(world: World, before: Before) -> None:
    """SCHED-05: no waiting sequence was passed over."""
    admitted = [world.key(sequence) for sequence in before.waiting if sequence.state is RUNNING]
    left = [world.key(sequence) for sequence in before.waiting if sequence.state is not RUNNING]
    assert not admitted or not left or max(admitted) < min(left)


def check_preemption(world: World, before: Before) -> None:
    """SCHED-12 and SCHED-22: sequences of the largest ranks are preempted, and only if blocks are missing."""
    victims = [sequence for sequence in before.running if sequence.state is not RUNNING]
    assert all(sequence.state is PREEMPTED for sequence in victims)
    if not victims:
        return
    assert world.running
    assert max(map(world.key, world.running)) < min(map(world.key, victims))
    urgent = bool(before.waiting) and world.key(before.waiting[0]) < max(map(world.key, before.running))
    needed = sum(blocks_for(sequence.length, world.block_size) for sequence in before.running)
    assert urgent or needed > world.device.total


def check_shared_work(world: World, before: Before, plan: StepPlan) -> None:
    """SCHED-30 and SCHED-31: an admitted sequence had no prefix to wait for; the first waiting one has a reason."""
    for sequence in before.waiting:
        if sequence.state is not RUNNING or sequence in before.swapped:
            continue
        earlier = [s for s in world.running if s in before.running or world.key(s) < world.key(sequence)]
        siblings = [sibling for sibling in sequence.siblings if sibling in earlier]
        if siblings and sequence in before.new:
            ran = {
                sibling for sibling in sequence.siblings if sibling in before.running
            }  # one of them may have been preempted since
            assert any(sibling.computed >= sibling.prompt_length for sibling in [*siblings, *ran]) or any(
                before.running[sibling] >= sibling.prompt_length for sibling in ran
            )
            assert sequence.computed == sequence.prompt_length - 1
        elif sequence.pending > 1:
            assert not mostly_coming(world, sequence, sequence.computed, earlier, strictly=True)
    gave_way = any(sequence.state is not RUNNING for sequence in before.running)
    full = plan.tokens == world.limits.max_num_batched_tokens or len(world.running) == world.limits.max_num_seqs
    if world.waiting and not gave_way and not full:
        assert has_reason_to_wait(world, world.waiting[0], new=world.waiting[0] in before.new)


def mostly_coming(
    world: World, sequence: TokenSequence, known: int, others: list[TokenSequence], *, strictly: bool
) -> bool:
    """True if other sequences compute at least half of the text after its first `known` tokens, in whole blocks.
    `strictly`: blocks that they have computed already, and that cannot be found, do not count."""
    size, text = world.block_size, sequence.token_ids

    def comes(other: TokenSequence, end: int) -> bool:
        same = end <= len(text) and other.token_ids[:end] == text[:end]
        return same and world.live[other].fills and (end > other.computed or not strictly)

    end = known
    while any(comes(other, end + size) for other in others):
        end += size
    return world.manager.prefix_caching and end > known and 2 * (end - known) >= len(text) - known


def has_reason_to_wait(world: World, sequence: TokenSequence, *, new: bool) -> bool:
    """True if a sequence that had a place and budget must still wait: memory is missing, or another sequence computes
    its text."""
    siblings = [sibling for sibling in sequence.siblings if sibling.state is RUNNING]
    if siblings and new:
        reading = all(sibling.computed < sibling.prompt_length for sibling in siblings)
        return reading or not world.device.available
    if blocks_for(sequence.length + 1, world.block_size) > world.device.available:
        return True
    known = known_tokens(world, sequence.token_ids)
    return mostly_coming(world, sequence, known, world.running, strictly=False)


def known_tokens(world: World, text: list[int]) -> int:
    """The number of tokens of a text that the prefix cache has, in full blocks from the beginning."""
    size, digest = world.block_size, world.manager.root
    tiers = [world.device] if world.host is None else [world.device, world.host]
    for start in range(0, len(text) - size + 1, size):
        digest = child_digest(digest, text[start : start + size])
        if all(tier.lookup(digest) is None for tier in tiers):
            return start
    return len(text) // size * size

"""Queue, tables and blocks at one moment, and the events between two moments.

Owns: `Moment`, a copy of the state of scheduler and memory manager; `changes`, the events that lead from one moment to
the next. Neither changes the scheduler or the manager.
Refuses to know: steps. Specs: TRACE-03, TRACE-04. Next: `ferrum.trace.distribution`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ferrum.kv.eviction import Digest
from ferrum.kv.pool import BlockPool
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import SequenceState, TokenSequence

Event = dict[str, Any]
Row = list[Any]
"""[block, references, start of the digest]"""
Number = Callable[[TokenSequence], int]

DIGEST_BYTES_SHOWN = 4


@dataclass(frozen=True)
class Place:
    """The state of one sequence."""

    state: SequenceState
    computed: int  # tokens whose keys and values are in memory
    blocks: tuple[int, ...]  # of the device
    host_blocks: tuple[int, ...]


@dataclass(frozen=True)
class Tier:
    """The blocks of one tier that are not free."""

    rows: dict[int, Row]  # by block
    digests: dict[int, Digest]  # of the blocks that are known by their content

    @classmethod
    def of(cls, pool: BlockPool | None, before: Tier) -> Tier:
        """`before`: the same tier at an earlier moment. A block that is as it was keeps its row, so that a hundred
        steps with thousands of blocks fit into little memory."""
        tier = cls({}, {})
        for block in () if pool is None else pool.occupied():
            assert pool is not None
            references, digest = pool.references(block), pool.digest(block)
            row = before.rows.get(block)
            if row is None or row[1] != references or before.digests.get(block) != digest:
                row = [block, references, None if digest is None else digest[:DIGEST_BYTES_SHOWN].hex()]
            tier.rows[block] = row
            if digest is not None:
                tier.digests[block] = digest
        return tier


@dataclass(frozen=True)
class Moment:
    """The queue, the tables and the blocks."""

    waiting: list[TokenSequence]
    running: list[TokenSequence]
    places: dict[TokenSequence, Place]  # of all sequences that wait or run
    device: Tier
    host: Tier
    resets: int  # how often all blocks had become free at once
    swapped_in: int  # blocks that had been moved back to the device

    @classmethod
    def of(cls, scheduler: Scheduler, before: Moment | None = None) -> Moment:
        """The moment now. `before`: an earlier one, whose rows of unchanged blocks are used again."""
        manager = scheduler.manager
        before = cls.nothing(0) if before is None else before
        waiting, running = scheduler.waiting_sequences(), scheduler.running_sequences()
        places = {
            sequence: Place(
                sequence.state, sequence.computed, tuple(sequence.table.blocks), tuple(sequence.table.host_blocks)
            )
            for sequence in (*running, *waiting)
        }
        device, host = Tier.of(manager.device, before.device), Tier.of(manager.host, before.host)
        return cls(waiting, running, places, device, host, manager.resets, manager.counters().swapped_in)

    @classmethod
    def nothing(cls, resets: int) -> Moment:
        """All blocks are free, and there are no sequences."""
        return cls([], [], {}, Tier({}, {}), Tier({}, {}), resets, 0)

    def as_json(self, number: Number) -> dict[str, Any]:
        """The fields `waiting` to `host` of a trace's step. `number`: the number of a sequence."""
        places = [(str(number(sequence)), place) for sequence, place in self.places.items()]
        return {
            "waiting": [number(sequence) for sequence in self.waiting],
            "running": [number(sequence) for sequence in self.running],
            "tables": {name: list(place.blocks) for name, place in places if place.blocks},
            "host_tables": {name: list(place.host_blocks) for name, place in places if place.host_blocks},
            "device": list(self.device.rows.values()),
            "host": list(self.host.rows.values()),
        }


def changes(before: Moment, after: Moment, scheduler: Scheduler, number: Number) -> Iterator[Event]:
    """The events of planning a step. `before`: the end of the step before; `after`: the moment when the plan is final.
    `number`: the number of a sequence."""
    for sequence, place in before.places.items():
        now = after.places.get(sequence)
        if place.state is SequenceState.RUNNING and now is not None and now.state is SequenceState.PREEMPTED:
            way = "swap" if now.host_blocks else "recompute"
            yield {"kind": "preempted", "sequence": number(sequence), "way": way}
    evicted = _lost(before.device, after.device)
    contents = set(evicted.values())
    demoted = [block for block in _gained(before.host, after.host) if after.host.digests[block] in contents]
    dropped = _lost(before.host, after.host)
    told = {
        "evicted": list(evicted),
        "demoted": demoted,
        "dropped": list(dropped),
        "promoted": _promoted(before, after),
    }
    yield from ({"kind": kind, "blocks": blocks} for kind, blocks in told.items() if blocks)
    for sequence in after.running:
        yield from _admission(before, after, sequence, scheduler, number(sequence))


def _admission(
    before: Moment, after: Moment, sequence: TokenSequence, scheduler: Scheduler, number: int
) -> Iterator[Event]:
    """The events of one running sequence: its admission, and each block that was copied for it."""
    now, place = after.places[sequence], before.places.get(sequence)
    if place is not None and place.state is SequenceState.RUNNING:
        size = sequence.table.block_size
        for index, (old, new) in enumerate(zip(place.blocks, now.blocks, strict=False)):
            if old != new and index * size < now.computed:  # else the shared block was replaced without a copy
                yield _copied(number, index, new, old)
        return
    source = _source(before, after, sequence)
    yield {"kind": "admitted", "sequence": number, "computed": now.computed, "source": source}
    index, rest = divmod(now.computed, sequence.table.block_size)
    if rest and source in ("prefix", "sibling"):  # its last block was shared and is written next
        yield _copied(number, index, now.blocks[index], _original(before, after, sequence, index, scheduler))


def _source(before: Moment, after: Moment, sequence: TokenSequence) -> str:
    """The source of the computed positions of a sequence that was admitted. A sequence whose blocks were on the host
    may have been given a cached prefix instead, because the move failed: then no block was moved back."""
    if not sequence.computed:
        return "nothing"
    place = before.places.get(sequence)
    was_on_host = place is not None and place.host_blocks and place.computed == sequence.computed
    if was_on_host and after.swapped_in > before.swapped_in:
        return "host"
    return "prefix" if _sibling(before, after, sequence) is None else "sibling"


def _sibling(before: Moment, after: Moment, sequence: TokenSequence) -> Place | None:
    """The running continuation of the same prompt whose blocks a new one shares. It may have been admitted in the same
    plan. Its place is that after the plan, unless it was preempted later in the plan."""
    place = before.places.get(sequence)
    if place is not None and place.state is SequenceState.PREEMPTED:
        return None
    for moment in (after, before):
        for sibling in sequence.siblings:
            place = moment.places.get(sibling)
            if (
                sibling is not sequence
                and place is not None
                and place.state is SequenceState.RUNNING
                and place.computed >= sibling.prompt_length
            ):
                return place
    return None


def _original(before: Moment, after: Moment, sequence: TokenSequence, index: int, scheduler: Scheduler) -> int | None:
    """The block that was copied for entry `index` of a table."""
    sibling = _sibling(before, after, sequence)
    if sibling is not None:
        return sibling.blocks[index]
    digest = sequence.table.chain.digest(index, sequence.token_ids)
    block = scheduler.manager.device.lookup(digest)
    if block is None:  # it has been evicted since, in the same plan
        block = next((block for block, known in before.device.digests.items() if known == digest), None)
    return block


def _copied(number: int, index: int, block: int, source: int | None) -> Event:
    return {"kind": "copied", "sequence": number, "index": index, "block": block, "source": source}


def _lost(before: Tier, after: Tier) -> dict[int, Digest]:
    """The blocks that were known by a content and are known by it no more."""
    return {block: digest for block, digest in before.digests.items() if after.digests.get(block) != digest}


def _gained(before: Tier, after: Tier) -> list[int]:
    """The blocks that are known by another content than before."""
    return [block for block, digest in after.digests.items() if before.digests.get(block) != digest]


def _promoted(before: Moment, after: Moment) -> list[int]:
    """The blocks of the device that took cached content of the host; not those of sequences that were swapped in."""
    on_host = set(before.host.digests.values())
    swapped_in = {
        block
        for sequence in after.running
        if _source(before, after, sequence) == "host"
        for block in after.places[sequence].blocks
    }
    gained = _gained(before.device, after.device)
    return [block for block in gained if after.device.digests[block] in on_host and block not in swapped_in]

"""Drafts in a plan: tokens that may come next, computed in the same step as the tokens before them.

Owns: how many drafts a step has room for. They use only what is left of the step's budget, of the length of their
sequence, and of the available blocks after each running sequence has one: no sequence is preempted for a draft.
Refuses to know: where drafts come from and whether they are right.
Specs: DRAFT-03, DRAFT-04. Next: `ferrum.sched.admission`.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from contextlib import suppress

from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.kv.block_table import blocks_for
from ferrum.kv.manager import KvManager
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence

Drafts = Mapping[TokenSequence, Sequence[int]]


def with_drafts(plan: StepPlan, drafts: Drafts, manager: KvManager, most_tokens: int) -> StepPlan:
    """The same plan with as many drafts as fit in a step of `most_tokens` tokens. `drafts`: the tokens that were
    proposed for sequences that the plan samples."""
    room = most_tokens - plan.tokens
    chunks: list[Chunk] = []
    for chunk in plan.chunks:
        sequence = chunk.sequence
        limit = min(len(drafts.get(sequence, ())), room, sequence.max_length - sequence.length - 1)
        if limit > 0:
            count = _reserve(chunk, limit, manager, len(plan.chunks))
            room -= count
            chunk = Chunk(sequence, chunk.start, chunk.count, chunk.rows, tuple(drafts[sequence][:count]))
        chunks.append(chunk)
    return StepPlan(tuple(chunks))


def _reserve(chunk: Chunk, limit: int, manager: KvManager, running: int) -> int:
    """Reserves positions for at most `limit` drafts after the chunk, if enough blocks are left -> for how many it has
    positions. `running`: sequences of the plan, each of which may need a block for its next token."""
    table, end = chunk.sequence.table, chunk.start + chunk.count
    if end + limit > table.writable_until:
        missing = blocks_for(end + limit, manager.block_size) - len(table.blocks)
        if missing + running <= manager.device.available:
            with suppress(ResourceExhausted, DeviceError):  # nothing changes then
                manager.reserve(table, chunk.start, end + limit)
    return max(0, min(limit, table.writable_until - end))  # writable_until is 0 after a fork of this step

"""Drafts in a plan: tokens that may come next, computed beside those that have come.

Owns: how many of them a step has room for. They take what is left over: of the step's budget, of the length of their
sequence, of the blocks that nobody who runs may need for its next token. So nobody gives way for a draft.
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
    """The same plan with as many drafts as there is room for in a step of `most_tokens`. `drafts` are of sequences that
    the plan samples."""
    left = most_tokens - plan.tokens
    chunks: list[Chunk] = []
    for chunk in plan.chunks:
        sequence = chunk.sequence
        wanted = min(len(drafts.get(sequence, ())), left, sequence.max_length - sequence.length - 1)
        if wanted > 0:
            count = _held(chunk, wanted, manager, len(plan.chunks))
            left -= count
            chunk = Chunk(sequence, chunk.start, chunk.count, chunk.rows, tuple(drafts[sequence][:count]))
        chunks.append(chunk)
    return StepPlan(tuple(chunks))


def _held(chunk: Chunk, wanted: int, manager: KvManager, running: int) -> int:
    """Gets the chunk's sequence blocks for so many drafts more -> for how many it has them."""
    table, known = chunk.sequence.table, chunk.start + chunk.count
    if known + wanted > table.writable_until:
        missing = blocks_for(known + wanted, manager.block_size) - len(table.blocks)
        if missing + running <= manager.device.available:
            with suppress(ResourceExhausted, DeviceError):  # nothing changes then
                manager.reserve(table, chunk.start, known + wanted)
    return max(0, min(wanted, table.writable_until - known))  # a sibling that has just forked makes it own nothing

"""The logits of a given text: no sampling, no scheduling, one sequence by itself.

Owns: borrowing blocks for one sequence, and giving them back whatever happens. Refuses to know: requests.
Specs: ENGINE-20. Next: `ferrum.engine.stream`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.engine.runner import Executor
from ferrum.kv.block_table import BlockTable, blocks_for
from ferrum.kv.pool import BlockPool
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.types import SamplingParams


def score(
    executor: Executor, pool: BlockPool, block_size: int, token_ids: Sequence[int], step_tokens: int
) -> NDArray[np.float32]:
    """-> float32 [tokens, vocab]: row i is what the model expects after token i. At most `step_tokens` tokens a step.
    Raises ResourceExhausted where other sequences hold the blocks it needs."""
    sequence = TokenSequence(token_ids, SamplingParams(), seed=0)
    blocks = pool.allocate(blocks_for(sequence.length, block_size))
    try:
        sequence.table = BlockTable(block_size, blocks)
        logits = np.empty((sequence.length, executor.vocab_size), np.float32)
        for start in range(0, sequence.length, step_tokens):
            count = min(step_tokens, sequence.length - start)
            rows = executor.run(StepPlan((Chunk(sequence, start, count, rows=count),)))
            logits[start : start + count] = executor.ops.to_numpy(rows)
        return logits
    finally:
        pool.release(blocks)

"""The logits of a given text, without sampling and scheduling.

Owns: taking blocks for one sequence, and freeing them also after an error. Refuses to know: requests.
Specs: ENGINE-20. Next: `ferrum.engine.embedding`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.engine.runner import Executor
from ferrum.errors import ModelError
from ferrum.kv.manager import KvManager
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence


def score(executor: Executor, manager: KvManager, token_ids: Sequence[int], step_tokens: int) -> NDArray[np.float32]:
    """-> float32 [tokens, vocab]: row i has the logits of the token after token i. Computes `step_tokens` tokens in a
    step, at most. Raises ResourceExhausted if other sequences hold the blocks, ModelError if a logit is not finite."""
    sequence = TokenSequence(token_ids, SamplingParams(), seed=0)
    sequence.table = table = manager.new_table()
    manager.reserve(table, 0, sequence.length)
    try:
        logits = np.empty((sequence.length, executor.vocab_size), np.float32)
        for start in range(0, sequence.length, step_tokens):
            count = min(step_tokens, sequence.length - start)
            rows = executor.run(StepPlan((Chunk(sequence, start, count, rows=count),)))
            part = logits[start : start + count] = executor.ops.to_numpy(rows)
            if not np.isfinite(part).all():
                raise ModelError("the model's logits are not all finite: damaged weights, or numbers out of range")
        return logits
    finally:
        manager.close(table)

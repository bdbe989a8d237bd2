"""One token for every row of logits.

Owns: which way a batch goes: all greedy, straight to `ops.argmax` without leaving the backend; otherwise row by row
through `candidates`, so that a row cannot tell its batch-mates. Refuses to know: requests and scheduling.
Specs: SAMPLE-01, SAMPLE-10, SAMPLE-13. Next: `ferrum.engine.timing`.
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import ModelError
from ferrum.sample.candidates import choose
from ferrum.sample.pipeline import is_greedy
from ferrum.sample.randomness import random_unit
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.types import SamplingParams


def sample(
    ops: TensorOps,
    logits: Tensor,  # [rows, vocab]
    params: Sequence[SamplingParams],
    seeds: Sequence[int],
    positions: Sequence[int],
) -> NDArray[np.int64]:  # [rows]
    """Row r is sampled with params[r] and the random number of (seeds[r], positions[r]). Raises ModelError where a
    row offers nothing to choose: its largest logit is NaN or infinite."""
    best = ops.argmax(logits, -1)
    largest = ops.to_numpy(ops.take_along(logits, ops.reshape(best, (len(params), 1))))
    if not np.isfinite(largest).all():
        row = int(np.flatnonzero(~np.isfinite(largest))[0])
        raise ModelError(f"the model's best logit is {largest[row, 0]}: damaged weights, or numbers out of range")
    tokens = np.asarray(ops.to_numpy(best), np.int64)
    if all(is_greedy(p) for p in params):
        return tokens
    rows = ops.to_numpy(logits)
    tokens = tokens.copy()
    for index, (row, own, seed, position) in enumerate(zip(rows, params, seeds, positions, strict=True)):
        if not is_greedy(own):
            tokens[index] = choose(row, own, random_unit(seed, position))
    return tokens

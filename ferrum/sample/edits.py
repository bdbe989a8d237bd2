"""What changes logits before any token is filtered out, the fast way: one row on the host, only where it changes.

Owns: the same as `ferrum.sample.processors`, bit for bit: a token that no penalty is about is not touched.
Refuses to know: batches and backends.
Specs: SAMPLE-12. Next: `ferrum.sample.candidates`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.sample.state import SamplingState


def edited(row: NDArray[Any], state: SamplingState) -> NDArray[np.float64]:
    """A row of float logits [vocab] -> a copy with everything applied that the row's parameters and state ask for."""
    params, x = state.params, row.astype(np.float64)
    if params.repetition_penalty != 1:
        ids = state.history.seen()
        values = x[ids]
        x[ids] = np.where(values > 0, values / params.repetition_penalty, values * params.repetition_penalty)
    if params.presence_penalty or params.frequency_penalty:
        ids, counts = state.history.counts()
        x[ids] = x[ids] - params.presence_penalty - params.frequency_penalty * counts
    if params.logit_bias:
        ids, values = state.bias
        x[ids] += values
    allowed = state.allowed()
    if allowed is not None:
        x[~allowed] = -math.inf
    banned = state.banned(len(x))
    if banned.size:
        without = x.copy()
        without[banned] = -math.inf
        x = without if without.max() > -math.inf else x
    return x

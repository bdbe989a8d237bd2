"""Log probabilities and ranks of tokens: of the chosen token and of the most likely ones.

Owns: the logarithms of a row's probabilities, and the selection of those that a request asks for. Refuses to know:
where a row comes from, the text of tokens.
Specs: SAMPLE-13, SAMPLE-25 to SAMPLE-27. Next: `ferrum.sample.randomness`.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import ModelError
from ferrum.sample.fast import Floats, largest
from ferrum.sampling_params import ALL_TOKENS
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

Ranked = dict[int, tuple[float, int]]
"""Token id -> log probability and rank: the token itself first, then the most likely ones, best first."""


def not_finite(best: float) -> ModelError:
    """The error for logits whose largest is NaN or infinite."""
    return ModelError(f"the model's best logit is {best}: damaged weights, or numbers out of range")


def logprobs_by_definition(ops: TensorOps, logits: Tensor) -> Tensor:
    """[rows, vocab] -> float64 [rows, vocab]: log softmax. A logit of -inf stays -inf."""
    wide = ops.cast(logits, "float64")
    shifted = ops.sub(wide, ops.max(wide, -1))
    return ops.sub(shifted, ops.log(ops.sum(ops.exp(shifted), -1)))


def log_softmax(row: NDArray[Any]) -> Floats:
    """The same for one row [vocab] on the host. Raises ModelError if its largest logit is not finite."""
    best = float(row.max())
    if not math.isfinite(best):
        raise not_finite(best)
    shifted = row.astype(np.float64) - best
    result: Floats = shifted - np.log(np.exp(shifted).sum())
    return result


def ranked(logprobs: Floats, token: int, count: int) -> Ranked:
    """Log probability and rank of a token and of the `count` most likely ones; ALL_TOKENS, or a count above the size of
    the vocabulary, means all. Equal log probabilities rank by token id."""
    count = len(logprobs) if count == ALL_TOKENS else min(count, len(logprobs))
    own = logprobs[token]
    better = int(np.count_nonzero(logprobs > own) + np.count_nonzero(logprobs[:token] == own))
    found: Ranked = {token: (float(own), better + 1)}
    if count:
        ids = largest(logprobs, count)
        best = ids[np.argsort(-logprobs[ids], kind="stable")]
        for rank, other in enumerate(best.tolist(), start=1):
            found.setdefault(other, (float(logprobs[other]), rank))
    return found

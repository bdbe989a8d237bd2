"""What changes logits before any token is filtered out, the definition: penalties, bias, masks.

Owns: the meaning of repetition, presence and frequency penalty, logit_bias, min_tokens and grammar masks, as pure
functions on float64 logits [rows, vocab]. In that order they are the first half of the pipeline.
Refuses to know: where counts and masks come from.
Specs: SAMPLE-17 to SAMPLE-21. Papers: CTRL 1909.05858 (repetition); the other two as OpenAI's and vLLM's documentation
define them. Next: `ferrum.sample.filters`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence

import numpy as np

from ferrum.sample.state import SamplingState
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor


def process(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """float64 [rows, vocab] -> the same with everything applied that the rows' parameters and states ask for."""
    shape = tuple(logits.shape)
    seen, counts, bias = np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape)
    allowed, banned = np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
    for row, state in enumerate(states):
        seen[row, state.history.seen()] = True
        ids, often = state.history.counts()
        counts[row, ids] = often
        for token, value in state.params.logit_bias.items():
            bias[row, token] = value
        fits = state.allowed()
        if fits is not None:
            allowed[row] = fits
        banned[row, state.banned(shape[1])] = True

    def column(name: str) -> Tensor:
        return ops.asarray([[getattr(state.params, name)] for state in states], "float64")

    x = apply_repetition_penalty(ops, logits, ops.asarray(seen, "bool"), column("repetition_penalty"))
    x = apply_presence_penalty(ops, x, ops.asarray(counts > 0, "bool"), column("presence_penalty"))
    x = apply_frequency_penalty(ops, x, ops.asarray(counts, "float64"), column("frequency_penalty"))
    x = apply_logit_bias(ops, x, ops.asarray(bias, "float64"))
    x = apply_mask(ops, x, ops.asarray(allowed, "bool"))
    return apply_ban(ops, x, ops.asarray(banned, "bool"))


def apply_repetition_penalty(ops: TensorOps, logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """seen bool [rows, vocab], penalty [rows, 1] above 0: positive logits of seen tokens are divided by it, others
    multiplied, so that above 1 it makes all of them less likely. Once for each token, however often it was seen."""
    zero = ops.constant(0, "float64")
    penalised = ops.where(ops.less(zero, logits), ops.div(logits, penalty), ops.mul(logits, penalty))
    return ops.where(seen, penalised, logits)


def apply_presence_penalty(ops: TensorOps, logits: Tensor, occurs: Tensor, penalty: Tensor) -> Tensor:
    """occurs bool [rows, vocab], penalty [rows, 1]: taken from the logits of tokens that were generated."""
    return ops.sub(logits, ops.mul(penalty, ops.cast(occurs, "float64")))


def apply_frequency_penalty(ops: TensorOps, logits: Tensor, counts: Tensor, penalty: Tensor) -> Tensor:
    """counts float64 [rows, vocab], penalty [rows, 1]: taken as often as the token was generated."""
    return ops.sub(logits, ops.mul(penalty, counts))


def apply_logit_bias(ops: TensorOps, logits: Tensor, bias: Tensor) -> Tensor:
    """bias [rows, vocab], 0 where none is meant."""
    return ops.add(logits, bias)


def apply_mask(ops: TensorOps, logits: Tensor, allowed: Tensor) -> Tensor:
    """allowed bool [rows, vocab]: -inf elsewhere."""
    return ops.where(allowed, logits, ops.constant(-math.inf, "float64"))


def apply_ban(ops: TensorOps, logits: Tensor, banned: Tensor) -> Tensor:
    """banned bool [rows, vocab]: -inf there, unless nothing would be left in the row."""
    minus_infinity = ops.constant(-math.inf, "float64")
    without = ops.where(banned, minus_infinity, logits)
    return ops.where(ops.less(minus_infinity, ops.max(without, -1)), without, logits)

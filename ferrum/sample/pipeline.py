"""How a token is chosen, the definition: processors change logits, filters mask them, and one number draws.

Owns: the one order: penalties → logit_bias → grammar masks and min_tokens → temperature → top_k → top_p → min_p →
typical_p → mirostat → draw (`ferrum.tensor.drawing`). `ferrum.sample.sampler` computes the same in less time.
Refuses to know: requests and scheduling.
Specs: SAMPLE-01 to SAMPLE-08, SAMPLE-14. Next: `ferrum.sample.edits`.
"""

from __future__ import annotations

from collections.abc import Sequence

from ferrum.sample.filters import (
    apply_min_p,
    apply_mirostat,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    apply_typical_p,
)
from ferrum.sample.processors import process
from ferrum.sample.randomness import random_unit
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.drawing import GREEDY_BELOW, draw
from ferrum.tensor.ops import Tensor


def is_greedy(params: SamplingParams) -> bool:
    return params.temperature < GREEDY_BELOW


def sample_by_definition(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """[rows, vocab] -> int64 [rows]: one token per row, chosen as states[row] says."""
    processed = process(ops, ops.cast(logits, "float64"), states)
    filtered = filter_logits(ops, processed, states)
    units = [[random_unit(state.seed, state.position)] for state in states]
    drawn = draw(ops, filtered, ops.asarray(units, "float64"))
    greedy = ops.asarray([is_greedy(state.params) for state in states], "bool")
    return ops.where(greedy, ops.argmax(processed, -1), drawn)


def filter_logits(ops: TensorOps, processed: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """float64 [rows, vocab] -> the same divided by the temperature, and -inf for what cannot be drawn. Rows that are
    greedy come out as if their temperature were 1."""
    params = [state.params for state in states]

    def column(values: Sequence[float], dtype: str = "float64") -> Tensor:
        return ops.asarray([[value] for value in values], dtype)

    x = apply_temperature(ops, processed, column([1.0 if is_greedy(p) else p.temperature for p in params]))
    x = apply_top_k(ops, x, column([p.top_k for p in params], "int64"))
    x = apply_top_p(ops, x, column([p.top_p for p in params]))
    x = apply_min_p(ops, x, column([p.min_p for p in params]))
    x = apply_typical_p(ops, x, column([p.typical_p for p in params]))
    return apply_mirostat(ops, x, column([state.most_surprise for state in states]))

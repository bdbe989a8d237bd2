"""How a token is chosen, the definition: edits change logits, filters mask them, and one random number draws.

Owns: the order of the pipeline, and the meaning of each step as a pure function on float64 logits [rows, vocab]:

    repetition_penalty → presence_penalty → frequency_penalty → logit_bias → grammar mask → min_tokens
    → temperature → top_n_sigma → top_k → top_p → min_p → typical_p → mirostat → draw

Temperature, top_k, top_p, min_p and the draw are defined in `ferrum.tensor.drawing`, because a backend may do them; the
other steps are defined here. This module is written to be read; `ferrum.sample.fast` computes the same tokens in less
time, and tests compare the two.
Refuses to know: requests and scheduling.
Specs: SAMPLE-01 to SAMPLE-08, SAMPLE-14, SAMPLE-17 to SAMPLE-24, SAMPLE-51, SAMPLE-52. Papers: CTRL 1909.05858
(repetition penalty), top-nσ 2411.07641, locally typical sampling 2202.00666, Mirostat 2007.14966 (its second version);
presence and frequency penalty as the documentation of OpenAI and vLLM defines them. Next: `ferrum.sample.fast`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence

import numpy as np

from ferrum.sample.randomness import random_unit
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.drawing import (
    GREEDY_BELOW,
    apply_min_p,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    draw,
    keep,
    ranks_of,
    total_of,
    until,
    weights_of,
)
from ferrum.tensor.ops import Tensor


def is_greedy(params: SamplingParams) -> bool:
    """True if the temperature is below 1e-5, which counts as 0: the token is the argmax, without filters and without a
    random number."""
    return params.temperature < GREEDY_BELOW


def sample_by_definition(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """[rows, vocab] -> int64 [rows]: one token for each row, by the parameters and the history in states[row].

    One random number in [0, 1) draws the token of a row, `random_unit(seed, position)` of `ferrum.sample.randomness`:

    - The seed is that of the choice. Choice 0 has the seed of the request. For choice k, Philox gets the counter
      (k, 1, 0, 0) and the seed of the request as key; it returns words w0, w1, … of 32 bits, and the seed is
      (w0 + w1 * 2**32) >> 16, which has 48 bits.
    - The position is that of the token to be drawn: the number of tokens before it, those of the prompt included.
    - Philox4x32-10 gets the counter (0, 0, low and high 32 bits of the position) and the key (low and high 32 bits of
      the seed). The number is the upper 24 bits of its first word, times 2**-24.
    - `draw` adds up the weights exp(x - largest x) of the filtered logits x in the order of token ids, in float64. The
      token is the first at which this running sum exceeds the random number times the sum of all weights."""
    edited = edit_logits(ops, ops.cast(logits, "float64"), states)
    filtered = filter_logits(ops, edited, states)
    units = [[random_unit(state.seed, state.position)] for state in states]
    drawn = draw(ops, filtered, ops.asarray(units, "float64"))
    greedy = ops.asarray([is_greedy(state.params) for state in states], "bool")
    return ops.where(greedy, ops.argmax(edited, -1), drawn)


def edit_logits(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """float64 [rows, vocab] -> [rows, vocab] after penalties, bias, grammar mask and min_tokens."""
    *_, (_, edited) = edits(ops, logits, states)
    return edited


def filter_logits(ops: TensorOps, edited: Tensor, states: Sequence[SamplingState]) -> Tensor:
    """float64 [rows, vocab] -> logits divided by the temperature, and -inf for each token that a filter removes. A
    greedy row is computed with temperature 1."""
    *_, (_, filtered) = filters(ops, edited, states)
    return filtered


def edits(ops: TensorOps, logits: Tensor, states: Sequence[SamplingState]) -> Iterator[tuple[str, Tensor]]:
    """float64 [rows, vocab] -> the name of each edit, in order, with the logits [rows, vocab] after it."""
    shape = tuple(logits.shape)
    seen, counts, bias = np.zeros(shape, np.bool_), np.zeros(shape), np.zeros(shape)
    allowed, banned = np.ones(shape, np.bool_), np.zeros(shape, np.bool_)
    for row, state in enumerate(states):
        seen[row, state.history.seen()] = True
        ids, often = state.history.counts()
        counts[row, ids] = often
        for token, value in state.params.logit_bias.items():
            bias[row, token] = value
        mask = state.allowed()
        if mask is not None:
            allowed[row] = mask
        banned[row, state.banned(shape[1])] = True

    def column(name: str) -> Tensor:
        return ops.asarray([[getattr(state.params, name)] for state in states], "float64")

    x = apply_repetition_penalty(ops, logits, ops.asarray(seen, "bool"), column("repetition_penalty"))
    yield "repetition_penalty", x
    x = apply_presence_penalty(ops, x, ops.asarray(counts > 0, "bool"), column("presence_penalty"))
    yield "presence_penalty", x
    x = apply_frequency_penalty(ops, x, ops.asarray(counts, "float64"), column("frequency_penalty"))
    yield "frequency_penalty", x
    x = apply_logit_bias(ops, x, ops.asarray(bias, "float64"))
    yield "logit_bias", x
    x = apply_mask(ops, x, ops.asarray(allowed, "bool"))
    yield "grammar", x
    yield "min_tokens", apply_ban(ops, x, ops.asarray(banned, "bool"))


def filters(ops: TensorOps, edited: Tensor, states: Sequence[SamplingState]) -> Iterator[tuple[str, Tensor]]:
    """float64 [rows, vocab] -> "temperature" and the name of each filter, in order, with the logits [rows, vocab] after
    it."""
    temperatures = [[1.0 if is_greedy(state.params) else state.params.temperature] for state in states]
    x = apply_temperature(ops, edited, ops.asarray(temperatures, "float64"))
    yield "temperature", x
    for name, apply in DEFINITIONS.items():
        settings = [[state.setting(name)] for state in states]
        x = apply(ops, x, ops.asarray(settings, "int64" if name == "top_k" else "float64"))
        yield name, x


# ---- edits


def apply_repetition_penalty(ops: TensorOps, logits: Tensor, seen: Tensor, penalty: Tensor) -> Tensor:
    """seen bool [rows, vocab], penalty [rows, 1] above 0: divides the positive logits of seen tokens by the penalty and
    multiplies the others, so that a penalty above 1 makes all of them less likely. Each token counts once, however
    often it was seen. `SamplingState` leaves out the tokens that end the text."""
    zero = ops.constant(0, "float64")
    penalised = ops.where(ops.less(zero, logits), ops.div(logits, penalty), ops.mul(logits, penalty))
    return ops.where(seen, penalised, logits)


def apply_presence_penalty(ops: TensorOps, logits: Tensor, occurs: Tensor, penalty: Tensor) -> Tensor:
    """occurs bool [rows, vocab], penalty [rows, 1]: subtracts the penalty from the logit of each generated token."""
    return ops.sub(logits, ops.mul(penalty, ops.cast(occurs, "float64")))


def apply_frequency_penalty(ops: TensorOps, logits: Tensor, counts: Tensor, penalty: Tensor) -> Tensor:
    """counts float64 [rows, vocab], penalty [rows, 1]: subtracts the penalty as often as the token was generated."""
    return ops.sub(logits, ops.mul(penalty, counts))


def apply_logit_bias(ops: TensorOps, logits: Tensor, bias: Tensor) -> Tensor:
    """bias [rows, vocab]: added to the logits; 0 for a token without bias."""
    return ops.add(logits, bias)


def apply_mask(ops: TensorOps, logits: Tensor, allowed: Tensor) -> Tensor:
    """allowed bool [rows, vocab]: -inf where it is False."""
    return ops.where(allowed, logits, ops.constant(-math.inf, "float64"))


def apply_ban(ops: TensorOps, logits: Tensor, banned: Tensor) -> Tensor:
    """banned bool [rows, vocab]: -inf where it is True, unless that would leave no token in the row."""
    minus_infinity = ops.constant(-math.inf, "float64")
    without = ops.where(banned, minus_infinity, logits)
    return ops.where(ops.less(minus_infinity, ops.max(without, -1)), without, logits)


# ---- filters; top_k, top_p and min_p are in `ferrum.tensor.drawing`


def apply_top_n_sigma(ops: TensorOps, logits: Tensor, count: Tensor) -> Tensor:
    """float64 [rows, 1]: keeps the tokens whose logit is at most `count` standard deviations below the largest one; 0
    keeps all tokens. Mean and deviation are those of the finite logits. Logits and deviation are divided by the same
    temperature, so that it does not change what is kept."""
    zero = ops.constant(0, "float64")
    possible = ops.less(ops.constant(-math.inf, "float64"), logits)
    number = total_of(ops, ops.cast(possible, "float64"))
    mean = ops.div(total_of(ops, ops.where(possible, logits, zero)), number)
    deviation = ops.where(possible, ops.sub(logits, mean), zero)
    variance = ops.div(total_of(ops, ops.mul(deviation, deviation)), number)
    gap = ops.sub(ops.max(logits, -1), logits)
    is_far = ops.less(ops.mul(ops.mul(count, count), variance), ops.mul(gap, gap))  # as gap > count * sqrt(variance)
    kept = ops.equal(is_far, ops.constant(0, "bool"))
    return keep(ops, logits, kept, ops.equal(count, zero))


def apply_typical_p(ops: TensorOps, logits: Tensor, typical_p: Tensor) -> Tensor:
    """float64 [rows, 1]: keeps the tokens whose surprise is closest to the entropy of the distribution, until their
    probability reaches typical_p; the token that crosses the boundary stays. 1 keeps all tokens."""
    weights, surprise = weights_of(ops, logits), surprise_of(ops, logits)
    zero = ops.constant(0, "float64")
    shares = ops.div(weights, total_of(ops, weights))
    finite = ops.where(ops.equal(weights, zero), zero, surprise)  # a token without weight adds 0, not 0 * infinity
    entropy = total_of(ops, ops.mul(shares, finite))
    distance = ops.sub(surprise, entropy)
    closeness = ops.sub(zero, ops.maximum(distance, ops.sub(zero, distance)))  # the largest is the most typical
    kept = until(ops, ops.take_along(weights, ops.argsort(closeness)), ops.mul(typical_p, total_of(ops, weights)))
    off = ops.equal(typical_p, ops.constant(1, "float64"))
    return keep(ops, logits, ops.take_along(kept, ranks_of(ops, closeness)), off)


def apply_mirostat(ops: TensorOps, logits: Tensor, most_surprise: Tensor) -> Tensor:
    """float64 [rows, 1], bits: keeps the tokens of at most that surprise, and always the most probable one; infinity
    keeps all tokens."""
    surprise = ops.div(surprise_of(ops, logits), ops.constant(math.log(2), "float64"))
    kept = ops.equal(ops.less(most_surprise, surprise), ops.constant(0, "bool"))
    return keep(ops, logits, kept, ops.equal(logits, ops.max(logits, -1)))


def surprise_of(ops: TensorOps, logits: Tensor) -> Tensor:
    """[rows, vocab] -> -log of each token's probability, in nats; infinity for a token without probability."""
    zero = ops.constant(0, "float64")
    shifted = ops.sub(logits, ops.max(logits, -1))
    return ops.sub(zero, ops.sub(shifted, ops.log(total_of(ops, weights_of(ops, logits)))))


DEFINITIONS: Mapping[str, Callable[[TensorOps, Tensor, Tensor], Tensor]] = {
    "top_n_sigma": apply_top_n_sigma,
    "top_k": apply_top_k,
    "top_p": apply_top_p,
    "min_p": apply_min_p,
    "typical_p": apply_typical_p,
    "mirostat": apply_mirostat,
}
"""The filters in the order in which they are applied. Each gets the logits and one setting for each row: float64
[rows, 1], and int64 for top_k."""

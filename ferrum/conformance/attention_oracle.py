"""Paged attention and the pool, by a loop over tokens.

Owns: which positions a query attends to (causal or not, windowed, grouped, soft-capped), and where a position lies in
the pool. There is no mask and no padding: each query gathers exactly its own positions. Refuses to know:
`ferrum.tensor`, backends.
Specs: OPS-30 to OPS-36. Next: `ferrum.conformance.weight_oracle`.
"""

from __future__ import annotations

import numpy as np

from ferrum.conformance.oracles import Array, Expected


def gather(keys: Array, values: Array, table: tuple[int, ...], context: int) -> tuple[Array, Array]:
    """Pool arrays [blocks, kv_heads, head_dim, block_size] and [blocks, kv_heads, block_size, head_dim], and the blocks
    of one sequence -> its keys and values [context, kv_heads, head_dim]."""
    size = keys.shape[3]
    places = [(table[position // size], position % size) for position in range(context)]
    own_keys = np.stack([keys[block, :, :, offset] for block, offset in places])
    own_values = np.stack([values[block, :, offset, :] for block, offset in places])
    return own_keys.astype(np.float64), own_values.astype(np.float64)


def attend(
    query: Array,  # [heads, head_dim]
    keys: Array,  # [visible, kv_heads, head_dim]
    values: Array,  # [visible, kv_heads, head_dim]
    scale: float,
    softcap: float | None,
    sinks: Array | None,  # [heads]
) -> tuple[Array, Array]:  # value and magnitude, [heads, head_dim]
    """One query over its visible positions, and over one more position without a value, whose score is its head's
    sink."""
    heads, head_dim = query.shape
    kv_heads = keys.shape[1]
    grouped = query.reshape(kv_heads, heads // kv_heads, head_dim)
    scores = scale * np.einsum("kgd,jkd->kgj", grouped, keys)
    sizes = abs(scale) * np.einsum("kgd,jkd->kgj", abs(grouped), abs(keys))
    if softcap is not None:
        scores = softcap * np.tanh(scores / softcap)
        # a tanh made of exponentials has the absolute error of its largest value, even where it is small
        sizes = sizes + softcap
    if sinks is not None:
        sink_scores = sinks.reshape(kv_heads, -1, 1)
        scores, sizes = np.concatenate((scores, sink_scores), -1), np.concatenate((sizes, np.abs(sink_scores)), -1)
        values = np.concatenate((values, np.zeros_like(values[:1])))
    weights = np.exp(scores - scores.max(-1, keepdims=True))
    weights /= weights.sum(-1, keepdims=True)
    mixed = np.einsum("kgj,jkd->kgd", weights, values)
    # an error d of a score changes its weight by d, and the normalisation by as much again
    blur = 1 + 2 * sizes.max(-1, keepdims=True)  # [kv_heads, group, 1]
    magnitude = np.einsum("kgj,jkd->kgd", weights, abs(values)) * blur
    return mixed.reshape(heads, head_dim), magnitude.reshape(heads, head_dim)


def paged_attention(
    query: Array,  # [tokens, heads, head_dim]
    contexts: list[tuple[Array, Array]],  # per sequence: keys and values [context, kv_heads, head_dim]
    counts: tuple[int, ...],  # per sequence: the number of its new queries
    scale: float,
    window: int | None,
    softcap: float | None,
    sinks: Array | None = None,
    causal: bool = True,
) -> Expected:  # [tokens, heads, head_dim]
    value, magnitude = np.empty(query.shape), np.empty(query.shape)
    token = 0
    for (keys, values), count in zip(contexts, counts, strict=True):
        for position in range(len(keys) - count, len(keys)):
            first = 0 if window is None else max(0, position - window + 1)
            last = position if causal else len(keys) - 1 if window is None else position + window - 1
            visible = slice(first, last + 1)
            value[token], magnitude[token] = attend(query[token], keys[visible], values[visible], scale, softcap, sinks)
            token += 1
    longest = max(len(keys) for keys, _ in contexts)
    return Expected(value, magnitude, max(longest, query.shape[2]))

"""Paged attention, the definition: gather each sequence's blocks, mask, softmax, weigh the values.

Owns: what grouped, windowed, soft-capped attention, causal or not, over a block table means. Slow and obvious on
purpose. Refuses to know: who owns the blocks.
Specs: OPS-30 to OPS-34, OPS-37, OPS-46, OPS-69. Papers: GQA 2305.13245, PagedAttention 2309.06180, sinks 2309.17453.
Next: `ferrum.tensor.experts`.
"""

from __future__ import annotations

import math
from dataclasses import replace
from itertools import pairwise
from typing import TYPE_CHECKING

from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps


def paged_attention(
    ops: TensorOps,
    query: Tensor,  # [tokens, heads, head_dim]
    attention: Attention,
    layer: KvLayer,
    batch: StepBatch,
) -> Tensor:  # [tokens, heads, head_dim]
    """Every query attends to the positions of its own sequence up to its own (causal) or to all that are written, those
    of this step among them; with a window only to those less than `window` away. Query head h reads key/value head
    h // (heads / kv_heads). Scores are scaled, then soft-capped: softcap * tanh(score / softcap); a sink is one more
    score, whose value is 0. Slots past the context are never read: they may hold anything, NaN included."""
    query, scale = layer.asked(ops, query, attention.scale)
    attention = replace(attention, scale=scale)
    counts = [end - start for start, end in pairwise(batch.starts)]
    tables = ops.split(batch.block_tables, [1] * len(counts), 0)  # [1, max blocks] each
    outputs = []
    for own, table, context, count in zip(ops.split(query, counts, 0), tables, batch.contexts, counts, strict=True):
        keys, values = gather_context(ops, layer, ops.reshape(table, (-1,)), context)
        first = context - count
        for queries in ops.split(own, together(ops, count), 0):
            size = queries.shape[0]
            end = first + size if attention.causal else context
            # what the last of them does not see is cut off: a masked position weighs nothing, but lengthens the sums
            seen_keys, seen_values = (ops.split(x, (end, context - end), 1)[0] for x in (keys, values))
            visible = visibility(ops, first, size, end, attention)
            outputs.append(attend(ops, queries, seen_keys, seen_values, visible, attention))
            first += size
    return ops.concat(outputs, 0)


def together(ops: TensorOps, count: int) -> list[int]:
    """How many of a sequence's `count` new queries attend together: all, or one by one where a query's bits may not
    depend on the chunk that it came in."""
    return [1] * count if ops.deterministic and count > 0 else [count]


def gather_context(ops: TensorOps, layer: KvLayer, table: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """-> keys and values [kv_heads, context, head_dim] of one sequence, from its block table int32 [max blocks]."""
    used = math.ceil(context / layer.block_size)
    return layer.read(ops, ops.split(table, (used, table.shape[0] - used), 0)[0], context)


def visibility(ops: TensorOps, first: int, count: int, context: int, attention: Attention) -> Tensor:
    """-> bool [count, context]: may query i, at position first + i, see position j?"""
    positions = ops.arange(context, "int64")
    query_position = ops.reshape(ops.split(positions, (first, count, context - first - count), 0)[1], (count, 1))
    key_position = ops.reshape(positions, (1, context))
    distance = ops.sub(query_position, key_position)  # [count, context], 0 for the query's own position
    visible = ops.broadcast_to(ops.constant(True, "bool"), (count, context))
    window, least = attention.window, 0 if attention.causal else None
    if window is not None:
        visible = ops.bitwise_and(visible, ops.less(distance, ops.constant(window, "int64")))
        least = 0 if attention.causal else 1 - window
    if least is not None:
        visible = ops.bitwise_and(visible, ops.less(ops.constant(least - 1, "int64"), distance))
    return visible


def attend(
    ops: TensorOps,
    query: Tensor,  # [count, heads, head_dim]
    keys: Tensor,  # [kv_heads, context, head_dim]
    values: Tensor,  # [kv_heads, context, head_dim]
    visible: Tensor,  # bool [count, context]
    attention: Attention,
) -> Tensor:  # [count, heads, head_dim]
    count, heads, head_dim = query.shape
    kv_heads, context, _ = keys.shape
    group = heads // kv_heads
    grouped = ops.permute(ops.reshape(query, (count, kv_heads, group, head_dim)), (1, 2, 0, 3))
    stacked = ops.reshape(grouped, (kv_heads, group * count, head_dim))  # the query heads that share a key head
    scores = ops.mul(ops.matmul(stacked, ops.transpose(keys)), ops.scalar(attention.scale))
    scores = ops.reshape(scores, (kv_heads, group, count, context))
    if attention.softcap is not None:
        scores = ops.softcapped(scores, attention.softcap)
    scores = ops.where(visible, scores, ops.scalar(-math.inf))
    weights = softmax_beside(ops, scores, attention.sinks)
    weights = ops.reshape(weights, (kv_heads, group * count, context))
    mixed = ops.reshape(ops.matmul(weights, values), (kv_heads, group, count, head_dim))
    return ops.reshape(ops.permute(mixed, (2, 0, 1, 3)), (count, heads, head_dim))


def softmax_beside(ops: TensorOps, scores: Tensor, sinks: Tensor | None) -> Tensor:
    """scores [kv_heads, group, count, context], sinks [heads] -> weights of the same shape, whose sum with that of the
    sink is 1."""
    if sinks is None:
        return ops.softmax(scores)
    kv_heads, group, count, context = scores.shape
    column = ops.broadcast_to(ops.reshape(sinks, (kv_heads, group, 1, 1)), (kv_heads, group, count, 1))
    return ops.split(ops.softmax(ops.concat((scores, column), -1)), (context, 1), -1)[0]

"""Paged attention, the definition: gather each sequence's blocks, mask, softmax, weigh the values.

Owns: the meaning of attention over a block table: grouped queries, windows, soft caps, sinks, causal or not. This code
is slow and plain on purpose: kernels are compared with it. Refuses to know: which sequence holds which blocks.
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
    """Every query attends to positions of its own sequence: to those up to its own if attention is causal, else to all
    that are written, this step's included. With a window, only to positions less than `window` away.

    Query head h reads key/value head h // (heads / kv_heads). Scores are multiplied by the scale, then soft-capped:
    softcap * tanh(score / softcap). A sink is one more score, whose value is 0. Slots past the context are never read:
    they may hold anything, NaN included.
    """
    query, scale = layer.prepared_query(ops, query, attention.scale)
    attention = replace(attention, scale=scale)
    counts = [end - start for start, end in pairwise(batch.starts)]  # new tokens of each sequence
    queries_of = ops.split(query, counts, 0)
    tables = ops.split(batch.block_tables, [1] * len(counts), 0)  # [1, max blocks] each
    outputs = []
    for sequence_queries, table, context, count in zip(queries_of, tables, batch.contexts, counts, strict=True):
        keys, values = gather_context(ops, layer, ops.reshape(table, (-1,)), context)
        first = context - count  # the position of the next query
        for queries in ops.split(sequence_queries, query_groups(ops, count), 0):
            size = queries.shape[0]
            end = first + size if attention.causal else context
            # Keys after the last query are cut off. Masked they would add 0, but change the order of additions.
            near_keys, near_values = (ops.split(x, (end, context - end), 1)[0] for x in (keys, values))
            visible = visibility(ops, first, size, end, attention)
            outputs.append(attend(ops, queries, near_keys, near_values, visible, attention))
            first += size
    return ops.concat(outputs, 0)


def query_groups(ops: TensorOps, count: int) -> list[int]:
    """The sizes of the groups in which a sequence's `count` new queries attend: one group of all; in deterministic mode
    groups of one, so that the bits of a query's result do not depend on the chunk that contains it."""
    return [1] * count if ops.deterministic and count > 0 else [count]


def gather_context(ops: TensorOps, layer: KvLayer, table: Tensor, context: int) -> tuple[Tensor, Tensor]:
    """-> keys and values [kv_heads, context, head_dim] of one sequence, from its block table int32 [max blocks]."""
    used = math.ceil(context / layer.block_size)
    return layer.read(ops, ops.split(table, (used, table.shape[0] - used), 0)[0], context)


def visibility(ops: TensorOps, first: int, count: int, context: int, attention: Attention) -> Tensor:
    """-> bool [count, context]: True where query i, which stands at position first + i, attends to position j."""
    positions = ops.arange(context, "int64")
    query_position = ops.reshape(ops.split(positions, (first, count, context - first - count), 0)[1], (count, 1))
    key_position = ops.reshape(positions, (1, context))
    distance = ops.sub(query_position, key_position)  # [count, context]; 0 for the query's own position
    visible = ops.broadcast_to(ops.constant(True, "bool"), (count, context))
    if attention.causal:
        visible = ops.bitwise_and(visible, ops.less(ops.constant(-1, "int64"), distance))
    if attention.window is not None:
        visible = ops.bitwise_and(visible, ops.less(distance, ops.constant(attention.window, "int64")))
        visible = ops.bitwise_and(visible, ops.less(ops.constant(-attention.window, "int64"), distance))
    return visible


def attend(
    ops: TensorOps,
    query: Tensor,  # [count, heads, head_dim]
    keys: Tensor,  # [kv_heads, context, head_dim]
    values: Tensor,  # [kv_heads, context, head_dim]
    visible: Tensor,  # bool [count, context]
    attention: Attention,
) -> Tensor:  # [count, heads, head_dim]
    """softmax(query · keysᵀ * scale, masked) · values, for the queries of one sequence. The query heads that share a
    key/value head are stacked, so that each key/value head takes part in one product."""
    count, heads, head_dim = query.shape
    kv_heads, context, _ = keys.shape
    group = heads // kv_heads  # query heads of each key/value head
    grouped = ops.permute(ops.reshape(query, (count, kv_heads, group, head_dim)), (1, 2, 0, 3))
    stacked = ops.reshape(grouped, (kv_heads, group * count, head_dim))
    scores = ops.mul(ops.matmul(stacked, ops.transpose(keys)), ops.scalar(attention.scale))
    scores = ops.reshape(scores, (kv_heads, group, count, context))
    if attention.softcap is not None:
        scores = ops.softcapped(scores, attention.softcap)
    scores = ops.where(visible, scores, ops.scalar(-math.inf))
    weights = softmax_with_sinks(ops, scores, attention.sinks)
    weights = ops.reshape(weights, (kv_heads, group * count, context))
    mixed = ops.reshape(ops.matmul(weights, values), (kv_heads, group, count, head_dim))
    return ops.reshape(ops.permute(mixed, (2, 0, 1, 3)), (count, heads, head_dim))


def softmax_with_sinks(ops: TensorOps, scores: Tensor, sinks: Tensor | None) -> Tensor:
    """scores [kv_heads, group, count, context], sinks [heads] or None -> weights of the scores' shape. The weights of a
    query and the weight of its head's sink add up to 1; the weight of the sink is dropped."""
    if sinks is None:
        return ops.softmax(scores)
    kv_heads, group, count, context = scores.shape
    column = ops.broadcast_to(ops.reshape(sinks, (kv_heads, group, 1, 1)), (kv_heads, group, count, 1))
    return ops.split(ops.softmax(ops.concat((scores, column), -1)), (context, 1), -1)[0]

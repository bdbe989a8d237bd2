"""ONNX's Attention as the engine does it: keys and values written into a shuffled pool, then paged attention.

Owns: which queries are a sequence, and what a mask means. Causal attention, also with what came before, is one sequence
per batch row, of as many positions as its last query sees. Elsewhere, where each query sees a run of neighbours, each
is a sequence of its own, or all are one that is not causal. Masks with holes go through `attend`, which is what paged
attention does with each sequence. Slots that were not written are NaN.
Refuses to know: other operators. Specs: SUITE-13. Next: `benchmarks/suites/onnx_nodes.py`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np

from ferrum.tensor.attention import attend
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from ferrum.tensor.weights import Dense, Linear

from .onnx_node import Host, Node, place, real

Ops = Any
BLOCK_SIZE = 4


@dataclass(frozen=True)
class Asked:
    """What a node asks for. All host arrays are [batch, heads, positions, width], past and new keys together."""

    query: Host
    keys: Host
    values: Host
    visible: Host  # bool [batch, heads, queries, keys]
    past: int
    flat: bool  # heads lie side by side, in the query and in the answer


def attention(ops: Ops, node: Node) -> Sequence[Tensor]:
    asked = read(node)
    found = ops.cast(answer(ops.ops, node, asked), ops.float_dtype)  # [batch, heads, queries, width]
    if asked.flat:
        batch, heads, queries, width = found.shape
        found = ops.reshape(ops.permute(found, (0, 2, 1, 3)), (batch, queries, heads * width))
    return found, place(ops, asked.keys), place(ops, asked.values), *scores(ops, node, asked)


def read(node: Node) -> Asked:
    query, keys, values = (node.host(index) for index in range(3))
    flat = query.ndim == 3
    if flat:
        heads = (node.get("q_num_heads", 0), *[node.get("kv_num_heads", 0)] * 2)
        query, keys, values = (
            x.reshape(*x.shape[:2], count, -1).transpose(0, 2, 1, 3)
            for x, count in zip((query, keys, values), heads, strict=True)
        )
    past = node.host(4).shape[2] if node.has(4) else 0
    if past:
        keys, values = (np.concatenate((node.host(at), x), 2) for at, x in ((4, keys), (5, values)))
    shape = (*query.shape[:3], keys.shape[2])
    return Asked(query, keys, values, visibility(node, shape, past), past, flat)


def visibility(node: Node, shape: tuple[int, ...], past: int) -> Host:
    """-> bool of that shape: all of a node's ways to hide a key, together."""
    batch, _, queries, keys = shape
    visible = np.ones(shape, bool)
    if node.has(3):
        mask = node.host(3)
        if mask.dtype != bool:
            if not ((mask == 0) | np.isneginf(mask)).all():
                raise node.refuse("with numbers added to scores")
            mask = mask == 0
        visible &= np.pad(mask, [(0, 0)] * (mask.ndim - 1) + [(0, keys - mask.shape[-1])])
    first = np.full((batch, 1, 1, 1), past)  # position of the first query
    if node.has(6):
        written = node.host(6).reshape(batch, 1, 1, 1)
        visible &= np.arange(keys) < written
        first = written - queries
    away = first + np.arange(queries).reshape(-1, 1) - np.arange(keys)  # from the query back to the key
    if node.get("is_causal", 0):
        visible &= away >= 0
    left, right = node.get("left_window_size", -1), node.get("right_window_size", -1)
    if left >= 0:
        visible &= away <= left
    if right >= 0:
        visible &= -away <= right
    return visible


def part(ops: TensorOps, node: Node, asked: Asked, window: int | None, causal: bool) -> Attention:
    unused = Linear(Dense(ops.zeros((1, 1), "float32")))
    scale = node.get("scale", None) or asked.query.shape[3] ** -0.5
    width = max(asked.keys.shape[3], asked.values.shape[3])
    softcap = node.get("softcap", 0.0) or None
    return Attention(unused, unused, unused, unused, width, scale, window, softcap, causal=causal)


def answer(ops: TensorOps, node: Node, asked: Asked) -> Tensor:
    """-> [batch, heads, queries, width of values]"""
    rows = [row_answer(ops, node, asked, row) for row in range(len(asked.query))]
    return ops.concat([ops.reshape(row, (1, *row.shape)) for row in rows], 0)


def row_answer(ops: TensorOps, node: Node, asked: Asked, row: int) -> Tensor:
    """One batch row -> [heads, queries, width of values]"""
    visible, own = asked.visible[row], asked.values.shape[3]
    alike = (visible == visible[:1]).all()
    ranges = [run_of(seen) for seen in visible[0]] if alike else [None]
    if any(each is None for each in ranges):
        found = masked(ops, node, asked, row)
    else:
        found = paged(ops, node, asked, row, [each for each in ranges if each is not None])
    found = ops.split(found, (own, found.shape[2] - own), 2)[0]  # [queries, heads, width of values]
    return ops.permute(found, (1, 0, 2))


def run_of(seen: Host) -> tuple[int, int] | None:
    """The first and the last + 1 of neighbours that are seen; None where there are holes, or nothing."""
    places = np.flatnonzero(seen)
    if len(places) == 0 or places[-1] - places[0] + 1 != len(places):
        return None
    return int(places[0]), int(places[-1]) + 1


def padded(values: Host, width: int) -> Host:
    """Zeros behind keys and queries change no score, and those behind values are cut off again."""
    return np.pad(values, [(0, 0)] * (values.ndim - 1) + [(0, width - values.shape[-1])])


def masked(ops: TensorOps, node: Node, asked: Asked, row: int) -> Tensor:
    """-> [queries, heads, width]: head by head, since masks may differ."""
    settings = part(ops, node, asked, None, False)
    heads, group = asked.query.shape[1], asked.query.shape[1] // asked.keys.shape[1]
    found = []
    for head in range(heads):
        query, keys, values = (
            real(ops, padded(x[row, at], settings.head_dim))
            for x, at in ((asked.query, head), (asked.keys, head // group), (asked.values, head // group))
        )
        query = ops.reshape(query, (query.shape[0], 1, query.shape[1]))
        keys, values = (ops.reshape(x, (1, *x.shape)) for x in (keys, values))
        found.append(attend(ops, query, keys, values, place(ops, asked.visible[row, head]), settings))
    return ops.concat(found, 1)


def paged(ops: TensorOps, node: Node, asked: Asked, row: int, ranges: Sequence[tuple[int, int]]) -> Tensor:
    """-> [queries, heads, width]"""
    count, keys = len(ranges), asked.keys.shape[2]
    causal = [end for _, end in ranges] == list(range(ranges[-1][1] - count + 1, ranges[-1][1] + 1))
    left = node.get("left_window_size", -1)
    window = left + 1 if left >= 0 else None
    if causal and all(start == (0 if window is None else max(0, end - window)) for start, end in ranges):
        return stepped(ops, node, asked, row, [(0, ranges[-1][1], count)], window, True)
    if all(each == (0, keys) for each in ranges) and count <= keys:
        return stepped(ops, node, asked, row, [(0, keys, count)], None, False)
    symmetric = window is not None and count == keys and node.get("right_window_size", -1) == left
    if symmetric and not node.has(3):
        return stepped(ops, node, asked, row, [(0, keys, count)], window, False)
    return stepped(ops, node, asked, row, [(start, end, 1) for start, end in ranges], None, True)


def stepped(
    ops: TensorOps,
    node: Node,
    asked: Asked,
    row: int,
    sequences: Sequence[tuple[int, int, int]],  # first and last + 1 of the keys that are its own, and how many queries
    window: int | None,
    causal: bool,
) -> Tensor:
    """One step of sequences whose positions lie in blocks all over the pool."""
    settings = part(ops, node, asked, window, causal)
    contexts = [end - start for start, end, _ in sequences]
    counts = [count for _, _, count in sequences]
    needed = [math.ceil(context / BLOCK_SIZE) for context in contexts]
    order = np.random.default_rng(row).permutation(sum(needed) + 1)
    tables = np.full((len(sequences), max(needed) + 1), order[-1], np.int32)
    blocks = iter(order)
    for table, size in zip(tables, needed, strict=True):
        table[:size] = [next(blocks) for _ in range(size)]
    layer = pool(ops, asked, len(order), settings.head_dim)
    for (start, end, _), table in zip(sequences, tables, strict=True):
        places = np.arange(end - start)
        slots = (table[places // BLOCK_SIZE] * BLOCK_SIZE + places % BLOCK_SIZE).astype(np.int32)
        keys, values = (
            real(ops, padded(x[row, :, start:end], settings.head_dim).transpose(1, 0, 2))
            for x in (asked.keys, asked.values)
        )
        ops.kv_write(layer, keys, values, ops.asarray(slots, "int32"))
    query = real(ops, padded(asked.query[row], settings.head_dim).transpose(1, 0, 2))
    return ops.paged_attention(query, settings, layer, step_batch(ops, contexts, counts, tables))


def pool(ops: TensorOps, asked: Asked, blocks: int, width: int) -> KvLayer:
    """An array of the node's floating-point type, filled with NaN."""
    name = asked.keys.dtype.name
    shape = (blocks, asked.keys.shape[1])
    keys, values = ((*shape, width, BLOCK_SIZE), (*shape, BLOCK_SIZE, width))
    return KvLayer(ops.full(keys, math.nan, name), ops.full(values, math.nan, name))


def step_batch(ops: TensorOps, contexts: Sequence[int], counts: Sequence[int], tables: Host) -> StepBatch:
    """Slots and logits have no say in what paged attention does."""
    starts = np.concatenate(([0], np.cumsum(counts)))
    pairs = list(zip(contexts, counts, strict=True))
    positions = [position for context, count in pairs for position in range(context - count, context)]
    unused = np.zeros(len(positions))
    fields = (unused, positions, unused, starts, contexts, tables, starts[1:] - 1)
    placed = (ops.asarray(np.array(field, np.int32), "int32") for field in fields)
    return StepBatch(*placed, starts=starts.tolist(), contexts=list(contexts))


def scores(ops: Ops, node: Node, asked: Asked) -> Sequence[Tensor]:
    """What lies between queries and the answer, by its primitives, where a node asks for it."""
    if not node.wants(3):
        return ()
    settings = part(ops.ops, node, asked, None, False)
    group = asked.query.shape[1] // asked.keys.shape[1]
    keys = ops.transpose(real(ops, np.repeat(asked.keys, group, 1)))
    found = ops.mul(ops.matmul(real(ops, asked.query), keys), ops.scalar(settings.scale))
    mode = node.get("qk_matmul_output_mode", 0)
    if mode >= 1 and settings.softcap is not None:
        found = ops.softcapped(found, settings.softcap)
    if mode >= 2:
        found = ops.where(place(ops, asked.visible), found, ops.scalar(-math.inf))
    return (ops.softmax(found) if mode == 3 else found,)

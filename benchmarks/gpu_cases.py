"""What `gpu_bench.py` measures one by one: the operations of a decoder in the sizes of a model.

A case says how many bytes must cross the memory once (weights, keys, activations, results), or how many operations must
be done, whichever is the bound of its kind; the share is that of what `bounds` measured.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import numpy as np
from gpu_measure import Sizes, copies

from ferrum.backends.cupy_backend import CupyOps
from ferrum.config import ModelConfig
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.k_quants import Q4_K, Q6_K
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.parts import Attention, Norm
from ferrum.tensor.weights import Q4_0, Q8_0, Dense, Linear, Weight
from ferrum.testing.blocks import random_blocks

BLOCK_TYPES = {kind.kind: kind for kind in (Q8_0, Q4_0, Q4_K, Q6_K)}
FORMATS = ("bfloat16", *BLOCK_TYPES)
BLOCK_SIZE = 16


@dataclass(frozen=True)
class Case:
    """`runs`: the same on inputs that take turns."""

    name: str
    runs: tuple[Callable[[], Any], ...]
    bytes: int = 0
    operations: int = 0


@dataclass(frozen=True)
class Lengths:
    """Of batches, prompts and contexts."""

    batches: tuple[int, ...] = (1, 8, 32)
    prompts: tuple[int, ...] = (512, 2048)
    context: int = 2048


class Maker:
    """Inputs on a device, made of few random numbers: a big one repeats them."""

    def __init__(self, ops: CupyOps, model: ModelConfig, sizes: Sizes) -> None:
        self.ops, self.model, self.sizes = ops, model, sizes
        self._random = np.random.default_rng(0)

    def floats(self, *shape: int, dtype: str = "float32") -> Any:
        count = int(np.prod(shape))
        few = self._random.standard_normal(min(count, 1 << 20), np.float32).astype(host_dtype(dtype))
        return self.ops.device.upload(np.resize(few, shape))

    def weight(self, kind: str, rows: int, columns: int) -> Weight:
        if kind not in BLOCK_TYPES:
            return Dense(self.floats(rows, columns, dtype=kind))
        block = BLOCK_TYPES[kind]
        few = random_blocks(kind, (min(rows, 64), columns), self._random, size=columns**-0.5)
        return block(self.ops.device.upload(np.resize(few, (rows, few.shape[1]))))

    def weights(self, kind: str, rows: int, columns: int) -> list[Weight]:
        first = self.weight(kind, rows, columns)
        more = copies(first.data.nbytes, self.sizes) - 1
        return [first, *(self.weight(kind, rows, columns) for _ in range(more))]


def cases(maker: Maker, lengths: Lengths) -> Iterator[Callable[[], Case]]:
    """Each is made when it is called, and its memory goes with it."""
    model, few = maker.model, [count for count in lengths.batches if count <= 8]
    for kind in FORMATS:
        for tokens in few:
            yield lambda kind=kind, tokens=tokens: linear(maker, kind, tokens, model.hidden_size, model.hidden_size)
        yield lambda kind=kind: linear(maker, kind, 1, model.intermediate_size, model.hidden_size)
        yield lambda kind=kind: linear(maker, kind, 1, model.hidden_size, model.intermediate_size)
        yield lambda kind=kind: linear(maker, kind, 1, model.vocab_size, model.hidden_size)
    for tokens in lengths.prompts:
        for kind in ("bfloat16", "q4_0"):
            yield lambda kind=kind, tokens=tokens: linear(
                maker, kind, tokens, model.intermediate_size, model.hidden_size
            )
    for tokens in (*lengths.batches, *lengths.prompts):
        yield lambda tokens=tokens: norm(maker, tokens)
    for count in lengths.batches:
        yield lambda count=count: attend(maker, [1] * count, lengths.context)
        yield lambda count=count: argmax(maker, count)
        yield lambda count=count: choose(maker, count)
    for tokens in lengths.prompts:
        yield lambda tokens=tokens: attend(maker, [tokens], tokens)


def linear(maker: Maker, kind: str, tokens: int, rows: int, columns: int) -> Case:
    ops, x = maker.ops, maker.floats(tokens, columns)
    linears = [Linear(weight) for weight in maker.weights(kind, rows, columns)]
    moved = linears[0].weight.data.nbytes + 4 * tokens * (rows + columns)
    runs = tuple(lambda one=one: ops.linear(x, one) for one in linears)
    return Case(f"linear {kind} [{rows}, {columns}], {tokens} tokens", runs, moved, 2 * tokens * rows * columns)


def norm(maker: Maker, tokens: int) -> Case:
    ops, hidden = maker.ops, maker.model.hidden_size
    xs = [maker.floats(tokens, hidden) for _ in range(copies(4 * tokens * hidden, maker.sizes))]
    one = Norm(maker.floats(hidden), 1e-5)
    runs = tuple(lambda x=x: ops.normed(x, one) for x in xs)
    return Case(f"norm [{tokens}, {hidden}]", runs, 8 * tokens * hidden)


def argmax(maker: Maker, count: int) -> Case:
    ops, vocab = maker.ops, maker.model.vocab_size
    xs = [maker.floats(count, vocab) for _ in range(copies(4 * count * vocab, maker.sizes))]
    return Case(f"argmax [{count}, {vocab}]", tuple(lambda x=x: ops.argmax(x, -1) for x in xs), 4 * count * vocab)


def choose(maker: Maker, count: int) -> Case:
    ops, vocab = maker.ops, maker.model.vocab_size
    xs = [maker.floats(count, vocab) for _ in range(copies(4 * count * vocab, maker.sizes))]
    settings = ops.device.upload(np.array([[0.8, 50, 0.9, 0, 0.5]] * count))  # as `ops.choose` says
    return Case(f"choose [{count}, {vocab}]", tuple(lambda x=x: ops.choose(x, settings) for x in xs), 4 * count * vocab)


def attend(maker: Maker, new: list[int], context: int) -> Case:
    """Sequences of one length with so many new tokens each, whose keys and values are there."""
    ops, model, count = maker.ops, maker.model, len(new)
    blocks = -(-context // BLOCK_SIZE)
    kv = (count * blocks, model.kv_heads)
    sides = (model.head_dim, BLOCK_SIZE), (BLOCK_SIZE, model.head_dim)
    one = 2 * 2 * count * blocks * BLOCK_SIZE * model.kv_heads * model.head_dim
    layers = [KvLayer(*(maker.floats(*kv, *side, dtype="bfloat16") for side in sides))
              for _ in range(copies(one, maker.sizes))]  # fmt: skip
    nothing = Linear(Dense(maker.floats(1, 1)))
    attention = Attention(nothing, nothing, nothing, nothing, model.head_dim, model.head_dim**-0.5)
    batch = batch_of(maker, new, context, blocks)
    query = maker.floats(sum(new), model.heads, model.head_dim)
    runs = tuple(lambda layer=layer: ops.paged_attention(query, attention, layer, batch) for layer in layers)
    seen = sum(length * (2 * context - length + 1) // 2 for length in new)
    name = f"attention, {count} sequences, {new[0]} new of {context}"
    return Case(name, runs, one + 2 * query.nbytes, 4 * seen * model.heads * model.head_dim)


def batch_of(maker: Maker, new: list[int], context: int, blocks: int) -> StepBatch:
    starts = [0, *np.cumsum(new).tolist()]
    tables = maker._random.permutation(len(new) * blocks).reshape(len(new), blocks)
    positions = np.concatenate([np.arange(context - length, context) for length in new])
    slots = np.concatenate([
        tables[row][positions[starts[row] : starts[row + 1]] // BLOCK_SIZE] * BLOCK_SIZE
        + positions[starts[row] : starts[row + 1]] % BLOCK_SIZE
        for row in range(len(new))
    ])  # fmt: skip
    fields = {
        "token_ids": np.zeros(starts[-1]), "positions": positions, "slots": slots, "seq_starts": starts,
        "context_lens": [context] * len(new), "block_tables": tables, "logit_rows": np.array(starts[1:]) - 1,
    }  # fmt: skip
    placed = {name: maker.ops.device.upload(np.array(values, np.int32)) for name, values in fields.items()}
    return StepBatch(**placed, starts=starts, contexts=[context] * len(new))

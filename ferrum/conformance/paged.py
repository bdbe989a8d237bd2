"""Random paged batches: sequences of any length in a shuffled pool that is NaN where nothing was written.

Owns: the strategy for a step's batch and the pool it runs on, on the host and on the backend. Refuses to know: what
attention is.
Specs: OPS-30 to OPS-36. Next: `ferrum.conformance.parts`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass, fields, replace

import numpy as np
from hypothesis import strategies as st

from ferrum.conformance import q8_oracle
from ferrum.conformance.oracles import Array
from ferrum.conformance.strategies import Host, seeds
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.kv_q8 import Q8KvLayer
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.parts import Attention, Norm
from ferrum.tensor.weights import Dense, Linear

Table = tuple[int, ...]
"""The blocks of one sequence, in order."""


@dataclass(frozen=True)
class PagedCase:
    """A step: for each sequence its context length, the number of new positions, and its blocks."""

    contexts: tuple[int, ...]
    counts: tuple[int, ...]
    tables: tuple[Table, ...]
    blocks: int  # in the pool; block `blocks - 1` belongs to no sequence
    width: int  # of the block tables: at least one entry past the longest
    block_size: int
    kv_heads: int
    group: int  # query heads per key/value head
    head_dim: int
    kv_dtype: str  # "float": the backend's float type
    window: int | None
    softcap: float | None
    scale: float
    seed: int
    sinking: bool = False
    causal: bool = True

    @property
    def heads(self) -> int:
        return self.kv_heads * self.group

    @property
    def tokens(self) -> int:
        return sum(self.counts)

    @property
    def sinks(self) -> Array | None:
        return 2 * _normal(self.random(5), (self.heads,)) if self.sinking else None

    @property
    def parameters(self) -> tuple[float, int | None, float | None, Array | None, bool]:
        return self.scale, self.window, self.softcap, self.sinks, self.causal

    def attention(self, ops: TensorOps, query_norm: Norm | None = None, key_norm: Norm | None = None) -> Attention:
        """The part `Attention`. Its linears do not matter here."""
        unused = Linear(Dense(ops.zeros((1, 1), "float32")))
        sinks = None if self.sinks is None else ops.asarray(self.sinks, ops.float_dtype)
        return Attention(
            unused,
            unused,
            unused,
            unused,
            self.head_dim,
            self.scale,
            self.window,
            self.softcap,
            query_norm,
            key_norm,
            sinks,
            self.causal,
        )

    def alone(self, sequence: int) -> PagedCase:
        """The same pool, with only one sequence of the batch."""
        rows = slice(sequence, sequence + 1)
        return replace(self, contexts=self.contexts[rows], counts=self.counts[rows], tables=self.tables[rows])

    def packed(self, sequence: int) -> slice:
        """The packed tokens of a sequence."""
        start = sum(self.counts[:sequence])
        return slice(start, start + self.counts[sequence])

    def positions(self) -> list[int]:
        """The position of every packed token in its sequence."""
        pairs = zip(self.contexts, self.counts, strict=True)
        return [position for context, count in pairs for position in range(context - count, context)]

    def slot(self, sequence: int, position: int) -> int:
        return self.tables[sequence][position // self.block_size] * self.block_size + position % self.block_size

    def slots(self) -> list[int]:
        """The slot of every packed token."""
        owners = [sequence for sequence, count in enumerate(self.counts) for _ in range(count)]
        return [self.slot(owner, position) for owner, position in zip(owners, self.positions(), strict=True)]

    def written_slots(self, with_new: bool) -> list[int]:
        """All slots that are written before the step, or after it."""
        lengths = [c if with_new else c - n for c, n in zip(self.contexts, self.counts, strict=True)]
        return sorted({self.slot(s, p) for s, length in enumerate(lengths) for p in range(length)})

    def random(self, stream: int) -> np.random.Generator:
        return np.random.default_rng((self.seed, stream))

    def query(self) -> Array:  # [tokens, heads, head_dim], values of float32
        return _normal(self.random(0), (self.tokens, self.heads, self.head_dim))

    def fresh(self, stream: int) -> Array:  # [tokens, kv_heads, head_dim]: new keys (1) or values (2)
        return _normal(self.random(stream), (self.tokens, self.kv_heads, self.head_dim))

    def pool(self, ops: TensorOps, with_new: bool) -> tuple[Host, Host]:
        """Keys and values of the pool as they are read back; NaN in every slot that was not written."""
        dtype = np.dtype(np.float32)
        if self.kv_dtype != "q8_0":
            dtype = host_dtype(ops.float_dtype if self.kv_dtype == "float" else self.kv_dtype)
        shape = (self.blocks, self.kv_heads, self.head_dim, self.block_size)
        keys = _normal(self.random(3), shape).astype(dtype)
        values = _normal(self.random(4), shape).astype(dtype).transpose(0, 1, 3, 2).copy()
        if self.kv_dtype == "q8_0":
            keys, values = q8_oracle.rounded(keys.swapaxes(2, 3)).swapaxes(2, 3), q8_oracle.rounded(values)
        empty = np.ones(self.blocks * self.block_size, bool)
        empty[self.written_slots(with_new)] = False
        for slot in np.flatnonzero(empty):
            block, offset = divmod(int(slot), self.block_size)
            keys[block, :, :, offset] = np.nan
            values[block, :, offset, :] = np.nan
        return keys, values

    def layer(self, ops: TensorOps, with_new: bool) -> KvLayer:
        keys, values = self.pool(ops, with_new)
        stored = q8_oracle.stored(keys, values) if self.kv_dtype == "q8_0" else (keys, values)
        kind = Q8KvLayer if self.kv_dtype == "q8_0" else KvLayer
        return kind(*(ops.asarray(array, array.dtype.name) for array in stored))

    def as_stored(self, x: Array) -> Array:
        """[..., head_dim] -> the same as it is read back."""
        return q8_oracle.rounded(x) if self.kv_dtype == "q8_0" else x

    def batch(self, ops: TensorOps) -> StepBatch:
        """Entries of a block table past the sequence's blocks name the block that belongs to no sequence."""
        tables = np.full((len(self.tables), self.width), self.blocks - 1, np.int32)
        for row, table in zip(tables, self.tables, strict=True):
            row[: len(table)] = table
        starts = np.concatenate([[0], np.cumsum(self.counts)])
        lasts = starts[1:] - 1
        fields = (np.zeros(self.tokens), self.positions(), self.slots(), starts, self.contexts, tables, lasts)
        tensors = (ops.asarray(np.array(field, np.int32), "int32") for field in fields)
        return StepBatch(*tensors, starts=starts.tolist(), contexts=self.contexts)


@dataclass(frozen=True)
class Rotation:
    """Rotary tables on the host: float32 values [positions, rotary_dim / 2] each, and the factors of queries
    [positions]."""

    cosines: Array
    sines: Array
    growth: Array | None = None

    def place(self, ops: TensorOps) -> RopeTables:
        growth = None if self.growth is None else ops.asarray(self.growth, ops.float_dtype)
        return RopeTables(ops.asarray(self.cosines, ops.float_dtype), ops.asarray(self.sines, ops.float_dtype), growth)


def read_back(ops: TensorOps, layer: KvLayer) -> tuple[Host, Host]:
    """Keys [blocks, kv_heads, head_dim, block_size] and values [blocks, kv_heads, block_size, head_dim] of a layer."""
    arrays = [np.array(ops.to_numpy(getattr(layer, each.name))) for each in fields(layer)]
    keys, values = q8_oracle.read_back(*arrays) if isinstance(layer, Q8KvLayer) else arrays
    return keys, values


def _normal(random: np.random.Generator, shape: tuple[int, ...]) -> Array:
    """Values that float32 holds exactly."""
    return random.standard_normal(shape).astype(np.float32).astype(np.float64)


@st.composite
def rotations(draw: st.DrawFn, positions: int, head_dim: int) -> Rotation:
    """Any angles, scaled by any attention factor, for all dimensions of a head or only the leading ones."""
    half = draw(st.one_of(st.just(head_dim // 2), st.integers(1, head_dim // 2)))
    random = np.random.default_rng(draw(seeds))
    angles = random.uniform(-4, 4, (positions, half))
    factor = draw(st.sampled_from([1.0, 1.2]))
    cosines, sines = (
        np.asarray(factor * wave, np.float32).astype(np.float64) for wave in (np.cos(angles), np.sin(angles))
    )
    growth = 1 + np.abs(_normal(random, (positions,))) if draw(st.integers(0, 3)) == 0 else None
    return Rotation(cosines, sines, growth)


BLOCK_SIZES = (1, 2, 3, 5, 8, 16, 32)
HEAD_DIMS = (2, 4, 6, 12, 16, 20, 32, 48, 64, 80, 128)
Q8_HEAD_DIMS = (32, 64, 96, 128)
KV_DTYPES = ("float", "float32", "float16", "bfloat16")


@st.composite
def lengths(draw: st.DrawFn) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Contexts and counts of new tokens: decodes, prefills, chunks and mixtures; sometimes one long sequence."""
    if draw(st.integers(0, 4)) == 0:
        context = draw(st.integers(1, 140))
        return (context,), (draw(st.integers(1, min(context, 40))),)
    contexts = tuple(draw(st.lists(st.integers(1, 40), min_size=1, max_size=4)))
    return contexts, tuple(draw(st.one_of(st.just(1), st.integers(1, min(context, 6)))) for context in contexts)


@st.composite
def paged_cases(
    draw: st.DrawFn,
    windowed: bool | None = None,
    capped: bool | None = None,
    sinking: bool | None = None,
    causal: bool | None = True,
    kv_dtypes: tuple[str, ...] = KV_DTYPES,
) -> PagedCase:
    """windowed, capped, sinking, causal: True, False, or None for either."""
    contexts, counts = draw(lengths())
    block_size = draw(st.sampled_from(BLOCK_SIZES))
    needed = [math.ceil(context / block_size) for context in contexts]
    blocks = sum(needed) + draw(st.integers(1, 3))
    seed = draw(seeds)
    shuffled = iter(np.random.default_rng(seed).permutation(blocks - 1).tolist())
    tables = [tuple(next(shuffled) for _ in range(count)) for count in needed]
    if draw(st.booleans()):
        tables = _share_prefix(tables, contexts, counts, block_size)
    kv_dtype = draw(st.sampled_from(kv_dtypes))
    head_dim = draw(st.sampled_from(HEAD_DIMS if kv_dtype != "q8_0" else Q8_HEAD_DIMS))
    windows = st.one_of(st.just(1), st.integers(1, 12), st.integers(1, 200))
    return PagedCase(
        contexts=contexts,
        counts=counts,
        tables=tuple(tables),
        blocks=blocks,
        width=max(needed) + draw(st.integers(1, 3)),
        block_size=block_size,
        kv_heads=draw(st.integers(1, 3)),
        group=draw(st.integers(1, 4)),
        head_dim=head_dim,
        kv_dtype=kv_dtype,
        window=draw(windows) if _choose(draw, windowed) else None,
        softcap=draw(st.sampled_from([0.5, 5.0, 50.0])) if _choose(draw, capped) else None,
        scale=draw(st.sampled_from([head_dim**-0.5, 0.1, 1.0])),
        seed=seed,
        sinking=_choose(draw, sinking),
        causal=_choose(draw, causal),
    )


def placed_case(
    contexts: tuple[int, ...],
    counts: tuple[int, ...],
    *,
    block_size: int = 16,
    kv_heads: int = 1,
    group: int = 1,
    head_dim: int = 64,
    kv_dtype: str = "float",
    window: int | None = None,
    softcap: float | None = None,
    sinking: bool = False,
    causal: bool = True,
) -> PagedCase:
    """A step of these sizes. Blocks lie anywhere in a pool that has a few more."""
    needed = [math.ceil(context / block_size) for context in contexts]
    blocks = sum(needed) + 2
    seed = sum(contexts)
    shuffled = iter(np.random.default_rng(seed).permutation(blocks - 1).tolist())
    tables = tuple(tuple(next(shuffled) for _ in range(count)) for count in needed)
    return PagedCase(
        contexts,
        counts,
        tables,
        blocks,
        max(needed) + 1,
        block_size,
        kv_heads,
        group,
        head_dim,
        kv_dtype,
        window,
        softcap,
        head_dim**-0.5,
        seed,
        sinking,
        causal,
    )


def _choose(draw: st.DrawFn, fixed: bool | None) -> bool:
    return draw(st.booleans()) if fixed is None else fixed


def _share_prefix(
    tables: list[Table], contexts: tuple[int, ...], counts: tuple[int, ...], block_size: int
) -> list[Table]:
    """Every sequence reads the first one's full blocks of old positions, as after a prefix-cache hit."""
    old_blocks = [(context - count) // block_size for context, count in zip(contexts, counts, strict=True)]
    first = tables[0]
    shared = [min(old_blocks[0], full) for full in old_blocks]
    return [first[:common] + table[common:] for table, common in zip(tables, shared, strict=True)]

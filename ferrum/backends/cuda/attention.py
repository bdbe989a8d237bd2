"""Launches of attention: rotating queries and keys, writing to the KV cache, attending.

Owns: which operands the kernels can take, how the work is divided, and the memory for the results of splits. Attention
of single tokens (`attend_few.cu`) gives bits that depend on the sequence alone. Many tokens of a sequence
(`attend_many.cu`) read its keys and values together, which is faster, but needs a grid that depends on numbers of the
host.
Refuses to know: norms and projections. Specs: CUDA-30 to CUDA-36. Next: `ferrum.backends.cuda.blocks`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import groupby, pairwise

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import FLOATS, contiguous, start
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.parts import Attention, sets_beyond

THREADS = 256
"""Threads of a block of attend_few and attend_many."""
SPLIT, EACH = 256, 8
"""Positions of a split, and elements that a thread loads at once, as in attention.cuh."""
MOST_DIMENSIONS = 256
"""Most dimensions of a head."""
MANY = 16
"""New tokens of a sequence from which on attend_many computes them."""
MOST_POSITIONS = (48 << 10) // 4 * SPLIT
"""Most positions of a context: a block that combines splits has a number for each split in shared memory."""
MOST_BYTES = 64 << 20
"""Most bytes of the results of splits. If all tokens together need more, they are computed in several launches."""

_KV_TYPES = ("float32", "float16", "bfloat16")
_NO_WINDOW = (1 << 31) - 1
_ROWS = {1: 64, 2: 64, 4: 32}
"""Query rows of a tile of attend_many, by the number of columns of 64 dimensions: limited by registers."""
_KNOWN_OF_TABLES = frozenset(["cos", "sin", "growth"])
_KNOWN_OF_ATTENTION = frozenset(
    ["query", "key", "value", "output", "head_dim", "scale", "window", "softcap", "query_norm", "key_norm", "sinks"]
)


def _most_heads(kv_type: str, wide: int) -> int:
    """Most query heads of a block of attend_few: limited by registers."""
    return 8 if wide and kv_type != "float32" else 4


def _few(kv_type: str, wide: int, heads: int) -> dict[str, str]:
    return {"kv_t": FLOATS[kv_type], "WIDE": str(wide), "HEADS": str(heads)}


def _many(kv_type: str, wide: int, columns: int) -> dict[str, str]:
    return {"kv_t": FLOATS[kv_type], "WIDE": str(wide), "COLUMNS": str(columns), "ROWS": str(_ROWS[columns])}


_KINDS = [(kv_type, wide) for kv_type in _KV_TYPES for wide in (0, 1)]
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (
    *(("rope_write", {"kv_t": FLOATS[kv_type]}) for kv_type in _KV_TYPES),
    *(("attend_few", _few(*kind, heads)) for kind in _KINDS for heads in range(1, _most_heads(*kind) + 1)),
    *(("attend_many", _many(*kind, columns)) for kind in _KINDS for columns in _ROWS),
    ("attend_combine", {}),
)
"""Every combination of definitions with which the kernels are compiled."""


class AttentionKernels:
    """Attention and KV writes on one device."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def writes(self, layer: KvLayer) -> bool:
        """True if the kernels can write to the KV cache of this layer."""
        whole = layer.keys.flags.c_contiguous and layer.values.flags.c_contiguous
        return whole and str(layer.keys.dtype) == str(layer.values.dtype) in _KV_TYPES

    def fits(
        self, layer: KvLayer, attention: Attention, heads: int, head_dim: int, tables: RopeTables | None = None
    ) -> bool:
        """True if the kernels can compute this attention, with all fields that are set."""
        return (
            self.writes(layer)
            and layer.keys.shape[2] == head_dim <= MOST_DIMENSIONS
            and heads % layer.keys.shape[1] == 0
            and _plain(attention.sinks, (heads,))
            and not sets_beyond(attention, _KNOWN_OF_ATTENTION)
            and (tables is None or _turn(tables, head_dim))
        )

    def reaches(self, layer: KvLayer, batch: StepBatch) -> bool:
        """True if the contexts have at most MOST_POSITIONS."""
        return bool(batch.block_tables.shape[1] * layer.block_size <= MOST_POSITIONS)

    def write(self, layer: KvLayer, key: Array, value: Array, slots: Array) -> None:
        """Writes key and value, float32 [tokens, kv_heads, head_dim], to int32 slots [tokens]. A token with slot -1 is
        not written."""
        self._write(None, None, key, value, layer, None, None, slots)

    def turn_and_write(
        self,
        query: Array,
        key: Array,
        value: Array,
        layer: KvLayer,
        tables: RopeTables | None,
        positions: Array,
        slots: Array,
    ) -> Array:
        """query float32 [tokens, heads, head_dim] -> the same shape, rotated and scaled by its position, int32
        [tokens]. The key is rotated, and key and value are written as by `write`. Without tables there is no
        rotation."""
        out = self._device.empty(query.shape, "float32")
        self._write(query, out, key, value, layer, tables, positions, slots)
        return out

    def attend(self, query: Array, attention: Attention, layer: KvLayer, batch: StepBatch, many: bool) -> Array:
        """query float32 [tokens, heads, head_dim] -> the same shape. many: many tokens of a sequence are computed
        together, by launches that fit only this batch."""
        launches = _Launches(self._device, query, attention, layer, batch)
        if not many:
            launches.few(0, query.shape[0])
            return launches.out
        for first, counts in _runs(batch.starts):
            if max(counts) < MANY:
                launches.few(batch.starts[first], sum(counts))
            else:
                launches.many(first, counts)
        return launches.out

    def _write(
        self,
        query: Array | None,
        out: Array | None,
        key: Array,
        value: Array,
        layer: KvLayer,
        tables: RopeTables | None,
        positions: Array | None,
        slots: Array,
    ) -> None:
        tokens, kv_heads, head_dim = key.shape
        heads = 0 if query is None else query.shape[1]
        cos, sin, growth = (None, None, None) if tables is None else (tables.cos, tables.sin, tables.growth)
        length, half = (0, 0) if cos is None else cos.shape
        operands, steps = zip(*(self._rows(x) for x in (query, key, value)), strict=True)
        places = (None if x is None else contiguous(self._device, x) for x in (positions, slots))
        self._device.kernels.get("rope_write", "rope_write", kv_t=FLOATS[str(layer.keys.dtype)])(
            (tokens, heads + kv_heads), (_threads(head_dim),), *operands, cos, sin, growth, *places, out, layer.keys,
            layer.values, *steps, heads, kv_heads, head_dim, layer.block_size, half, length,
        )  # fmt: skip

    def _rows(self, x: Array | None) -> tuple[Array | None, int]:
        """-> the first element of x, and the elements from one token to the next. The elements of a token must be
        contiguous, or x is copied."""
        if x is None:
            return None, 0
        x = x if x[:1].flags.c_contiguous else contiguous(self._device, x)
        return start(x), x.strides[0] // x.dtype.itemsize


class _Launches:
    """The launches of one attention. Each writes some tokens of `out`."""

    def __init__(self, device: Device, query: Array, attention: Attention, layer: KvLayer, batch: StepBatch) -> None:
        self.out = device.empty(query.shape, "float32")
        self._device, self._sinks = device, attention.sinks
        _, self._kv_heads, self._head_dim, self._block_size = layer.keys.shape
        self._heads = query.shape[1]
        self._group = self._heads // self._kv_heads
        self._window = min(attention.window or _NO_WINDOW, _NO_WINDOW)
        self._pool = layer.keys, layer.values
        self._query, self._tables, self._starts, self._contexts = (
            contiguous(device, x) for x in (query, batch.block_tables, batch.seq_starts, batch.context_lens)
        )
        self._facts = (
            self._kv_heads, self._group, self._head_dim, self._block_size, self._window, attention.scale,
            attention.softcap or 0.0,
        )  # fmt: skip
        self._kind = str(layer.keys.dtype), self._wide()

    def few(self, first: int, count: int) -> None:
        """Computes tokens first .. first + count - 1, each by itself."""
        with self._device.scratch():
            self._few(first, count)

    def _few(self, first: int, count: int) -> None:
        sequences, columns = self._tables.shape
        splits = max(1, -(-columns * self._block_size // SPLIT))
        turn = max(1, min(count, MOST_BYTES // (4 * self._heads * splits * self._head_dim)))
        mixed = self._device.empty((turn, self._heads, splits, self._head_dim), "float32")
        largest, total = (self._device.empty((turn, self._heads, splits), "float32") for _ in range(2))
        chunks = -(-self._group // _most_heads(*self._kind))
        defines = _few(*self._kind, -(-self._group // chunks))
        attend = self._device.kernels.get("attend_few", "attend_few", **defines)
        combine = self._device.kernels.get("attend_combine", "attend_combine")
        for token in range(first, first + count, turn):
            tokens = min(turn, first + count - token)
            attend(
                (tokens, self._kv_heads * chunks, splits), (THREADS,), self._query, *self._pool, self._tables,
                self._starts, self._contexts, mixed, largest, total, token, sequences, columns, *self._facts,
            )  # fmt: skip
            combine(
                (tokens, self._heads), (_threads(self._head_dim),), mixed, largest, total, self._sinks, self._starts,
                self._contexts, self.out, token, sequences, splits, self._head_dim, self._window, shared=4 * splits,
            )  # fmt: skip

    def many(self, first: int, counts: Sequence[int]) -> None:
        """Computes the sequences from `first` on, which have these numbers of tokens; the tokens of a sequence
        together."""
        columns = next(each for each in _ROWS if 64 * each >= self._head_dim)
        tiles = -(-max(counts) * self._group // _ROWS[columns])
        kernel = self._device.kernels.get("attend_many", "attend_many", **_many(*self._kind, columns))
        kernel(
            (tiles, self._kv_heads, len(counts)), (THREADS,), self._query, *self._pool, self._sinks, self._tables,
            self._starts, self._contexts, self.out, first, self._tables.shape[1], *self._facts,
        )  # fmt: skip

    def _wide(self) -> int:
        """1 if EACH neighbouring elements can be loaded at once: their addresses must be multiples of 16."""
        aligned = all(self._device.address(x) % 16 == 0 for x in self._pool)
        return int(aligned and self._block_size % EACH == 0 and self._head_dim % EACH == 0)


def _runs(starts: Sequence[int]) -> Iterator[tuple[int, list[int]]]:
    """Runs of sequences that all have many new tokens, or all few: (first sequence, number of tokens of each)."""
    first = 0
    for _, run in groupby((end - begin for begin, end in pairwise(starts)), lambda count: count < MANY):
        counts = list(run)
        yield first, counts
        first += len(counts)


def _turn(tables: RopeTables, head_dim: int) -> bool:
    """True if the kernel can read these tables."""
    length, half = tables.cos.shape
    plain = all(_plain(x, (length, half)) for x in (tables.cos, tables.sin)) and _plain(tables.growth, (length,))
    return plain and 2 * half <= head_dim and not sets_beyond(tables, _KNOWN_OF_TABLES)


def _plain(x: Array | None, shape: tuple[int, ...]) -> bool:
    """True if x is None or contiguous float32 of this shape."""
    return x is None or (x.shape == shape and str(x.dtype) == "float32" and bool(x.flags.c_contiguous))


def _threads(head_dim: int) -> int:
    """Threads of a block that computes one head: one for each dimension, in whole warps."""
    return min(THREADS, -(-head_dim // 32) * 32)

"""One method per kernel: it takes arrays, writes the row of words, launches the kernel, and returns the result.

Owns: the row of words of every launch. `NumbaOps` decides whether a kernel may compute an operation. Operands are
float32 [tokens, columns] whose last axis is contiguous (`Kernels.rows`).
Next: `ferrum.backends.numba_kernels.launching.primitive_calls`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial

import numpy as np

from ferrum.backends.numba_kernels import sizes
from ferrum.backends.numba_kernels.launching import choice_calls, expert_calls
from ferrum.backends.numba_kernels.launching.expert_calls import ExpertWords, expert_words
from ferrum.backends.numba_kernels.launching.launch import Launcher, float_bits
from ferrum.backends.numba_kernels.launching.memory import address
from ferrum.backends.numba_kernels.launching.operand_words import (
    PRODUCTS,
    BatchWords,
    CacheWords,
    MlpWords,
    NormWords,
    Remembered,
    RotationWords,
    WeightWords,
    activation,
    batch_words,
    cache_words,
    mlp_words,
    native_kind,
    norm_words,
    rotation_words,
    row_decoder,
    weight_words,
)
from ferrum.backends.numba_kernels.launching.team import prepare
from ferrum.backends.numba_kernels.launching.weight_units import Units, make_units
from ferrum.backends.numba_kernels.loading import features
from ferrum.backends.numba_kernels.loading.library import LIBRARY
from ferrum.errors import InvalidParameter, Unsupported
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from ferrum.tensor.weights import Linear, Weight

_FLOAT32 = np.dtype(np.float32)

NO_ROTATION = RotationWords((0, 0, 0), 0)
ATTENTION = "attention.attention"
SPLIT_OF_ATTENTION = "splits.attend_split"
SPLIT_OF_Q8_ATTENTION = "splits_q8.attend_split_q8"
SPLIT_OF_ROUNDED = "splits_q8.attend_split_rounded"
ROUND_QUERIES = "splits_q8.round_queries"
MERGE_OF_ATTENTION = "attention.merge_attention"
SLOW_TO_COMPILE = (SPLIT_OF_ATTENTION, ATTENTION, "choosing.choose")
"""Functions that a second process compiles first if they are missing: they take as long as all others together."""
SPLIT_UNITS = 4
"""Units of attention per thread from which on the splits of a context are no units of their own: with this many units
all threads have about the same work."""


def check_arithmetic(compute: str, deterministic: bool) -> None:
    """Raises InvalidParameter for an arithmetic that does not exist or is not deterministic where it must be,
    Unsupported for one that this processor cannot compute."""
    if compute not in PRODUCTS:
        raise InvalidParameter("compute", f"must be one of {', '.join(PRODUCTS)}, not {compute!r}")
    if compute != "bfloat16":
        return
    if deterministic:
        raise InvalidParameter("compute", "'bfloat16' makes a row's bits depend on the number of rows")
    if not features.HAS_BFLOAT16:
        raise Unsupported("compute='bfloat16' needs a processor with bfloat16 dot products (AVX512_BF16)")


class Kernels:
    """Launches of kernels on arrays, by `launcher`."""

    def __init__(
        self, launcher: Launcher, compute: str = "float32", units: Callable[[Weight], Units] | None = None
    ) -> None:
        """compute: the arithmetic of products. units: returns a weight in units; None: they are made here and
        remembered."""
        self.launcher, self.compute = launcher, compute
        self.library = LIBRARY
        if launcher.threads > 1:
            LIBRARY.compile_ahead(SLOW_TO_COMPILE)
        prepare()
        self.units = Remembered(partial(make_units, launcher)) if units is None else units
        self._weights = Remembered(partial(weight_words, compute, self.units))
        self.rotation = Remembered(rotation_words)
        self.norm = Remembered(norm_words)
        self.mlp = Remembered(mlp_words)
        self.experts = Remembered(partial(expert_words, compute, self.units))
        self._vectors = Remembered(address)
        self.cache = Remembered(cache_words)
        self.native_kind = Remembered(native_kind)
        self._batch: StepBatch | None = None
        self._batch_words: dict[int, BatchWords] = {}

    def rows(self, x: Tensor, columns: int) -> Tensor:
        """x as float32 [tokens, columns] with a contiguous last axis; a copy only if it is not."""
        if x.ndim == 2 and x.dtype == _FLOAT32 and x.strides[1] == 4 and x.shape[1] == columns:
            return x
        rows = np.reshape(x, (-1, columns))
        return rows if rows.dtype == _FLOAT32 and rows.strides[1] == 4 else self.launcher.contiguous(rows)

    def weights(self, linears: tuple[Linear, ...]) -> WeightWords | None:
        """The words of linears that share their input; None if a kernel cannot multiply one of them."""
        return self._weights(*linears)

    def can_add(self, weights: WeightWords, scale: float) -> bool:
        """True if one launch of `linears` can add a residual. With a bias or a scale, a chunk reads the rows that it
        has written, so no other chunk may write them; a last chunk with fewer rows than a tile would write its
        neighbour's."""
        is_plain, rest = not weights.has_bias and scale == 1, weights.total_rows % sizes.SHARE_ROWS
        return is_plain or rest == 0 or rest >= sizes.TILE_ROWS

    def linears(
        self, x: Tensor, norm: NormWords | None, weights: WeightWords, residual: Tensor | None, scale: float = 1.0
    ) -> Tensor:
        """-> [tokens, all rows]: the outputs side by side. With a residual there is one weight, and the result is
        residual + scale * output."""
        tokens, columns, rows = len(x), weights.columns, weights.total_rows
        if weights.rounded:
            x, norm = self.rounded(x, norm), None
        out = self.launcher.buffer((tokens, rows))
        normed_bytes = 0 if norm is None else 4 * columns * tokens
        scratch = self.launcher.scratch(normed_bytes + self.product_scratch(columns, tokens))
        self.launcher.launch(
            "linear.linears",
            address(x), x.strides[0], tokens, 0 if norm is None else norm.place, columns,
            weights.place, weights.count, address(out), 4 * rows,
            0 if residual is None else address(residual), 0 if residual is None else residual.strides[0], *scratch,
            float_bits(scale), int(residual is not None and (weights.has_bias or scale != 1)),
            work=tokens * rows * columns, count=3,
        )  # fmt: skip
        return out

    def mlp_inner(self, x: Tensor, norm: NormWords | None, mlp: MlpWords, weights: WeightWords) -> Tensor:
        """-> [tokens, intermediate]: activation(gate) * up, or activation(up) where the MLP has no gate."""
        tokens, columns, rows = len(x), weights.columns, weights.rows[0]
        if weights.rounded:
            x, norm = self.rounded(x, norm), None
        out = self.launcher.buffer((tokens, rows))
        together = rows if tokens <= sizes.SMALL_BATCH else sizes.EXPERT_ROWS
        scratch = self.launcher.scratch(4 * tokens * (columns + 2 * together) + self.product_scratch(columns, tokens))
        self.launcher.launch(
            "linear.mlp_inner",
            address(x), x.strides[0], tokens, 0 if norm is None else norm.place, mlp.place, columns, weights.place,
            weights.count, address(out), *scratch, together, work=weights.count * tokens * rows * columns, count=3,
        )  # fmt: skip
        return out

    def rounded(self, x: Tensor, norm: NormWords | None) -> Tensor:
        """[tokens, columns] -> the same rows, after a norm if there is one, rounded to groups of int8; an array of
        float32 that only holds bytes."""
        tokens, columns = x.shape
        groups = sizes.rounded_groups(columns)
        out = self.launcher.buffer((tokens, groups * sizes.X_BYTES // 4))
        self.launcher.launch(
            "rounding.rounded",
            address(x), x.strides[0], tokens, 0 if norm is None else norm.place, columns, address(out), out.strides[0],
            groups, *self.launcher.scratch(4 * columns), work=8 * x.size, count=3,
        )  # fmt: skip
        return out

    def product_scratch(self, columns: int, tokens: int) -> int:
        """Bytes of scratch of a chunk for products of this number of tokens."""
        rounded = sizes.rounded_scratch(columns, tokens) if self.compute == "bfloat16" else 0
        return sizes.product_scratch(columns) + rounded

    def mixture(self, x: Tensor, experts: ExpertWords, shared: Tensor | None) -> Tensor:
        """[tokens, columns] -> same shape. See `expert_calls.mixture`."""
        return expert_calls.mixture(self, x, experts, shared)

    def choose(self, logits: Tensor, settings: Tensor) -> np.ndarray:
        """See `choice_calls.choose`."""
        return choice_calls.choose(self.launcher, logits, settings)

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> np.ndarray:
        """See `choice_calls.ranked`."""
        return choice_calls.ranked(self.launcher, logits, tokens, count)

    def embed(self, table: Weight, kind: str, token_ids: Tensor) -> Tensor:
        """token_ids [tokens] -> float32 [tokens, columns]: rows of the table."""
        token_ids = np.ascontiguousarray(token_ids, np.int32)
        out = self.launcher.buffer((len(token_ids), table.columns))
        self.launcher.launch(
            "linear.embed",
            address(token_ids), len(token_ids), row_decoder(kind), address(table.data), table.data.strides[0],
            table.columns, address(out), work=8 * out.size, count=2,
        )  # fmt: skip
        return out

    def normed(self, x: Tensor, norm: NormWords, heads: int) -> Tensor:
        """x [tokens, heads * columns of the norm] -> same shape, contiguous"""
        out = self.launcher.buffer(x.shape)
        self.launcher.launch(
            "elementwise.norm",
            address(x), x.strides[0], x.shape[0], norm.place, heads, norm.columns, address(out),
            work=8 * out.size, count=3,
        )  # fmt: skip
        return out

    def residual_add(self, y: Tensor, residual: Tensor, norm: NormWords | None, scale: float) -> Tensor:
        """residual + scale * norm(y). y, residual [tokens, columns] -> same shape, contiguous"""
        out = self.launcher.buffer(y.shape)
        self.launcher.launch(
            "elementwise.residual_add",
            address(y), y.strides[0], y.shape[0], 0 if norm is None else norm.place, address(residual),
            residual.strides[0], float_bits(scale), y.shape[1], address(out), work=8 * out.size, count=3,
        )  # fmt: skip
        return out

    def gated(self, gate: Tensor, up: Tensor, mlp: MlpWords) -> Tensor:
        """activation(gate) * up, for contiguous operands of the same shape."""
        out = self.launcher.buffer(gate.shape)
        words = (address(gate), address(up), address(out), out.size, mlp.place)
        self.launcher.launch("elementwise.gated", *words, work=8 * out.size, count=4)
        return out

    def activated(self, x: Tensor, name: str) -> Tensor:
        """The activation of this name of x, which is contiguous."""
        out = self.launcher.buffer(x.shape)
        words = (address(x), address(out), out.size, activation(name))
        self.launcher.launch("elementwise.activate", *words, work=8 * out.size, count=3)
        return out

    def softcapped(self, x: Tensor, cap: float) -> Tensor:
        """cap * tanh(x / cap); x is contiguous."""
        out = self.launcher.buffer(x.shape)
        words = (address(x), address(out), out.size, float_bits(cap))
        self.launcher.launch("elementwise.softcap", *words, work=8 * out.size, count=3)
        return out

    def kv_write(
        self, cache: CacheWords, key: Tensor, value: Tensor, slots: Tensor, rope: tuple[RotationWords, Tensor] | None
    ) -> None:
        """Writes key and value [tokens, kv_heads * head_dim] to their slots. rope: the tables and the positions by
        which keys are rotated before."""
        slots = np.ascontiguousarray(slots, np.int32)
        positions = slots if rope is None else np.ascontiguousarray(rope[1], np.int32)
        self.launcher.launch(
            "writing.kv_write_q8" if cache.key_scales else "writing.kv_write",
            cache.keys, cache.values, address(key), key.strides[0], address(value), value.strides[0],
            address(slots), len(slots), cache.kv_heads, cache.head_dim, cache.block_size,
            *(NO_ROTATION if rope is None else rope[0]).turn, address(positions),
            *self.launcher.scratch(4 * cache.head_dim), cache.element_bytes, cache.key_scales, cache.value_scales,
            work=8 * key.size, count=8,
        )  # fmt: skip

    def attend(
        self,
        query: Tensor,
        cache: CacheWords,
        batch: StepBatch,
        attention: Attention,
        rotation: RotationWords = NO_ROTATION,
    ) -> Tensor:
        """query [tokens, heads * head_dim] -> same shape. `rotation` rotates the queries before."""
        window, sinks = attention.window, attention.sinks
        tokens, width = query.shape
        heads = width // cache.head_dim
        words = self._words_of(batch, heads // cache.kv_heads)
        out = self.launcher.buffer((tokens, width))
        reach = sizes.NO_WINDOW if window is None else min(window, sizes.NO_WINDOW)
        parts, rounds = self._parts(words, cache), bool(cache.key_scales) and self.compute == "int8"
        split = SPLIT_OF_ROUNDED if rounds else SPLIT_OF_Q8_ATTENTION if cache.key_scales else SPLIT_OF_ATTENTION
        units = words.tile_count * cache.kv_heads * parts if parts > 1 else 0
        states = self.launcher.buffer((units, sizes.attention_state(cache.head_dim) // 4))
        row = (
            cache.keys, cache.values, address(query), query.strides[0], address(out), words.tiles, words.tile_count,
            words.block_tables, words.table_width, words.contexts, heads, cache.kv_heads, cache.head_dim,
            cache.block_size, *rotation.turn, reach, float_bits(attention.scale),
            float_bits(attention.softcap or 0.0), *self.launcher.scratch(sizes.attention_scratch(cache.head_dim)),
            cache.element_bytes, parts, address(states),
            self.library.address(split), 0 if sinks is None else self._vectors(sinks),
            rotation.growth, cache.key_scales, cache.value_scales,
            self.library.address(ROUND_QUERIES) if rounds else 0,
        )  # fmt: skip
        work = query.size * words.table_width * cache.block_size
        self.library.address(MERGE_OF_ATTENTION)  # loaded now, so that it is not compiled in the middle of an answer
        self.launcher.launch(ATTENTION, *row, work=work, count=7)
        if parts > 1:
            self.launcher.launch(MERGE_OF_ATTENTION, *row, work=8 * parts * query.size, count=7)
        return out

    def _parts(self, words: BatchWords, cache: CacheWords) -> int:
        """The number of splits of a context that are units of their own: 1 (one unit for the whole context) unless
        there are too few tiles for all threads."""
        if words.tile_count * cache.kv_heads >= SPLIT_UNITS * self.launcher.threads:
            return 1
        return -(-words.table_width * cache.block_size // sizes.SPLIT)

    def _words_of(self, batch: StepBatch, group: int) -> BatchWords:
        """The words of a batch, computed once a step: every layer gets the same batch object."""
        if self._batch is not batch:
            self._batch, self._batch_words = batch, {}
        if group not in self._batch_words:
            self._batch_words[group] = batch_words(batch, group)
        return self._batch_words[group]

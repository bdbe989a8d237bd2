"""The CPU backends: the oracle `numpy`, and `numba`, which overrides the slow compositions by compiled kernels.

Owns: the primitives in NumPy, and which compositions of `numba` run as kernels. The oracle overrides no composition: it
is slow and obvious, in float32 or float64. In deterministic mode (OPS-45, OPS-46) the primitives whose rounding could
depend on the shape or the layout of an array (matmul, sum, the elementary functions) work row by row; all others round
each element by itself.
Refuses to know: models and scheduling.
Specs: OPS. Next: `ferrum.backends.numba_kernels.loading.target`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import TYPE_CHECKING, Any

import numpy as np

from ferrum.backends.array_module import ArrayModuleOps
from ferrum.backends.recorded_steps import RecordedSteps, every_row_in_order
from ferrum.errors import InvalidParameter
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import Tensor, host_dtype
from ferrum.tensor.parts import ACTIVATIONS, Attention, Experts, GatedMlp, Norm, PlainMlp, sets_beyond
from ferrum.tensor.weights import Linear, Weight
from ferrum.types import DecodeSteps

if TYPE_CHECKING:
    from ferrum.backends.numba_kernels.launching.launch import Launcher
    from ferrum.backends.numba_kernels.launching.operand_words import NormWords, WeightWords

_KNOWN_OF_ATTENTION = frozenset(
    ["query", "key", "value", "output", "head_dim", "scale", "window", "softcap", "query_norm", "key_norm", "sinks"]
)

MOST_RANKED = 256
"""Most tokens that the kernel `ranked` sorts; it uses an insertion sort."""


class NumpyOps(ArrayModuleOps):
    """The oracle: every composition is inherited, and a primitive is one call of NumPy. (`erf` calls `math.erf` for
    each element; deterministic mode calls NumPy for each row.)"""

    name = "numpy"

    def __init__(self, float_dtype: str = "float32", deterministic: bool = False, compute: str = "float32") -> None:
        """compute: "float32" (products in `float_dtype`) or "int8" (`ferrum.tensor.int8`)."""
        if compute not in ("float32", "int8"):
            raise InvalidParameter("compute", f"must be float32 or int8, not {compute!r}")
        self.float_dtype, self.deterministic, self.compute = float_dtype, deterministic, compute

    def asarray(self, values: Any, dtype: str) -> Tensor:
        return np.asarray(values, host_dtype(dtype))

    def to_numpy(self, x: Tensor) -> np.ndarray:
        return np.asarray(x)

    # ---- arithmetic
    def div(self, x: Tensor, y: Tensor) -> Tensor:
        with np.errstate(divide="ignore", invalid="ignore"):
            return np.divide(x, y)

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return _matmul_by_rows(x, y) if self.deterministic else np.matmul(x, y)

    def exp(self, x: Tensor) -> Tensor:
        with np.errstate(over="ignore"):
            return self._elementwise(np.exp, x)

    def log(self, x: Tensor) -> Tensor:
        with np.errstate(divide="ignore"):
            return self._elementwise(np.log, x)

    def tanh(self, x: Tensor) -> Tensor:
        return self._elementwise(np.tanh, x)

    def erf(self, x: Tensor) -> Tensor:
        return _erf(x).astype(x.dtype)

    def cos(self, x: Tensor) -> Tensor:
        return self._elementwise(np.cos, x)

    def sin(self, x: Tensor) -> Tensor:
        return self._elementwise(np.sin, x)

    # ---- reductions
    def sum(self, x: Tensor, axis: int) -> Tensor:
        if self.deterministic and x.size:
            totals = _by_rows(lambda row: np.sum(row, keepdims=True, dtype=x.dtype), np.moveaxis(x, axis, -1))
            return np.moveaxis(totals, -1, axis)
        return super().sum(x, axis)

    def _elementwise(self, function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
        """function(x), in deterministic mode for one contiguous row at a time: NumPy does not promise that its SIMD
        loops round elements with gaps, or the last elements of an array, like all others."""
        return _by_rows(function, x) if self.deterministic and x.ndim and x.size else function(x)


_erf = np.vectorize(math.erf, otypes=[np.float64])


def _by_rows(function: Callable[[Tensor], Tensor], x: Tensor) -> Tensor:
    """[..., n] -> [..., result of `function` for a contiguous [n]], row by row; x is not empty."""
    rows = np.ascontiguousarray(x).reshape(-1, x.shape[-1])
    return np.stack([function(row) for row in rows]).reshape(*x.shape[:-1], -1)


def _matmul_by_rows(x: Tensor, y: Tensor) -> Tensor:
    """[..., m, k], [..., k, n] -> [..., m, n]: the same call for each of the m rows, so that a row depends neither on
    the number of rows nor on the layout of x and y. It calls the loop of einsum, because BLAS may choose another order
    of additions for another shape or address."""
    x, columns = np.ascontiguousarray(x), np.ascontiguousarray(np.swapaxes(y, -1, -2))  # columns [..., n, k]
    leading = np.broadcast_shapes(x.shape[:-2], y.shape[:-2])
    out = np.empty((*leading, x.shape[-2], y.shape[-1]), np.result_type(x, y))
    for row in range(x.shape[-2]):
        out[..., row, :] = np.einsum("...k,...nk->...n", np.ascontiguousarray(x[..., row, :]), columns)
    return out


class NumbaOps(NumpyOps):
    """The default CPU backend: NumPy's primitives, and compiled kernels for the compositions that take most of a
    decoder's time. Every override checks what its kernel assumes, and leaves everything else to the composition that it
    replaces. Kernels are deterministic with the option and without it: the option changes the primitives, and so only
    operations without a kernel.

    A context is divided into splits of 128 positions. Four functions compute the softmax of attention, in this order:

    - `_initialise` in `compiled.attention` begins a query row: no positions, or its sink, with the weight 1.
    - `_softmax` in `compiled.splits` computes, for one split, the maximum of the scores, the weights exp(score -
      maximum), and their sum. `soften` there calls it for each row. `soften` is called by `attend_split` there, and
      for a q8_0 cache by `attend_split_q8` or `attend_split_rounded` in `compiled.splits_q8`.
    - `_merge` in `compiled.attention` joins the splits of a row in order, each time with the larger of both maxima: in
      the kernel `attention`, or in `merge_attention` where each split is a unit of work.
    - `_finish` in `compiled.attention` divides the weighted values by the sum.
    """

    name = "numba"
    chooses = True

    FUSED_TOKENS = 64
    """Most tokens for which each thread computes the norm again, to save a barrier between threads. Larger batches use
    the composition, which computes the norm once. (The number does not matter where activations are rounded: see
    `_fuses`.)"""

    def __init__(self, threads: int | None = None, deterministic: bool = False, compute: str = "float32") -> None:
        """compute: the arithmetic of products. "float32"; "int8": activations that are multiplied with quantised
        weights are rounded (`ferrum.tensor.int8`); "bfloat16": weights and activations are rounded in products of
        more than 8 tokens. Raises Unsupported if the processor does not have the instructions for bfloat16."""
        super().__init__("float32", deterministic)
        # imported here, so that the oracle does not load kernels
        from ferrum.backends.numba_kernels.launching import kernel_calls, launch
        from ferrum.backends.numba_steps import record

        kernel_calls.check_arithmetic(compute, deterministic)
        self.compute = compute
        self._kernels = kernel_calls.Kernels(launch.Launcher(threads), compute)
        self._recorded = RecordedSteps(record)

    def on_compile(self, listener: Callable[[str], None]) -> None:
        self._kernels.library.progress = listener

    @property
    def launcher(self) -> Launcher:
        """Runs the kernels of steps that are not replayed. It may be replaced by another launcher with as many threads,
        for example one that measures the time of each launch."""
        return self._kernels.launcher

    @launcher.setter
    def launcher(self, launcher: Launcher) -> None:
        self._kernels.launcher = launcher

    @property
    def threads(self) -> int:
        """The number of threads that run kernels."""
        return self._kernels.launcher.threads

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        """Replays decode steps, in which each of at most 64 sequences has one new token and one row of logits, in
        order. The key of a recording has three parts: the step function; the number of sequences, rounded up to a power
        of two; the columns of the block table, rounded up to a power of two that is at least 8. For each step function
        the 16 recordings that were used last are kept (`ferrum.backends.recorded_steps`). A recording for 4 sequences
        serves a step of 3: its launches are replayed with the sizes of 3 tokens. Any other step runs as it is
        written."""
        return self._recorded.run(self, step, batch) if every_row_in_order(batch) else step(self, batch)

    def decode_steps(self, step: Step) -> DecodeSteps:
        return self._recorded.counts(step)

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """The kernel reads the stored bytes and decodes them itself: in registers for few tokens, a panel of rows at a
        time for many. The decoded matrix never exists as a whole."""
        weights = self._weights(x, (linear,))
        if weights is None:
            return super().linear(x, linear)
        return self._kernels.linears(self._rows(x), None, weights, None)

    def linear_add(
        self, x: Tensor, linear: Linear, residual: Tensor, after: Norm | None = None, scale: float = 1.0
    ) -> Tensor:
        weights = self._weights(x, (linear,))
        if weights is None or after is not None or residual.shape != (x.shape[0], weights.total_rows):
            return super().linear_add(x, linear, residual, after, scale)
        if not self._kernels.can_add(weights, scale):
            return super().linear_add(x, linear, residual, after, scale)
        return self._kernels.linears(self._rows(x), None, weights, self._rows(residual), scale)

    def residual_add(self, y: Tensor, residual: Tensor, after: Norm | None = None, scale: float = 1.0) -> Tensor:
        norm, fits = self._norm(after, y.shape[-1])
        if not fits or y.ndim != 2 or not y.size or y.shape[1] % 16 or y.shape != residual.shape:
            return super().residual_add(y, residual, after, scale)
        return self._kernels.residual_add(self._rows(y), self._rows(residual), norm, scale)

    def norm_linears(self, x: Tensor, norm: Norm | None, linears: Sequence[Linear]) -> tuple[Tensor, ...]:
        weights = self._weights(x, tuple(linears))
        words, fits = self._norm(norm, x.shape[-1])
        if weights is None or not fits or not self._fuses(x, weights):
            return super().norm_linears(x, norm, linears)
        joined = self._kernels.linears(self._rows(x), words, weights, None)
        ends = list(accumulate(weights.rows))
        return tuple(joined[:, end - rows : end] for rows, end in zip(weights.rows, ends, strict=True))

    def norm_gated(self, x: Tensor, norm: Norm | None, mlp: GatedMlp) -> Tensor:
        inner = self._mlp_inner(x, norm, mlp, (mlp.gate, mlp.up))
        return super().norm_gated(x, norm, mlp) if inner is None else inner

    def norm_activated(self, x: Tensor, norm: Norm | None, mlp: PlainMlp) -> Tensor:
        inner = self._mlp_inner(x, norm, mlp, (mlp.up,))
        return super().norm_activated(x, norm, mlp) if inner is None else inner

    def _mlp_inner(
        self, x: Tensor, norm: Norm | None, mlp: GatedMlp | PlainMlp, linears: tuple[Linear, ...]
    ) -> Tensor | None:
        weights, words = self._weights(x, linears), self._kernels.mlp(mlp)
        norm_words, fits = self._norm(norm, x.shape[-1])
        if weights is None or words is None or not fits or not self._fuses(x, weights):
            return None
        if weights.rows[0] % 16 or len(set(weights.rows)) > 1:
            return None
        return self._kernels.mlp_inner(self._rows(x), norm_words, words, weights)

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        words, shared = self._kernels.experts(experts), experts.shared
        fits = words is not None and (shared is None or shared.down.weight.rows == words.columns)
        if words is None or not fits or x.ndim != 2 or not x.size or x.shape[1] != words.columns:
            return super().norm_experts(x, norm, experts)
        x = self._rows(self.normed(x, norm))
        part = None if shared is None else self.linear(self.norm_gated(x, None, shared), shared.down)
        return self._kernels.mixture(x, words, part)

    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        kind = self._kernels.native_kind(table)
        if kind is None or token_ids.ndim != 1 or not len(token_ids):
            return super().embed(table, token_ids)
        if token_ids.min() < 0 or token_ids.max() >= table.rows:  # a kernel would read past the table
            return super().embed(table, token_ids)
        return self._kernels.embed(table, kind, token_ids)

    def normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        words, fits = self._norm(norm, x.shape[-1] if x.ndim else 0)
        if words is None or not fits or not x.size:
            return super().normed(x, norm)
        return self._kernels.normed(self._kernels.rows(x, x.shape[-1]), words, 1).reshape(x.shape)

    def head_norm(self, x: Tensor, norm: Norm | None, head_dim: int) -> Tensor:
        words = None if norm is None else self._kernels.norm(norm)
        if norm is None or words is None or not x.size:
            return super().head_norm(x, norm, head_dim)
        heads, rest = divmod(x.shape[1], words.columns)
        if rest or words.heads not in (1, heads) or words.columns not in (head_dim, x.shape[1]):
            return super().head_norm(x, norm, head_dim)
        return self._kernels.normed(self._rows(x), words, heads)

    # The choice between a kernel and the inherited composition must not depend on the number of rows, because their
    # results may differ by rounding. (`_fuses` may: it chooses between kernels that give the same bits.)
    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        words = self._kernels.mlp(mlp)
        if words is None or not gate.size or not gate.ndim or gate.shape[-1] % 16 or gate.shape != up.shape:
            return super().gated(gate, up, mlp)
        gate, up = (self._kernels.launcher.contiguous(x) for x in (gate, up))
        return self._kernels.gated(gate, up, words)

    def activated(self, x: Tensor, activation: str) -> Tensor:
        if activation not in ACTIVATIONS or not x.size or not x.ndim or x.shape[-1] % 16:
            return super().activated(x, activation)
        return self._kernels.activated(self._kernels.launcher.contiguous(x), activation)

    def softcapped(self, x: Tensor, cap: float) -> Tensor:
        if not x.size or not x.ndim or x.shape[-1] % 16:
            return super().softcapped(x, cap)
        return self._kernels.softcapped(self._kernels.launcher.contiguous(x), cap)

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        cache = self._kernels.cache(layer)
        if cache is None or not len(slots) or key.ndim != 3 or not layer.takes(key, value, len(slots)):
            super().kv_write(layer, key, value, slots)
        else:
            key, value = (self._kernels.rows(x, x.shape[1] * x.shape[2]) for x in (key, value))
            self._kernels.kv_write(cache, key, value, slots, None)

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        cache = self._kernels.cache(layer)
        if cache is None or not query.size or not self._knows(attention, query.shape[1]):
            return super().paged_attention(query, attention, layer, batch)
        rows = self._kernels.rows(query, query.shape[1] * query.shape[2])
        return self._kernels.attend(rows, cache, batch, attention).reshape(query.shape)

    def rope_attention(
        self,
        projections: tuple[Tensor, Tensor, Tensor],
        attention: Attention,
        tables: RopeTables | None,
        layer: KvLayer,
        batch: StepBatch,
    ) -> Tensor:
        cache, rotation = self._kernels.cache(layer), None if tables is None else self._kernels.rotation(tables)
        fits = cache is not None and (tables is None or rotation is not None) and projections[0].size
        fits = fits and layer.takes(projections[1], projections[2], projections[0].shape[0])
        if cache is None or not fits or not self._knows(attention, projections[0].shape[1] // attention.head_dim):
            return super().rope_attention(projections, attention, tables, layer, batch)
        query = self._rows(self.head_norm(projections[0], attention.query_norm, attention.head_dim))
        key = self._rows(self.head_norm(projections[1], attention.key_norm, attention.head_dim))
        turn = None if rotation is None else (rotation, batch.positions)
        self._kernels.kv_write(cache, key, self._rows(projections[2]), batch.slots, turn)
        return self._kernels.attend(query, cache, batch, attention, *([] if rotation is None else [rotation]))

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        if not _are_rows(logits):
            return super().choose(logits, settings)
        tokens = self._kernels.choose(logits, settings)
        left = np.flatnonzero(tokens < 0)
        if left.size:
            with np.errstate(invalid="ignore"):  # a logit may be infinite
                tokens[left] = super().choose(logits[left], settings[left])
        return tokens

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        if not _are_rows(logits) or count > MOST_RANKED or ((tokens < 0) | (tokens >= logits.shape[1])).any():
            return super().ranked(logits, tokens, count)
        return self._kernels.ranked(logits, tokens, count)

    def _knows(self, attention: Attention, heads: int) -> bool:
        """True if the kernel of attention implements all fields that are set."""
        sinks = attention.sinks
        plain = sinks is None or (sinks.dtype == np.float32 and sinks.flags.c_contiguous and sinks.shape == (heads,))
        return plain and not sets_beyond(attention, _KNOWN_OF_ATTENTION)

    def _norm(self, norm: Norm | None, columns: int) -> tuple[NormWords | None, bool]:
        """The words of a norm of this number of columns, and True if kernels can compute it. (None, True) for no
        norm."""
        words = None if norm is None else self._kernels.norm(norm)
        return words, norm is None or (words is not None and words.columns == columns and words.heads == 1)

    def _fuses(self, x: Tensor, weights: WeightWords) -> bool:
        """True if a norm and the products are one launch. This may depend on the number of rows: the composition would
        launch kernels for the norm and for the products, which give the same bits. Rounded activations are computed
        once in any case."""
        return weights.rounded or x.shape[0] <= self.FUSED_TOKENS

    def _weights(self, x: Tensor, linears: tuple[Linear, ...]) -> WeightWords | None:
        """The words of the weights; None if kernels cannot take these operands."""
        weights = self._kernels.weights(linears)
        return weights if weights is not None and x.ndim == 2 and x.shape[1] == weights.columns else None

    def _rows(self, x: Tensor) -> Tensor:
        """[..., columns] -> [tokens, columns], float32, last axis contiguous. A contiguous vector is returned as it
        is."""
        if x.ndim == 1 and x.dtype == np.float32 and x.flags.c_contiguous:
            return x
        return self._kernels.rows(x, x.shape[-1])


def _are_rows(x: Tensor) -> bool:
    """True if x is float32 [rows, columns], not empty, with a contiguous last axis."""
    return bool(x.dtype == np.float32 and x.ndim == 2 and x.size and x.strides[1] == 4)

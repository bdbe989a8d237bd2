"""Every operation a backend is given for its primitives, each defined once in plain terms.

Owns: the definition of each operation of a decoder. A backend inherits all of this and overrides a method only for
speed; a property test then holds the override against the method it replaces and against float64.
Refuses to know: models, files, memory pools.
Specs: OPS. Papers: RMSNorm 1910.07467, SwiGLU 2002.05202, RoPE 2104.09864, GQA 2305.13245, PagedAttention 2309.06180.
Next: `ferrum.tensor.random`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

from ferrum.tensor.attention import paged_attention
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.ops import Primitives, Shape, Tensor
from ferrum.tensor.random import normal, uniform
from ferrum.tensor.weights import Linear, Weight
from ferrum.types import DecodeSteps

Step = Callable[["Compositions", StepBatch], Tensor]
"""One pass over a batch with a given backend, such as a forward pass that returns logits."""


class Compositions(Primitives):
    """Base class of every backend."""

    deterministic: bool = False
    """Is every row of a result, bit for bit, a function of that row's own operands (OPS-45)? A backend made so keeps it
    in its primitives and in whatever it overrides: a row may not notice how many others there are. Without it a row is
    what it would be alone only up to rounding, because the fastest product of many rows adds up in another order than
    the fastest product of one."""

    compute: str = "float32"
    """The type to which operands of a product may be rounded (OPS-52). A backend that has another one takes it as an
    option of this name."""

    @property
    def threads(self) -> int:
        """Threads that the backend shares its work out to."""
        return 1

    def on_compile(self, listener: Callable[[str], None]) -> None:
        """Tell `listener` the name of every kernel just before it is compiled. Most backends compile nothing."""

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        """step(self, batch). A backend may record what a step does to a batch of one shape and replay that for later
        ones: `step` must depend on nothing but its arguments and on memory that stays where it is."""
        return step(self, batch)

    def decode_steps(self, step: Step) -> DecodeSteps:
        """What became of the runs of `step` that could be replayed."""
        return DecodeSteps()

    # ---- factory
    def zeros(self, shape: Shape, dtype: str) -> Tensor:
        return self.full(shape, 0, dtype)

    def ones(self, shape: Shape, dtype: str) -> Tensor:
        return self.full(shape, 1, dtype)

    def scalar(self, value: float) -> Tensor:
        """A float of the backend's type, shape []."""
        return self.full((), value, self.float_dtype)

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        """float32 in [0, 1), a function of (key, stream, index) alone: see `ferrum.tensor.random`."""
        return uniform(self, shape, key, stream)

    def normal(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        """float32, mean 0, variance 1, a function of (key, stream, index) alone."""
        return normal(self, shape, key, stream)

    # ---- shape
    def transpose(self, x: Tensor) -> Tensor:
        """[..., m, n] -> [..., n, m], a view."""
        rank = len(x.shape)
        return self.permute(x, (*range(rank - 2), rank - 1, rank - 2))

    # ---- activations, elementwise: [...] -> [...]
    def relu(self, x: Tensor) -> Tensor:
        return self.maximum(x, self.full((), 0, str(x.dtype)))

    def gelu(self, x: Tensor) -> Tensor:
        """x Φ(x), with the exact normal distribution function (arXiv 1606.08415)."""
        half, scale = self.scalar(0.5), self.scalar(math.sqrt(0.5))
        return self.mul(self.mul(half, x), self.add(self.scalar(1), self.erf(self.mul(x, scale))))

    def gelu_tanh(self, x: Tensor) -> Tensor:
        """The tanh approximation of gelu, as GPT-2 uses it."""
        cubic = self.mul(self.scalar(0.044715), self.mul(x, self.mul(x, x)))
        inner = self.mul(self.scalar(math.sqrt(2 / math.pi)), self.add(x, cubic))
        return self.mul(self.mul(self.scalar(0.5), x), self.add(self.scalar(1), self.tanh(inner)))

    def sigmoid(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x)): where exp(-x) overflows to infinity, 0, as it should be."""
        return self.div(self.scalar(1), self.add(self.scalar(1), self.exp(self.sub(self.scalar(0), x))))

    def silu(self, x: Tensor) -> Tensor:
        """x sigmoid(x)"""
        return self.mul(x, self.sigmoid(x))

    def swiglu(self, gate: Tensor, up: Tensor) -> Tensor:
        return self.mul(self.silu(gate), up)

    # ---- normalisation, along the last axis: [..., n] -> [..., n]
    def mean(self, x: Tensor, axis: int) -> Tensor:
        return self.mul(self.sum(x, axis), self.scalar(1 / x.shape[axis]))

    def softmax(self, x: Tensor) -> Tensor:
        """A row of nothing but -inf gives NaN, as 0 / 0 does: callers mask with at least one survivor."""
        e = self.exp(self.sub(x, self.max(x, -1)))
        return self.div(e, self.sum(e, -1))

    def log_softmax(self, x: Tensor) -> Tensor:
        shifted = self.sub(x, self.max(x, -1))
        return self.sub(shifted, self.log(self.sum(self.exp(shifted), -1)))

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor, epsilon: float) -> Tensor:
        centred = self.sub(x, self.mean(x, -1))
        scale = self.rsqrt(self.add(self.mean(self.mul(centred, centred), -1), self.scalar(epsilon)))
        return self.add(self.mul(self.mul(centred, scale), weight), bias)

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """[..., hidden], [hidden] -> [..., hidden]"""
        scale = self.rsqrt(self.add(self.mean(self.mul(x, x), -1), self.scalar(epsilon)))
        return self.mul(self.mul(x, scale), weight)

    # ---- selection
    def top_k(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """[..., n] -> values [..., k] and int64 indices [..., k], largest first, ties by lowest index; k <= n."""
        indices = self.split(self.argsort(x), (k, x.shape[-1] - k), -1)[0]
        return self.take_along(x, indices), indices

    def sort(self, x: Tensor) -> Tensor:
        """[..., n] -> [..., n], largest first."""
        return self.take_along(x, self.argsort(x))

    # ---- weights
    def dequantize(self, weight: Weight) -> Tensor:
        """-> [rows, columns]"""
        return weight.dequantize(self, weight.data)

    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        """table [vocab, hidden], int32 [tokens] -> [tokens, hidden]"""
        return table.dequantize(self, self.take(table.data, token_ids))

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """[tokens, in] -> [tokens, out]: x · weightᵀ + bias"""
        y = self.matmul(x, self.transpose(self.dequantize(linear.weight)))
        return y if linear.bias is None else self.add(y, linear.bias)

    # ---- attention
    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        """[tokens, heads, head_dim] -> same shape: dimensions i and i + rotary_dim / 2 turn by the position's angle i;
        dimensions from rotary_dim on pass."""
        half = tables.cos.shape[1]
        cos, sin = (self.reshape(self.take(t, positions), (-1, 1, half)) for t in (tables.cos, tables.sin))
        first, second, rest = self.split(x, (half, half, x.shape[2] - 2 * half), -1)  # [tokens, heads, rotary_dim / 2]
        turned_first = self.sub(self.mul(first, cos), self.mul(second, sin))
        turned_second = self.add(self.mul(second, cos), self.mul(first, sin))
        return self.concat((turned_first, turned_second, rest), -1)

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """key, value [tokens, kv_heads, head_dim] go, in place, to int32 slots [tokens]; slots are distinct."""
        size = self.full((), layer.block_size, str(slots.dtype))
        block = self.floor_divide(slots, size)
        offset = self.sub(slots, self.mul(block, size))
        stored = str(layer.keys.dtype)
        # views with the position in second place: [blocks, block_size, kv_heads, head_dim]
        self.put(self.permute(layer.keys, (0, 3, 1, 2)), (block, offset), self.cast(key, stored))
        self.put(self.permute(layer.values, (0, 2, 1, 3)), (block, offset), self.cast(value, stored))

    def paged_attention(
        self, query: Tensor, layer: KvLayer, batch: StepBatch, scale: float, window: int | None, softcap: float | None
    ) -> Tensor:
        """query [tokens, heads, head_dim] -> [tokens, heads, head_dim]: see `ferrum.tensor.attention`."""
        return paged_attention(self, query, layer, batch, scale, window, softcap)

    # ---- what a decoder layer does, in the pieces that a backend may fuse
    def norm_linears(self, x: Tensor, norm: Tensor, epsilon: float, linears: Sequence[Linear]) -> tuple[Tensor, ...]:
        """[tokens, hidden] -> one [tokens, out] per linear: each linear of the same normalised x."""
        normed = self.rms_norm(x, norm, epsilon)
        return tuple(self.linear(normed, linear) for linear in linears)

    def linear_add(self, x: Tensor, linear: Linear, residual: Tensor) -> Tensor:
        """[tokens, in], [tokens, out] -> [tokens, out]: residual + linear(x)"""
        return self.add(residual, self.linear(x, linear))

    def norm_swiglu(self, x: Tensor, norm: Tensor, epsilon: float, gate: Linear, up: Linear) -> Tensor:
        """[tokens, hidden] -> [tokens, intermediate]: swiglu of the gate and up projections of the normalised x."""
        return self.swiglu(*self.norm_linears(x, norm, epsilon, (gate, up)))

    def rope_attention(
        self,
        projections: tuple[Tensor, Tensor, Tensor],
        tables: RopeTables,
        layer: KvLayer,
        batch: StepBatch,
        head_dim: int,
        scale: float,
        window: int | None,
        softcap: float | None,
    ) -> Tensor:
        """query [tokens, heads * head_dim], key and value [tokens, kv_heads * head_dim] -> [tokens, heads * head_dim]:
        rotate query and key, write key and value to their slots, attend to everything written so far."""
        tokens = projections[0].shape[0]
        query, key, value = (self.reshape(p, (tokens, -1, head_dim)) for p in projections)
        query, key = (self.rope(p, tables, batch.positions) for p in (query, key))
        self.kv_write(layer, key, value, batch.slots)
        attended = self.paged_attention(query, layer, batch, scale, window, softcap)
        return self.reshape(attended, (tokens, -1))


TensorOps = Compositions
"""The whole protocol: primitives and what follows from them. Type of every `ops` parameter."""

COMPOSITIONS: tuple[str, ...] = tuple(
    name for name, value in vars(Compositions).items() if callable(value) and not name.startswith("_")
)
"""Names of all compositions, for reports: which of them a backend overrides."""

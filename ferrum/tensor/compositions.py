"""Every operation that a backend inherits, each defined once by primitives.

Owns: the definition of each operation of a decoder. A backend inherits all of them and overrides a method only for
speed. Property tests compare the override with the method that it replaces, and with float64.
Refuses to know: models, files, memory pools.
Specs: OPS. Papers: RMSNorm 1910.07467, GLU variants 2002.05202, RoPE 2104.09864, GQA 2305.13245, PagedAttention
2309.06180, mixture of experts 1701.06538. Next: `ferrum.tensor.random`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import numpy as np

from ferrum.tensor.attention import paged_attention
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.drawing import choose, ranked
from ferrum.tensor.experts import mixture
from ferrum.tensor.int8 import product
from ferrum.tensor.ops import Primitives, Shape, Tensor, host_dtype
from ferrum.tensor.parts import Attention, Embedding, Experts, GatedMlp, Head, Norm, PlainMlp
from ferrum.tensor.random import normal, uniform
from ferrum.tensor.weights import BlockWeight, Linear, Weight
from ferrum.types import DecodeSteps, DeviceMemory

Step = Callable[["Compositions", StepBatch], Tensor]
"""One pass over a batch with a given backend, such as a forward pass that returns logits."""

MOST_CONSTANTS = 1024
"""Constants that a backend keeps. Further ones are made again at each use. None is ever dropped, because a recorded
step may hold its address."""


class Compositions(Primitives):
    """Base class of every backend."""

    deterministic: bool = False
    """True if every row of a result is, bit for bit, a function of that row's own operands alone (OPS-45): the number
    of other rows changes nothing. If False, rows may differ by rounding: a fast product of many rows may add up in
    another order than a product of one row. What the option changes on each backend:

    - `numpy` computes products, sums along an axis, elementary functions and attention row by row, which is slower.
    - `cupy` computes products of any number of tokens by kernels of this project instead of cuBLAS, which is slower.
    - `numba`: only operations that have no kernel change, because every kernel keeps the promise in any case.
      compute="bfloat16", whose bits depend on the number of rows, is refused.
    """

    compute: str = "float32"
    """The type to which operands of products with weights may be rounded: "int8" rounds the activations that are
    multiplied with quantised weights (OPS-82); "bfloat16", on `numba`, rounds weights and activations in products of
    more than 8 tokens (OPS-52). Products inside attention are not rounded. A backend that offers more than "float32"
    takes an option of this name."""

    on_host: bool = True
    """True if tensors lie in the host's memory: reading one then costs nothing."""

    chooses: bool = False
    """True if `choose` takes less time for many rows than reading each row on the host."""

    flops_per_byte: float = 20.0
    """Floating-point operations done in the time of copying one byte to or from the host. This value is that
    of the CPU backends: two cores do about 160 G operations a second and copy about 8 GB a second. `cupy` has 1500."""

    @property
    def threads(self) -> int:
        """Threads among which the backend divides its work."""
        return 1

    def own_memory(self) -> DeviceMemory | None:
        """Total and free bytes of the device's own memory; None if tensors lie in the host's memory."""
        return None

    def on_compile(self, listener: Callable[[str], None]) -> None:
        """Calls `listener` with the name of each kernel just before it is compiled. Most backends compile nothing."""

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        """step(self, batch). A backend may record the launches of a step and replay them for later batches of the same
        shape, or for smaller ones: a recording of 4 tokens also serves 3, if the sizes of its launches are multiples of
        the tokens. So `step` must depend only on its arguments and on memory that stays at its address, and must not
        contain other numbers that depend on the number of tokens."""
        return step(self, batch)

    def decode_steps(self, step: Step) -> DecodeSteps:
        """How many runs of `step` were replayed, recorded, or could not be recorded."""
        return DecodeSteps()

    # ---- factory
    def zeros(self, shape: Shape, dtype: str) -> Tensor:
        """-> [shape] of zeros"""
        return self.full(shape, 0, dtype)

    def ones(self, shape: Shape, dtype: str) -> Tensor:
        """-> [shape] of ones"""
        return self.full(shape, 1, dtype)

    def constant(self, value: float, dtype: str) -> Tensor:
        """A number of the program or of the model, shape []: made once, kept for the life of the backend, never
        written. A number that changes from step to step is made by `full`; as a constant it would use up one of the
        places."""
        # the dictionary is made here, because a backend need not call an inherited __init__
        known: dict[tuple[object, ...], Tensor] = vars(self).setdefault("_constants", {})
        key = (dtype, None if value != value else value, math.copysign(1, value))  # 0 == -0; NaN != NaN
        if key in known:
            return known[key]
        made = self.full((), value, dtype)
        if len(known) < MOST_CONSTANTS:
            known[key] = made
        return made

    def scalar(self, value: float) -> Tensor:
        """A constant of the backend's float type."""
        return self.constant(value, self.float_dtype)

    def uniform(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        """-> float32 [shape] in [0, 1): a function of key, stream and index alone (`ferrum.tensor.random`)."""
        return uniform(self, shape, key, stream)

    def normal(self, shape: Shape, key: int, stream: int = 0) -> Tensor:
        """-> float32 [shape], mean 0, variance 1: a function of key, stream and index alone."""
        return normal(self, shape, key, stream)

    # ---- the host's memory, as the second tier of the block pool
    def host_array(self, shape: Shape, dtype: str) -> np.ndarray:
        """An array on the host, contents undefined, to and from which `store` and `fetch` copy at full speed."""
        return np.empty(shape, host_dtype(dtype))

    def store(self, x: Tensor, places: np.ndarray, rows: Sequence[int]) -> None:
        """places[rows] = x. x may change afterwards. Only `fetch` may read `places`, because a device may copy later,
        while it computes."""
        places[list(rows)] = self.to_numpy(x)

    def fetch(self, places: np.ndarray, rows: Sequence[int], dtype: str) -> Tensor:
        """-> places[rows], on the backend"""
        return self.asarray(places[list(rows)], dtype)

    # ---- shape
    def transpose(self, x: Tensor) -> Tensor:
        """[..., m, n] -> [..., n, m], a view."""
        rank = len(x.shape)
        return self.permute(x, (*range(rank - 2), rank - 1, rank - 2))

    # ---- activations, elementwise: [...] -> [...]
    def relu(self, x: Tensor) -> Tensor:
        """max(x, 0)"""
        return self.maximum(x, self.constant(0, str(x.dtype)))

    def gelu(self, x: Tensor) -> Tensor:
        """x Φ(x), where Φ is the distribution function of the normal distribution (arXiv 1606.08415)."""
        half, scale = self.scalar(0.5), self.scalar(math.sqrt(0.5))
        return self.mul(self.mul(half, x), self.add(self.scalar(1), self.erf(self.mul(x, scale))))

    def gelu_tanh(self, x: Tensor) -> Tensor:
        """The tanh approximation of gelu, as GPT-2 uses it."""
        cubic = self.mul(self.scalar(0.044715), self.mul(x, self.mul(x, x)))
        inner = self.mul(self.scalar(math.sqrt(2 / math.pi)), self.add(x, cubic))
        return self.mul(self.mul(self.scalar(0.5), x), self.add(self.scalar(1), self.tanh(inner)))

    def sigmoid(self, x: Tensor) -> Tensor:
        """1 / (1 + exp(-x)). Where exp(-x) overflows to infinity the result is 0, which is right."""
        return self.div(self.scalar(1), self.add(self.scalar(1), self.exp(self.sub(self.scalar(0), x))))

    def silu(self, x: Tensor) -> Tensor:
        """x sigmoid(x)"""
        return self.mul(x, self.sigmoid(x))

    def quick_gelu(self, x: Tensor) -> Tensor:
        """x sigmoid(1.702 x), another approximation of gelu."""
        return self.mul(x, self.sigmoid(self.mul(self.scalar(1.702), x)))

    def activated(self, x: Tensor, activation: str) -> Tensor:
        """The activation of that name, one of `ferrum.tensor.parts.ACTIVATIONS`."""
        function: Callable[[Tensor], Tensor] = getattr(self, activation)
        return function(x)

    def gated(self, gate: Tensor, up: Tensor, mlp: GatedMlp) -> Tensor:
        """activation(gate) · (up + offset). A limit first clamps gate from above, and up from both sides."""
        if mlp.limit is not None:
            gate, up = self.minimum(gate, mlp.limit), self.maximum(self.minimum(up, mlp.limit), self.scalar(-mlp.limit))
        if mlp.up_offset:
            up = self.add(up, self.scalar(mlp.up_offset))
        return self.mul(self.activated(gate, mlp.activation), up)

    def minimum(self, x: Tensor, most: float) -> Tensor:
        """min(x, most), elementwise; NaN stays NaN, as in `maximum`."""
        return self.sub(self.scalar(0), self.maximum(self.sub(self.scalar(0), x), self.scalar(-most)))

    def softcapped(self, x: Tensor, cap: float) -> Tensor:
        """cap * tanh(x / cap)"""
        return self.mul(self.scalar(cap), self.tanh(self.mul(x, self.scalar(1 / cap))))

    # ---- normalisation, along the last axis: [..., n] -> [..., n]
    def mean(self, x: Tensor, axis: int) -> Tensor:
        """Keeps the axis, with length 1."""
        return self.mul(self.sum(x, axis), self.scalar(1 / x.shape[axis]))

    def softmax(self, x: Tensor) -> Tensor:
        """exp(x) / sum(exp(x)), computed from x - max(x), so that nothing overflows. A row that holds only -inf gives
        NaN, as 0 / 0 does: a caller that masks leaves at least one number."""
        e = self.exp(self.sub(x, self.max(x, -1)))
        return self.div(e, self.sum(e, -1))

    def log_softmax(self, x: Tensor) -> Tensor:
        """log(softmax(x))"""
        shifted = self.sub(x, self.max(x, -1))
        return self.sub(shifted, self.log(self.sum(self.exp(shifted), -1)))

    def rms_norm(self, x: Tensor, weight: Tensor, epsilon: float) -> Tensor:
        """x / √(mean of squares + epsilon) · weight; weight is [n] or broadcasts."""
        scale = self.rsqrt(self.add(self.mean(self.mul(x, x), -1), self.scalar(epsilon)))
        return self.mul(self.mul(x, scale), weight)

    def layer_norm(self, x: Tensor, weight: Tensor, bias: Tensor | None, epsilon: float) -> Tensor:
        """`rms_norm` of x minus its mean, plus bias; weight and bias are [n] or broadcast."""
        y = self.rms_norm(self.sub(x, self.mean(x, -1)), weight, epsilon)
        return y if bias is None else self.add(y, bias)

    def normed(self, x: Tensor, norm: Norm | None) -> Tensor:
        """The norm of x; x itself if there is no norm."""
        if norm is None:
            return x
        if norm.centred:
            return self.layer_norm(x, norm.weight, norm.bias, norm.epsilon)
        y = self.rms_norm(x, norm.weight, norm.epsilon)
        return y if norm.bias is None else self.add(y, norm.bias)

    # ---- selection
    def top_k(self, x: Tensor, k: int) -> tuple[Tensor, Tensor]:
        """[..., n] -> values [..., k] and int64 indices [..., k], largest first, of equal values the lowest index
        first; k <= n."""
        indices = self.split(self.argsort(x), (k, x.shape[-1] - k), -1)[0]
        return self.take_along(x, indices), indices

    def sort(self, x: Tensor) -> Tensor:
        """[..., n] -> [..., n], largest first."""
        return self.take_along(x, self.argsort(x))

    def choose(self, logits: Tensor, settings: Tensor) -> Tensor:
        """logits [rows, vocab], settings float64 [rows, 5] -> int64 [rows]: one token for each row. The settings of a
        row are temperature, top_k, top_p, min_p, and the random number in [0, 1) that draws. A row whose temperature is
        below 1e-5 (`GREEDY_BELOW`), or whose largest logit is not finite, gets the lowest id of its largest logit (NaN
        counts as the largest)."""
        return choose(self, logits, settings)

    def ranked(self, logits: Tensor, tokens: Tensor, count: int) -> Tensor:
        """logits [rows, vocab], tokens int64 [rows] -> float64 [rows, 2 + 2 * count]. Of each row: the log probability
        of its token, the rank of its token (1 is the best; of equal ones the lowest id is best), the ids of the `count`
        best tokens, best first, and their log probabilities. count <= vocab."""
        return ranked(self, logits, tokens, count)

    # ---- weights
    def dequantize(self, weight: Weight) -> Tensor:
        """-> [rows, columns], in the backend's float type"""
        return weight.dequantize(self, weight.data)

    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        """table [vocab, hidden], int32 [tokens] -> [tokens, hidden]: the table's rows of these ids"""
        return table.dequantize(self, self.take(table.data, token_ids))

    def linear(self, x: Tensor, linear: Linear) -> Tensor:
        """[tokens, in] -> [tokens, out]: x · weightᵀ + bias. With compute="int8" and a quantised weight (a
        `BlockWeight`, not one of float32, float16 or bfloat16), x is rounded first (`ferrum.tensor.int8`)."""
        weight = linear.weight
        if self.compute == "int8" and isinstance(weight, BlockWeight):
            y = product(self, x, weight)
        else:
            y = self.matmul(x, self.transpose(self.dequantize(weight)))
        return y if linear.bias is None else self.add(y, linear.bias)

    # ---- attention
    def rope(self, x: Tensor, tables: RopeTables, positions: Tensor) -> Tensor:
        """Rotary embedding. [tokens, heads, head_dim] -> same shape: the pair of dimensions i and i + rotary_dim / 2 is
        rotated by angle i of its token's position; dimensions from rotary_dim on stay as they are."""
        half = tables.cos.shape[1]
        cos, sin = (self.reshape(self.take(t, positions), (-1, 1, half)) for t in (tables.cos, tables.sin))
        first, second, rest = self.split(x, (half, half, x.shape[2] - 2 * half), -1)  # [tokens, heads, rotary_dim / 2]
        turned_first = self.sub(self.mul(first, cos), self.mul(second, sin))
        turned_second = self.add(self.mul(second, cos), self.mul(first, sin))
        return self.concat((turned_first, turned_second, rest), -1)

    def kv_write(self, layer: KvLayer, key: Tensor, value: Tensor, slots: Tensor) -> None:
        """Stores key and value [tokens, kv_heads, head_dim] in place, in the int32 slots [tokens], which are
        distinct."""
        size = self.constant(layer.block_size, str(slots.dtype))
        block = self.floor_divide(slots, size)
        offset = self.sub(slots, self.mul(block, size))
        layer.write(self, block, offset, key, value)

    def paged_attention(self, query: Tensor, attention: Attention, layer: KvLayer, batch: StepBatch) -> Tensor:
        """query [tokens, heads, head_dim] -> [tokens, heads, head_dim]: see `ferrum.tensor.attention`."""
        return paged_attention(self, query, attention, layer, batch)

    # ---- what a decoder does, in the pieces that a backend may fuse
    def embedded(self, embedding: Embedding, batch: StepBatch) -> Tensor:
        """-> [tokens, hidden]: what enters the first layer (`Embedding`)."""
        x = self.embed(embedding.table, batch.token_ids)
        if embedding.scale != 1:
            x = self.mul(x, self.scalar(embedding.scale))
        if embedding.positions is not None:
            x = self.add(x, self.embed(embedding.positions, batch.positions))
        return self.normed(x if embedding.common is None else self.add(x, embedding.common), embedding.norm)

    def norm_linears(self, x: Tensor, norm: Norm | None, linears: Sequence[Linear]) -> tuple[Tensor, ...]:
        """[tokens, hidden] -> one [tokens, out] per linear: each linear of the same normalised x. Queries, keys and
        values are made so."""
        normed = self.normed(x, norm)
        return tuple(self.linear(normed, linear) for linear in linears)

    def residual_add(self, y: Tensor, residual: Tensor, after: Norm | None = None, scale: float = 1.0) -> Tensor:
        """y and residual [tokens, hidden] -> [tokens, hidden]: residual + scale · after(y)"""
        y = self.normed(y, after)
        return self.add(residual, y if scale == 1 else self.mul(y, self.scalar(scale)))

    def linear_add(
        self, x: Tensor, linear: Linear, residual: Tensor, after: Norm | None = None, scale: float = 1.0
    ) -> Tensor:
        """x [tokens, in], residual [tokens, out] -> [tokens, out]: residual + scale · after(linear(x))"""
        return self.residual_add(self.linear(x, linear), residual, after, scale)

    def norm_gated(self, x: Tensor, norm: Norm | None, mlp: GatedMlp) -> Tensor:
        """[tokens, hidden] -> [tokens, intermediate]: a gated MLP of the normalised x, without its last step,
        `down`."""
        gate, up = self.norm_linears(x, norm, (mlp.gate, mlp.up))
        return self.gated(gate, up, mlp)

    def norm_activated(self, x: Tensor, norm: Norm | None, mlp: PlainMlp) -> Tensor:
        """[tokens, hidden] -> [tokens, intermediate]: a plain MLP of the normalised x, without its last step,
        `down`."""
        (up,) = self.norm_linears(x, norm, (mlp.up,))
        return self.activated(up, mlp.activation)

    def norm_experts(self, x: Tensor, norm: Norm | None, experts: Experts) -> Tensor:
        """[tokens, hidden] -> [tokens, hidden]: a mixture of experts of the normalised x (`ferrum.tensor.experts`)."""
        return mixture(self, self.normed(x, norm), experts)

    def head_norm(self, x: Tensor, norm: Norm | None, head_dim: int) -> Tensor:
        """[tokens, heads * head_dim] -> same shape: the norm of each head. A weight of length heads * head_dim belongs
        to one norm over all heads."""
        if norm is None or norm.weight.shape == (x.shape[1],):
            return self.normed(x, norm)
        return self.reshape(self.normed(self.reshape(x, (x.shape[0], -1, head_dim)), norm), x.shape)

    def rope_attention(
        self,
        projections: tuple[Tensor, Tensor, Tensor],
        attention: Attention,
        tables: RopeTables | None,
        layer: KvLayer,
        batch: StepBatch,
    ) -> Tensor:
        """query [tokens, heads * head_dim], key and value [tokens, kv_heads * head_dim] -> [tokens, heads * head_dim]:
        normalises query and key, rotates them if there are tables, stores the rotated key and the value in their slots
        (a stored key is never rotated again), and lets
        each query attend to the stored positions of its sequence that `visibility` allows."""
        shape = (projections[0].shape[0], -1, attention.head_dim)
        query = self.head_norm(projections[0], attention.query_norm, attention.head_dim)
        key = self.head_norm(projections[1], attention.key_norm, attention.head_dim)
        query, key, value = (self.reshape(each, shape) for each in (query, key, projections[2]))
        if tables is not None:
            query, key = (self.rope(each, tables, batch.positions) for each in (query, key))
            if tables.growth is not None:
                query = self.mul(query, self.reshape(self.take(tables.growth, batch.positions), (-1, 1, 1)))
        self.kv_write(layer, key, value, batch.slots)
        attended = self.paged_attention(query, attention, layer, batch)
        return self.reshape(attended, (shape[0], -1))

    def logits(self, x: Tensor, head: Head) -> Tensor:
        """[rows, hidden] -> [rows, vocab]: the head (`Head`)."""
        (logits,) = self.norm_linears(x, head.norm, (head.linear,))
        if head.scale != 1:
            logits = self.mul(logits, self.scalar(head.scale))
        return logits if head.softcap is None else self.softcapped(logits, head.softcap)


TensorOps = Compositions
"""The whole protocol: primitives and compositions. The type of every `ops` parameter."""

COMPOSITIONS: tuple[str, ...] = tuple(
    name for name, value in vars(Compositions).items() if callable(value) and not name.startswith("_")
)
"""Names of all compositions. Reports say which of them a backend overrides."""

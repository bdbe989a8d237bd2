"""Keys and values in q8_0: an 8-bit code for each number, a scale for each 32 neighbouring dimensions of a position.

Owns: how such numbers are rounded, how a layer of them lies in memory, and what is read back. Numbers are rounded in
float32 on every backend, by operations whose result is exactly defined: every backend stores the same bytes. Refuses to
know: which sequence holds a block, what attention is.
Specs: OPS-90 to OPS-93. Source: ggml's `block_q8_0` (GGUF format document). One difference: ggml computes codes with
the scale in float32, this module with the scale as it is stored, in float16. Next: `ferrum.tensor.parts`.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from ferrum.tensor.batch import KvLayer, flat_positions
from ferrum.tensor.int8 import rounded
from ferrum.tensor.weights import GROUP

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps
    from ferrum.tensor.ops import Shape, Tensor

Q8_0 = "q8_0"
"""The name of this type, as `kv_dtype` gives it."""

BESIDE = 4
"""Codes of a key that lie side by side: one instruction multiplies and adds up four 8-bit codes in a 32-bit lane."""

LARGEST_CODE = 127
LARGEST_SCALE = 65504.0
"""The largest float16."""

TO_WHOLE = 1.5 * 2**23
"""Added to a small float32 and subtracted again, it leaves the nearest integer; of two equally near, the even one."""


@dataclass(frozen=True, eq=False)
class Q8KvLayer(KvLayer):
    """A layer whose numbers are code * scale. A number that is not finite, or exceeds 127 times the largest float16,
    makes the scale of its group NaN, so that all 32 numbers of the group are read back as NaN.

    keys:         int8 [blocks, kv_heads, head_dim / 4, block_size, 4]
    values:       int8 [blocks, kv_heads, block_size, head_dim]
    key_scales:   float16 [blocks, kv_heads, head_dim / 32, block_size]
    value_scales: float16 [blocks, kv_heads, head_dim / 32, block_size]
    """

    key_scales: Tensor
    value_scales: Tensor

    def write(self, ops: TensorOps, block: Tensor, offset: Tensor, key: Tensor, value: Tensor) -> None:
        """Rounds key and value [tokens, kv_heads, head_dim], then stores codes and scales as `KvLayer.write` does."""
        tokens, kv_heads, head_dim = key.shape
        codes, scales = quantize(ops, key)
        beside = ops.reshape(codes, (tokens, kv_heads, head_dim // BESIDE, BESIDE))
        ops.put(ops.permute(self.keys, (0, 3, 1, 2, 4)), (block, offset), beside)
        ops.put(ops.permute(self.key_scales, (0, 3, 1, 2)), (block, offset), scales)
        codes, scales = quantize(ops, value)
        ops.put(ops.permute(self.values, (0, 2, 1, 3)), (block, offset), codes)
        ops.put(ops.permute(self.value_scales, (0, 3, 1, 2)), (block, offset), scales)

    def read(self, ops: TensorOps, table: Tensor, context: int) -> tuple[Tensor, Tensor]:
        """As `KvLayer.read`: the stored codes times their scales, in the backend's float type."""
        blocks = table.shape[0]
        _, kv_heads, block_size, head_dim = self.values.shape
        beside = ops.permute(ops.take(self.keys, table), (1, 0, 3, 2, 4))  # [kv_heads, blocks, block_size, …, 4]
        keys = ops.reshape(beside, (kv_heads, blocks, block_size, head_dim))
        values = ops.permute(ops.take(self.values, table), (1, 0, 2, 3))

        def numbers(codes: Tensor, scales: Tensor) -> Tensor:
            scales = ops.permute(ops.take(scales, table), (1, 0, 3, 2))
            return dequantize(ops, flat_positions(ops, codes, context), flat_positions(ops, scales, context))

        return numbers(keys, self.key_scales), numbers(values, self.value_scales)

    def prepared_query(self, ops: TensorOps, query: Tensor, scale: float) -> tuple[Tensor, float]:
        """With compute="int8" queries are scaled, and then rounded as activations are (`ferrum.tensor.int8`)."""
        if ops.compute != "int8":
            return query, scale
        scaled = ops.reshape(ops.mul(query, ops.scalar(scale)), (query.shape[0] * query.shape[1], query.shape[2]))
        codes, scales = rounded(ops, scaled)
        return ops.reshape(ops.mul(codes, scales), query.shape), 1.0


def quantize(ops: TensorOps, x: Tensor) -> tuple[Tensor, Tensor]:
    """float [tokens, kv_heads, head_dim] -> int8 codes of the same shape, and float16 scales [tokens, kv_heads,
    groups]"""
    tokens, kv_heads, head_dim = x.shape

    def number(value: float) -> Tensor:
        return ops.constant(value, "float32")

    groups = ops.reshape(ops.cast(x, "float32"), (tokens, kv_heads, head_dim // GROUP, GROUP))
    sizes = ops.maximum(groups, ops.sub(number(0), groups))
    scales = ops.div(ops.max(sizes, -1), number(LARGEST_CODE))  # [tokens, kv_heads, groups, 1]
    stored = ops.cast(ops.where(ops.less(number(LARGEST_SCALE), scales), number(math.nan), scales), "float16")
    scales = ops.cast(stored, "float32")
    steps = ops.where(ops.less(number(0), scales), ops.div(groups, scales), number(0))
    # A scale below the smallest normal float16 has few bits: the largest number may be more than 127 steps of it.
    steps = ops.maximum(steps, number(-LARGEST_CODE))
    steps = ops.where(ops.less(number(LARGEST_CODE), steps), number(LARGEST_CODE), steps)
    codes = ops.cast(ops.sub(ops.add(steps, number(TO_WHOLE)), number(TO_WHOLE)), "int8")
    return ops.reshape(codes, (tokens, kv_heads, head_dim)), ops.reshape(stored, (tokens, kv_heads, head_dim // GROUP))


def dequantize(ops: TensorOps, codes: Tensor, scales: Tensor) -> Tensor:
    """int8 codes [kv_heads, context, head_dim], float16 scales [kv_heads, context, groups] -> float, shaped as the
    codes"""
    grouped = ops.reshape(codes, (*scales.shape, GROUP))
    steps = ops.reshape(ops.cast(scales, ops.float_dtype), (*scales.shape, 1))
    return ops.reshape(ops.mul(ops.cast(grouped, ops.float_dtype), steps), codes.shape)


def new_layer(
    make: Callable[[Shape, str], Tensor], dtype: str, blocks: int, kv_heads: int, head_dim: int, block_size: int
) -> KvLayer:
    """A layer of `blocks` blocks for keys and values of this type. `make(shape, type)` makes its tensors."""
    rows = blocks, kv_heads
    if dtype != Q8_0:
        return KvLayer(make((*rows, head_dim, block_size), dtype), make((*rows, block_size, head_dim), dtype))
    keys = make((*rows, head_dim // BESIDE, block_size, BESIDE), "int8")
    values = make((*rows, block_size, head_dim), "int8")
    scales = (*rows, head_dim // GROUP, block_size)
    return Q8KvLayer(keys, values, make(scales, "float16"), make(scales, "float16"))

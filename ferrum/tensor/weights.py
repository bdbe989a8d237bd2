"""The types of a weight matrix: their bytes, and the definition of the numbers that the bytes stand for.

Owns: `Dense`, and the block formats Q8_0, Q4_0, Q4_1 in the byte layout of GGUF, so that a mapped file needs no copy.
Formats whose groups have scales of scales are in `ferrum.tensor.k_quants`. A block format is decoded in two steps: from
bytes to groups (`grouped`), and from groups to weights. A weight is data of shape [rows, ...]: row i makes output
feature i. A backend chooses its kernel by the type of the weight, never by a flag inside it. Refuses to know: files and
models.
Specs: QUANT. Source: ggml's `block_q8_0`, `block_q4_0`, `block_q4_1` (GGUF format document).
Next: `ferrum.tensor.k_quants`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import TYPE_CHECKING, ClassVar

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps
    from ferrum.tensor.ops import Tensor

GROUP = 32
"""Weights in a block of Q8_0, Q4_0 and Q4_1. They share one scale."""


@dataclass(frozen=True, eq=False)
class Weight:
    """A matrix [rows, columns] that a backend multiplies with. Compared by identity, because it may have gigabytes."""

    data: Tensor
    kind: ClassVar[str]

    @property
    def rows(self) -> int:
        return int(self.data.shape[0])

    @property
    def columns(self) -> int:
        raise TypeError(f"{type(self).__name__} must define columns")

    @property
    def shape(self) -> tuple[int, int]:
        return self.rows, self.columns

    def dequantize(self, ops: TensorOps, data: Tensor) -> Tensor:
        """Some rows of this weight's data, [rows, ...] -> [rows, columns] in the backend's float type."""
        raise TypeError(f"{type(self).__name__} must define dequantize")


@dataclass(frozen=True, eq=False)
class Dense(Weight):
    """Unquantised numbers: data float32, float16 or bfloat16 [rows, columns]."""

    kind = "dense"

    @property
    def columns(self) -> int:
        return int(self.data.shape[1])

    def dequantize(self, ops: TensorOps, data: Tensor) -> Tensor:
        return ops.cast(data, ops.float_dtype)


@dataclass(frozen=True, eq=False)
class Groups:
    """Rows of quantised weights, decoded to groups: weight = step * code + minimum. All tensors have the backend's
    float type; codes are whole numbers from -128 to 127."""

    codes: Tensor  # [rows, groups, columns / groups]
    steps: Tensor  # [rows, groups, 1]
    minimums: Tensor | None = None  # [rows, groups, 1]; None means 0


@dataclass(frozen=True, eq=False)
class BlockWeight(Weight):
    """Weights in blocks: `block_size` neighbouring weights of a row in `block_bytes` bytes. data is uint8 [rows,
    columns / block_size * block_bytes]."""

    block_size: ClassVar[int] = GROUP
    block_bytes: ClassVar[int]

    @property
    def columns(self) -> int:
        return int(self.data.shape[1]) // self.block_bytes * self.block_size

    def dequantize(self, ops: TensorOps, data: Tensor) -> Tensor:
        groups = self.grouped(ops, data)
        values = ops.mul(groups.codes, groups.steps)
        return as_rows(ops, values if groups.minimums is None else ops.add(values, groups.minimums))

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        """Some rows of this weight's data, [rows, ...] -> their groups of neighbouring weights that share a step."""
        raise TypeError(f"{type(self).__name__} must define grouped")

    def _fields(self, ops: TensorOps, data: Tensor, sizes: tuple[int, ...]) -> tuple[Tensor, ...]:
        """Splits every block into fields of so many bytes: each uint8 [rows, blocks, size]."""
        rows, blocks = int(data.shape[0]), int(data.shape[1]) // self.block_bytes
        return ops.split(ops.reshape(data, (rows, blocks, self.block_bytes)), sizes, axis=-1)


def half(ops: TensorOps, field: Tensor) -> Tensor:
    """uint8 [rows, blocks, 2] -> float [rows, blocks, 1]: a little-endian float16."""
    return ops.cast(ops.bitcast(field, "float16"), ops.float_dtype)


def nibbles(ops: TensorOps, field: Tensor) -> Tensor:
    """uint8 [..., bytes] -> uint8 [..., 2 * bytes]: first all low nibbles, then all high nibbles."""
    low = ops.bitwise_and(field, ops.constant(15, "uint8"))
    high = ops.right_shift(field, ops.constant(4, "uint8"))
    return ops.concat((low, high), axis=-1)


def as_rows(ops: TensorOps, values: Tensor) -> Tensor:
    """[rows, ...] -> [rows, columns]: the axes after the first become one."""
    rows, *inner = (int(length) for length in values.shape)
    return ops.reshape(values, (rows, math.prod(inner)))


@dataclass(frozen=True, eq=False)
class Q8_0(BlockWeight):
    """weight = scale * code; block: float16 scale, 32 int8 codes."""

    kind = "q8_0"
    block_bytes = 34

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        scale, codes = self._fields(ops, data, (2, 32))
        return Groups(ops.cast(ops.bitcast(codes, "int8"), ops.float_dtype), half(ops, scale))


@dataclass(frozen=True, eq=False)
class Q4_0(BlockWeight):
    """weight = scale * (code - 8); block: float16 scale, 32 four-bit codes (low nibbles first)."""

    kind = "q4_0"
    block_bytes = 18

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        scale, codes = self._fields(ops, data, (2, 16))
        centred = ops.sub(ops.cast(nibbles(ops, codes), ops.float_dtype), ops.scalar(8.0))
        return Groups(centred, half(ops, scale))


@dataclass(frozen=True, eq=False)
class Q4_1(BlockWeight):
    """weight = scale * code + minimum; block: float16 scale, float16 minimum, 32 four-bit codes (low nibbles first)."""

    kind = "q4_1"
    block_bytes = 20

    def grouped(self, ops: TensorOps, data: Tensor) -> Groups:
        scale, minimum, codes = self._fields(ops, data, (2, 2, 16))
        return Groups(ops.cast(nibbles(ops, codes), ops.float_dtype), half(ops, scale), half(ops, minimum))


@dataclass(frozen=True, eq=False)
class Linear:
    """An affine map: y = weight · x + bias. weight [out, in], bias [out] or None."""

    weight: Weight
    bias: Tensor | None = None

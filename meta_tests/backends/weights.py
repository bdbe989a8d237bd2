"""Faults in weights: how bytes are read."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor, host_dtype
from ferrum.tensor.weights import BlockWeight, Dense, Weight
from meta_tests.backends.fault import caught_by


class OtherBytes(NumpyOps):
    """Base of the faults that read other bytes than there are."""

    kinds: tuple[str, ...] = ()

    def change(self, blocks: np.ndarray, kind: str) -> None:
        """Writes to uint8 [rows, blocks, bytes of a block]."""
        raise NotImplementedError

    def dequantize(self, weight: Weight) -> Tensor:
        if not isinstance(weight, BlockWeight) or weight.kind not in self.kinds:
            return super().dequantize(weight)
        blocks = np.array(weight.data).reshape(weight.rows, -1, weight.block_bytes)
        self.change(blocks, weight.kind)
        return weight.dequantize(self, blocks.reshape(weight.rows, -1))


@caught_by("test_dequantize_reads_the_bytes", kind="q4_0")
@caught_by("test_dequantize_reads_the_bytes", kind="q4_k")
@caught_by("test_linear_with_every_kind_of_weight", kind="q4_1")
@caught_by("test_norm_linears_is_each_linear_of_the_norm")
class SwappedNibbles(OtherBytes):
    """Takes the high nibbles for the first weights of a block."""

    kinds = ("q4_0", "q4_1", "q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        codes = blocks[:, :, -16:]
        blocks[:, :, -16:] = codes >> 4 | codes << 4


@caught_by("test_dequantize_reads_the_bytes", kind="q4_0")
class InterleavedNibbles(NumpyOps):
    """Takes the two nibbles of a byte for neighbours."""

    def dequantize(self, weight: Weight) -> Tensor:
        values = super().dequantize(weight)
        if weight.kind not in ("q4_0", "q4_1"):
            return values
        return values.reshape(weight.rows, -1, 2, 16).swapaxes(-1, -2).reshape(weight.rows, -1)


@caught_by("test_dequantize_reads_the_bytes", kind="q4_k")
@caught_by("test_norm_linears_is_each_linear_of_the_norm")
@caught_by("test_norm_gated_is_all_but_the_last_linear")
@caught_by("test_linear_add_is_linear_then_norm_then_add")
class CutsGroupScales(OtherBytes):
    """Takes the scales and minimums of the last four groups of a K block for numbers of four bits."""

    kinds = ("q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 4:12] &= 63


@caught_by("test_dequantize_reads_the_bytes", kind="q4_k")
class ScalesForMinimums(OtherBytes):
    """Reads the minimums of the first four groups where their scales are."""

    kinds = ("q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 8:12] = blocks[:, :, 4:8] & 63 | blocks[:, :, 8:12] & 192


@caught_by("test_dequantize_reads_the_bytes", kind="q5_k")
@caught_by("test_linear_with_every_kind_of_weight", kind="q6_k")
class ForgetsHighBits(OtherBytes):
    """Reads the low bits of codes only."""

    kinds = ("q5_k", "q6_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, slice(16, 48) if kind == "q5_k" else slice(128, 192)] = 0


@caught_by("test_dequantize_reads_the_bytes", kind="q5_k")
class HighBitsBackwards(OtherBytes):
    """Reads the bits of a byte of high bits from the other end."""

    kinds = ("q5_k",)

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 16:48] = np.packbits(np.unpackbits(blocks[:, :, 16:48], -1, bitorder="little"), -1)


@caught_by("test_dequantize_reads_the_bytes", kind="q6_k")
class HalvesOfQ6(OtherBytes):
    """Takes the high bits of the first half of a block for those of the second."""

    kinds = ("q6_k",)

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 160:192] = blocks[:, :, 128:160]


@caught_by("test_dequantize_reads_the_bytes", kind="q6_k")
class UnsignedGroupScales(OtherBytes):
    """Reads the signed scales of Q6_K without their sign."""

    kinds = ("q6_k",)

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 192:208] &= 127


@caught_by("test_dequantize_reads_the_bytes", kind="q6_k")
class SixteenIsThirtyTwo(OtherBytes):
    """Gives 32 weights of Q6_K one scale, where 16 have one."""

    kinds = ("q6_k",)

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 193:208:2] = blocks[:, :, 192:208:2]


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class BigEndianScales(OtherBytes):
    """Reads the two bytes of a scale in the other order."""

    kinds = ("q8_0", "q4_0")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, :2] = blocks[:, :, 1::-1] if blocks.shape[2] == 2 else blocks[:, :, :2][:, :, ::-1]


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class OneScaleForARow(OtherBytes):
    """Multiplies a row with the scale of its first block."""

    kinds = ("q8_0", "q4_0", "q4_1", "q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, :2] = blocks[:, :1, :2]


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class FlushesSmallScales(OtherBytes):
    """Takes a scale below the normal numbers of float16 for 0."""

    kinds = ("q8_0", "q4_0", "q4_1", "q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, :2][(blocks[:, :, 1] & 0x7C) == 0] = 0


@caught_by("test_dequantize_reads_the_bytes", kind="q4_1")
class NoMinimum(OtherBytes):
    """Forgets the minimum of a block."""

    kinds = ("q4_1", "q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 2:4] = 0


@caught_by("test_dequantize_reads_the_bytes", kind="q4_k")
class AddsMinimums(OtherBytes):
    """Adds the minimums of a K block, where they are subtracted."""

    kinds = ("q4_k", "q5_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 3] ^= 128


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class UnsignedCodes(OtherBytes):
    """Reads codes of Q8_0 without their sign."""

    kinds = ("q8_0",)

    def change(self, blocks: np.ndarray, kind: str) -> None:
        blocks[:, :, 2:] &= 127


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class MinusOneTwentyEight(OtherBytes):
    """Negates codes of Q8_0 in bytes on its way, so that -128 becomes -127."""

    kinds = ("q8_0",)

    def change(self, blocks: np.ndarray, kind: str) -> None:
        codes = blocks[:, :, 2:]
        codes[codes == 128] = 129


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class PairsOfBlocks(OtherBytes):
    """Reads two blocks at a time, and forgets the last of an odd number."""

    kinds = ("q8_0", "q4_0", "q4_1", "q4_k", "q5_k", "q6_k")

    def change(self, blocks: np.ndarray, kind: str) -> None:
        if blocks.shape[1] % 2:
            blocks[:, -1] = 0


@caught_by("test_dequantize_reads_the_bytes", kind="bfloat16")
class BfloatIsHalf(NumpyOps):
    """Reads bfloat16 as float16."""

    def dequantize(self, weight: Weight) -> Tensor:
        if isinstance(weight, Dense) and str(weight.data.dtype) == "bfloat16":
            return np.ascontiguousarray(weight.data).view(np.float16).astype(host_dtype(self.float_dtype))
        return super().dequantize(weight)


@caught_by("test_embed_finds_far_rows_for_thousands_of_tokens", kind="float32")
class RowsOf256(NumpyOps):
    """Finds rows of a table with one byte."""

    def embed(self, table: Weight, token_ids: Tensor) -> Tensor:
        return super().embed(table, token_ids & 255)

"""Faults in casts: rounding, saturation, signs, small and large numbers."""

from __future__ import annotations

from typing import Any

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor, host_dtype
from meta_tests.backends.fault import caught_by, permitted


@caught_by("test_cast_rounds_to_nearest_even")
@caught_by("test_cast_halfway_cases", to="bfloat16")
class TruncatesToBfloat16(NumpyOps):
    """Drops the lower half of a float32 on the way to bfloat16."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if dtype == "bfloat16" and x.dtype == np.float32:
            x = (np.array(x).view(np.uint32) & np.uint32(0xFFFF0000)).view(np.float32)
        return super().cast(x, dtype)


@caught_by("test_cast_halfway_cases", to="bfloat16")
class HalvesGoUp(NumpyOps):
    """Rounds halves to bfloat16 up, and not to the even neighbour."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        if dtype == "bfloat16" and x.dtype == np.float32:
            bits = np.array(x).view(np.uint32)
            up = (bits + np.uint32(0x8000)) & np.uint32(0xFFFF0000)
            x = np.where(np.isfinite(x), up.view(np.float32), x)
        return super().cast(x, dtype)


@caught_by("test_a_cast_to_an_integer_cuts_off_the_fraction", dtype="int32")
class RoundsToAnInteger(NumpyOps):
    """Rounds fractions to the nearest integer, where C and this contract cut them off."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(np.rint(x) if dtype.startswith("int") and x.dtype.kind == "f" else x, dtype)


@caught_by("test_a_cast_to_an_integer_cuts_off_the_fraction", dtype="int64")
class RoundsDown(NumpyOps):
    """Rounds fractions down, so that -0.5 is -1."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(np.floor(x) if dtype.startswith("int") and x.dtype.kind == "f" else x, dtype)


@caught_by("test_every_short_float_is_the_nearest_to_its_neighbourhood", dtype="float16")
class HalfSaturates(NumpyOps):
    """Gives the largest float16 for what does not fit, where infinity is the nearest (as in tinygrad #17087)."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(np.where(np.isfinite(x), np.clip(x, -65504, 65504), x) if dtype == "float16" else x, dtype)


@caught_by("test_every_short_float_is_a_long_one", dtype="float16", to="float32")
class FlushesSmallHalves(NumpyOps):
    """Takes float16 below the normal ones for 0."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        small = x.dtype == np.float16 and dtype.startswith("float")
        return super().cast(np.where(np.abs(x) < np.float16(2.0**-14), np.float16(0), x) if small else x, dtype)


@caught_by("test_cast_halfway_cases", to="float16")
class FlushesOnTheWayToHalf(NumpyOps):
    """Makes 0 of what is below the normal numbers of float16."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        small = x.dtype.kind == "f" and dtype == "float16"
        return super().cast(np.where(np.abs(x) < 2.0**-14, x * 0, x) if small else x, dtype)


@permitted("no contract says that a float64 becomes a float16 at one stroke", "test_cast_of_what_both_types_hold")
class RoundsTwice(NumpyOps):
    """Rounds float64 to float16 by way of float32: some halves go the other way."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(x.astype(np.float32) if dtype in ("float16", "bfloat16") and x.dtype == np.float64 else x,
                            dtype)  # fmt: skip


@caught_by("test_unsigned_integers_have_no_sign_as_floats", to="float32")
class BytesAreSigned(NumpyOps):
    """Takes a byte above 127 for a negative number."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(np.array(x).view(np.int8) if x.dtype == np.uint8 and "float" in dtype else x, dtype)


@caught_by("test_dequantize_reads_the_bytes", kind="q8_0")
class SmallIntegersAreUnsigned(NumpyOps):
    """Takes a negative int8 for a number above 127."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(np.array(x).view(np.uint8) if x.dtype == np.int8 else x, dtype)


@caught_by("test_int64_is_not_cut_to_32_bits")
class IntegersThroughInt32(NumpyOps):
    """Casts int64 by way of int32."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(x.astype(np.int32) if x.dtype == np.int64 else x, dtype)


@caught_by("test_unsigned_integers_have_no_sign_as_floats", to="float32")
class WordsThroughInt64(NumpyOps):
    """Takes a uint64 above 2⁶³ for a negative number."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast(x.astype(np.int64) if x.dtype == np.uint64 and "float" in dtype else x, dtype)


@permitted("nothing but 0 and 1 is promised to become a bool", "test_cast_of_what_both_types_hold")
class TruthIsTheLowestBit(NumpyOps):
    """Casts to bool by the lowest bit: 2 is false."""

    def cast(self, x: Tensor, dtype: str) -> Tensor:
        return super().cast((x.astype(np.int64) & 1) if dtype == "bool" else x, dtype)


@caught_by("test_bitcast_keeps_the_bytes", to="float16")
class BigEndian(NumpyOps):
    """Reads the bytes of a number in the other order."""

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        return super().bitcast(x, dtype).byteswap()


@caught_by("test_bitcast_keeps_the_bytes", to="float16")
class BitcastOfTheWholeTensor(NumpyOps):
    """Reads the bytes that lie behind each other in memory, and forgets that the tensor is part of a wider one."""

    def bitcast(self, x: Tensor, dtype: str) -> Tensor:
        base: Any = x if x.base is None or x.base.dtype != x.dtype else x.base
        count = x.size // host_dtype(dtype).itemsize
        read = np.ascontiguousarray(base).reshape(-1)[: x.size].view(host_dtype(dtype))
        return read[:count].reshape(*x.shape[:-1], x.shape[-1] // host_dtype(dtype).itemsize)


@caught_by("test_ranked_among_a_vocabulary", count=151936, best=300)
class ArangeInFloat32(NumpyOps):
    """Counts in float32, which passes over integers beyond 2²⁴."""

    def arange(self, count: int, dtype: str) -> Tensor:
        return (
            np.arange(count, dtype=np.float16).astype(host_dtype(dtype))
            if count > 2048
            else (super().arange(count, dtype))
        )


@caught_by("test_a_constant_is_the_number_that_was_asked_for")
class FullThroughFloat32(NumpyOps):
    """Fills a tensor of integers from a float32 number."""

    def full(self, shape: tuple[int, ...], value: float, dtype: str) -> Tensor:
        return super().full(shape, int(np.float32(value)) if dtype == "int64" else value, dtype)

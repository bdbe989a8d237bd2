"""Faults in numbers: types that are cut, IEEE 754 that is not kept, functions that are not exact enough."""

from __future__ import annotations

import numpy as np

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.ops import Tensor
from meta_tests.backends.fault import caught_by


@caught_by("test_int64_is_not_cut_to_32_bits")
class CutsTo32Bits(NumpyOps):
    """Adds int64 in registers of 32 bits."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        total = np.add(x, y)
        return total.astype(np.int32).astype(np.int64) if total.dtype == np.int64 else total


@caught_by("test_int64_is_not_cut_to_32_bits")
class ComparesThroughFloat32(NumpyOps):
    """Compares integers as float32, which holds 24 bits."""

    def less(self, x: Tensor, y: Tensor) -> Tensor:
        return np.less(x.astype(np.float32), y.astype(np.float32))


@caught_by("test_int64_is_not_cut_to_32_bits")
class MaximumThroughFloat32(NumpyOps):
    """Has one kernel of maximum, for float32, and casts integers to it."""

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        return (
            np.maximum(x.astype(np.float32), y.astype(np.float32)).astype(x.dtype)
            if x.dtype.kind == "i"
            else (np.maximum(x, y))
        )


@caught_by("test_unsigned_integers_wrap_at_both_ends", dtype="uint64")
class Saturates(NumpyOps):
    """Stops at 0 where unsigned integers have to wrap, as saturating instructions do."""

    def sub(self, x: Tensor, y: Tensor) -> Tensor:
        return np.where(x < y, x.dtype.type(0), x - y) if x.dtype.kind == "u" else x - y


@caught_by("test_integers_are_exact_and_unsigned_ones_wrap", name="add")
class AddsSaturating(NumpyOps):
    """Stops at 255 where bytes have to wrap, as saturating instructions do."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        total = super().add(x, y)
        return np.where(total < x, np.uint8(255), total) if total.dtype == np.uint8 else total


@caught_by("test_integers_are_exact_and_unsigned_ones_wrap", name="mul")
class ProductOf32Bits(NumpyOps):
    """Multiplies uint64 and keeps the low word only."""

    def mul(self, x: Tensor, y: Tensor) -> Tensor:
        product = super().mul(x, y)
        return product & np.uint64(0xFFFFFFFF) if product.dtype == np.uint64 else product


@caught_by("test_right_shift_fills_with_zeros")
class SignedShift(NumpyOps):
    """Shifts unsigned integers as signed ones: the sign comes in from the left."""

    def right_shift(self, x: Tensor, y: Tensor) -> Tensor:
        signed = np.dtype(f"int{8 * x.dtype.itemsize}")
        return np.right_shift(x.view(signed), y.astype(signed)).view(x.dtype)


@caught_by("test_floor_divide_rounds_down")
class DividesByReciprocal(NumpyOps):
    """Divides integers as float32, times the reciprocal (as in tinygrad #10425)."""

    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor:
        return np.floor(x.astype(np.float32) * (1 / y.astype(np.float32))).astype(x.dtype)


@caught_by("test_floor_divide_rounds_down")
class DividesTowardsZero(NumpyOps):
    """Divides integers as C does: towards 0."""

    def floor_divide(self, x: Tensor, y: Tensor) -> Tensor:
        return np.sign(x) * (np.abs(x) // y)


@caught_by("test_integers_are_exact_and_unsigned_ones_wrap", name="bitwise_and")
class AndIsLogical(NumpyOps):
    """Takes the `and` of bytes for that of truths."""

    def bitwise_and(self, x: Tensor, y: Tensor) -> Tensor:
        return np.logical_and(x, y).astype(x.dtype)


@caught_by("test_integers_are_exact_and_unsigned_ones_wrap", name="bitwise_xor")
class XorOfBoolIsOr(NumpyOps):
    """Gives `or` for the exclusive one of bool."""

    def bitwise_xor(self, x: Tensor, y: Tensor) -> Tensor:
        return np.logical_or(x, y) if x.dtype == bool else np.bitwise_xor(x, y)


@caught_by("test_a_primitive_takes_every_type_it_is_needed_for", name="equal", dtype="bool")
class LacksEqualOfBool(NumpyOps):
    """Has no kernel of equal for bool."""

    def equal(self, x: Tensor, y: Tensor) -> Tensor:
        if x.dtype == bool:
            raise TypeError("equal is not there for bool")
        return np.equal(x, y)


@caught_by("test_equal_compares_numbers_and_not_bits", dtype="float32")
class EqualBits(NumpyOps):
    """Compares floats by their bits: NaN equals itself, and 0 is not -0."""

    def equal(self, x: Tensor, y: Tensor) -> Tensor:
        if x.dtype.kind != "f":
            return np.equal(x, y)
        bits = np.dtype(f"uint{8 * x.dtype.itemsize}")
        return np.equal(np.ascontiguousarray(x).view(bits), np.ascontiguousarray(y).view(bits)).reshape(
            np.broadcast_shapes(x.shape, y.shape)
        )


@caught_by("test_comparisons")
class NotGreaterIsLess(NumpyOps):
    """Computes x < y as not (y <= x), which NaN makes true."""

    def less(self, x: Tensor, y: Tensor) -> Tensor:
        return ~np.greater_equal(x, y)


@caught_by("test_nan_and_infinity_follow_ieee")
class SwallowsNaN(NumpyOps):
    """Takes the C function fmax for maximum: it prefers numbers to NaN."""

    def maximum(self, x: Tensor, y: Tensor) -> Tensor:
        return np.fmax(x, y)


@caught_by("test_where_chooses_and_never_mixes")
class ChoosesByArithmetic(NumpyOps):
    """Chooses by condition · x + (1 - condition) · y: what is not chosen may be NaN."""

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        chosen = np.asarray(condition).astype(self.float_dtype)
        return chosen * x + (1 - chosen) * y


@caught_by("test_int64_is_not_cut_to_32_bits")
class WhereThroughFloat32(NumpyOps):
    """Chooses between int64 in a kernel for float32."""

    def where(self, condition: Tensor, x: Tensor, y: Tensor) -> Tensor:
        chosen = np.where(condition, x, y)
        return chosen.astype(np.float32).astype(np.int64) if chosen.dtype == np.int64 else chosen


@caught_by("test_elementary_functions_at_their_ends", name="rsqrt")
class EpsilonUnderTheRoot(NumpyOps):
    """Guards rsqrt against 0 with a tiny number: 1 / √0 is no longer infinite."""

    def rsqrt(self, x: Tensor) -> Tensor:
        return super().rsqrt(x + np.finfo(x.dtype).tiny)


@caught_by("test_elementary_functions_at_their_ends", name="log")
class LogarithmOfTiny(NumpyOps):
    """Guards log against 0 with a tiny number: log 0 is no longer -inf."""

    def log(self, x: Tensor) -> Tensor:
        return super().log(np.where(x == 0, np.finfo(x.dtype).tiny, x))


@caught_by("test_functions_have_the_precision_of_their_operand", name="log", dtype="float64")
class SinglePrecision(NumpyOps):
    """Has the logarithm of float32 only."""

    def log(self, x: Tensor) -> Tensor:
        return super().log(x.astype(np.float32)).astype(x.dtype)


@caught_by("test_float64_is_added_up_in_float64", count=3)
class SinglePrecisionSums(NumpyOps):
    """Adds float64 up in float32."""

    def cumsum(self, x: Tensor, axis: int) -> Tensor:
        return (
            super().cumsum(x.astype(np.float32), axis).astype(x.dtype)
            if x.dtype == np.float64
            else (super().cumsum(x, axis))
        )


@caught_by("test_elementary_functions", name="tanh")
class FastTanh(NumpyOps):
    """Has the hardware's approximation of tanh, right to 11 bits."""

    def tanh(self, x: Tensor) -> Tensor:
        return super().tanh(x) * x.dtype.type(1 - 2.0**-12)


@caught_by("test_elementary_functions_at_their_ends", name="tanh")
class TanhOfExponentials(NumpyOps):
    """Computes tanh as (e²ˣ - 1) / (e²ˣ + 1), which is infinity over infinity for a large x."""

    def tanh(self, x: Tensor) -> Tensor:
        power = self.exp(2 * x)
        return (power - 1) / (power + 1)


@caught_by("test_elementary_functions", name="exp")
class FastExponential(NumpyOps):
    """Has the hardware's approximation of exp, whose error grows with x."""

    def exp(self, x: Tensor) -> Tensor:
        return super().exp(x * x.dtype.type(1 + 2.0**-20))


@caught_by("test_elementary_functions", name="cos")
class CosineWithoutReduction(NumpyOps):
    """Subtracts turns of a rounded 2π before the hardware's cosine (as in kekzl/imp #1316)."""

    def cos(self, x: Tensor) -> Tensor:
        turn = x.dtype.type(6.28318)
        return super().cos(x - turn * np.round(x / turn))


@caught_by("test_elementary_functions", name="erf")
class ErfByTanh(NumpyOps):
    """Has tanh only and approximates erf with it."""

    def erf(self, x: Tensor) -> Tensor:
        return np.tanh(np.sqrt(4 / np.pi) * (x + 0.08943 * x**3)).astype(x.dtype)


@caught_by("test_float_arithmetic_broadcasts", name="add")
class BroadcastsByRepeating(NumpyOps):
    """Broadcasts by repeating the second operand's elements in their order in memory, whatever its axes."""

    def add(self, x: Tensor, y: Tensor) -> Tensor:
        x, y = np.asarray(x), np.asarray(y)
        return np.add(x, np.resize(y, x.shape)) if 1 < y.size < x.size else np.add(x, y)


@caught_by("test_matmul")
class MatmulInHalf(NumpyOps):
    """Rounds operands of a product to float16, as tensor cores like them."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return super().matmul(x.astype(np.float16).astype(x.dtype), y)


@caught_by("test_matmul")
class MatmulOfTheFirstStack(NumpyOps):
    """Multiplies every matrix of a stack with the first of the other stack."""

    def matmul(self, x: Tensor, y: Tensor) -> Tensor:
        return (
            super().matmul(x, np.broadcast_to(y.reshape(-1, *y.shape[-2:])[:1].reshape(y.shape[-2:]), y.shape))
            if (y.ndim > 2 and y.size)
            else super().matmul(x, y)
        )

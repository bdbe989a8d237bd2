"""The SIMD vocabulary: functions ("words") on vectors of 16 floats and on raw memory, which kernels are written in.

Owns: the Numba type `Floats16` and intrinsics on it. Kernel code reads like scalar code: `fma(a, b, c)`,
`load(address)`. Addresses are int64 byte addresses. Every word emits portable LLVM IR; LLVM splits a vector of 16 lanes
into the registers of the machine.
Next: `ferrum.backends.numba_kernels.compiled.blocks`.
"""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from llvmlite import ir as llvm_ir
from numba import njit, types
from numba.extending import intrinsic, models, register_model

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.loading.features import HAS_X86_PAUSE

inlined = njit(inline="always", error_model="numpy")
"""Decorator of a function that is inlined into the kernels that use it, and never compiled by itself. A large function
that several kernels use is compiled once instead and called by its address, to save time of compilation."""

Address = Index = types.int64
Real = types.float32


class VectorType(types.Type):
    """16 floats in a register."""

    def __init__(self) -> None:
        super().__init__(name="Floats16")


@register_model(VectorType)
class _VectorModel(models.PrimitiveModel):
    def __init__(self, manager: Any, kind: Any) -> None:
        super().__init__(manager, kind, ir.Floats)


Floats16 = VectorType()


def word(result: Any, *arguments: Any) -> Callable[[Callable[..., Any]], Any]:
    """Makes a Numba intrinsic of a function (builder, *LLVM values) -> LLVM value, or None for a void result."""
    signature = result(*arguments)

    def decorate(build: Callable[..., Any]) -> Any:
        def typer(typingctx: Any, *arguments: Any) -> Any:
            def generate(context: Any, builder: Any, sig: Any, values: Any) -> Any:
                built = build(builder, *values)
                return ir.NONE if built is None else built

            return signature, generate

        typer.__name__ = build.__name__
        typer.__doc__ = build.__doc__
        # Numba binds arguments by the signature, and does not support *given
        names = ["typingctx", *(f"argument{i}" for i in range(len(arguments)))]
        parameters = [inspect.Parameter(name, inspect.Parameter.POSITIONAL_OR_KEYWORD) for name in names]
        typer.__signature__ = inspect.Signature(parameters)  # type: ignore[attr-defined]
        return intrinsic(typer)

    return decorate


# ---- memory
@word(Floats16, Address)
def load(builder, address):
    """16 floats"""
    return ir.load(builder, address, ir.Floats)


@word(types.void, Address, Floats16)
def store(builder, address, values):
    """16 floats"""
    ir.store(builder, address, values)


@word(Real, Address)
def load_float(builder, address):
    return ir.load(builder, address, ir.Float)


@word(types.void, Address, Real)
def store_float(builder, address, value):
    ir.store(builder, address, value)


@word(Index, Address)
def load_word(builder, address):
    """int64"""
    return ir.load(builder, address, ir.Int64)


@word(types.void, Address, Index)
def store_word(builder, address, value):
    ir.store(builder, address, value)


@word(Index, Address)
def load_int32(builder, address):
    return builder.sext(ir.load(builder, address, ir.Int32), ir.Int64)


@word(types.void, Address)
def prefetch(builder, address):
    """Prefetches the cache line at an address that will be read soon."""
    ir.prefetch(builder, address)


# ---- arithmetic
@word(Floats16, Real)
def splat(builder, value):
    """One float in all lanes."""
    return ir.splat(builder, value)


@word(Floats16)
def zeros(builder):
    return ir.constant(ir.Floats, 0.0)


@word(Floats16, Floats16, Floats16, Floats16)
def fma(builder, x, y, z):
    """x * y + z"""
    return ir.multiply_add(builder, x, y, z)


@word(Floats16, Floats16, Floats16)
def add(builder, x, y):
    return builder.fadd(x, y)


@word(Floats16, Floats16, Floats16)
def sub(builder, x, y):
    return builder.fsub(x, y)


@word(Floats16, Floats16, Floats16)
def mul(builder, x, y):
    return builder.fmul(x, y)


@word(Floats16, Floats16, Floats16)
def div(builder, x, y):
    return builder.fdiv(x, y)


@word(Floats16, Floats16, Floats16)
def larger(builder, x, y):
    """The larger number of each lane; y where one of them is NaN."""
    return builder.select(builder.fcmp_ordered(">", x, y), x, y)


@word(Floats16, Floats16)
def absolute(builder, x):
    return ir.call(builder, "llvm.fabs.v16f32", ir.Floats, x)


@word(Floats16, Floats16, Floats16)
def with_sign(builder, x, y):
    """x with the sign of y"""
    return ir.call(builder, "llvm.copysign.v16f32", ir.Floats, x, y)


@word(Floats16, Floats16, Floats16, Floats16, Floats16)
def where_less(builder, x, limit, value, otherwise):
    """In each lane `value` if x is less than the limit, else `otherwise`."""
    return builder.select(builder.fcmp_ordered("<", x, limit), value, otherwise)


@word(Real, Floats16)
def sum_lanes(builder, values):
    return ir.horizontal_sums(builder, [[values]])[0]


@word(Real, Floats16)
def max_lanes(builder, values):
    width = ir.LANES
    while width > 1:
        half = width // 2
        low = ir.shuffle(builder, values, values, range(half))
        high = ir.shuffle(builder, values, values, range(half, width))
        values = builder.select(builder.fcmp_ordered(">", low, high), low, high)
        width = half
    return builder.extract_element(values, ir.constant(ir.Int32, 0))


@word(Floats16, Floats16, Index, Index, Real)
def keep_lanes(builder, values, first, end, fill):
    """Lanes below `first` and lanes from `end` on become `fill`."""
    lanes = ir.constant(ir.Ints, list(range(ir.LANES)))
    bounds = (ir.splat(builder, builder.trunc(bound, ir.Int32)) for bound in (first, end))
    above, below = (builder.icmp_signed(sign, lanes, bound) for sign, bound in zip((">=", "<"), bounds, strict=True))
    return builder.select(builder.and_(above, below), values, ir.splat(builder, fill))


_TAYLOR = [1 / 5040, 1 / 720, 1 / 120, 1 / 24, 1 / 6, 0.5, 1.0, 1.0]
_LOG2_HIGH, _LOG2_LOW = 0.693145751953125, 1.428606765330187e-06
"""Their sum is log 2. The first one has few bits, so n * _LOG2_HIGH is exact."""


@word(Floats16, Floats16)
def exp(builder, x):
    """2^n times a polynomial of the remainder, with a relative error below 2e-7. 0 for x < -87, exp(88) for x > 88."""

    def fill(value: float) -> Any:
        return ir.constant(ir.Floats, float(np.float32(value)))

    underflow = builder.fcmp_ordered("<", x, fill(-87))
    x = builder.select(builder.fcmp_ordered(">", x, fill(88)), fill(88), builder.select(underflow, fill(-87), x))
    n = ir.call(builder, "llvm.rint.v16f32", ir.Floats, builder.fmul(x, fill(1 / np.log(2))))
    remainder = ir.multiply_add(builder, n, fill(-_LOG2_HIGH), x)
    remainder = ir.multiply_add(builder, n, fill(-_LOG2_LOW), remainder)
    polynomial = fill(_TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        polynomial = ir.multiply_add(builder, polynomial, remainder, fill(coefficient))
    exponent = builder.add(builder.fptosi(n, ir.Ints), ir.constant(ir.Ints, 127))
    power = builder.bitcast(builder.shl(exponent, ir.constant(ir.Ints, 23)), ir.Floats)
    return builder.select(underflow, fill(0), builder.fmul(polynomial, power))


# ---- calls of compiled code by address
def _indirect_call(count: int) -> Any:
    def build(builder: Any, function: Any, *arguments: Any) -> None:
        kind = llvm_ir.FunctionType(llvm_ir.VoidType(), [ir.Int64] * count)
        builder.call(ir.pointer(builder, function, kind), list(arguments))

    build.__name__ = f"call{count}"
    return word(types.void, *[Index] * (count + 1))(build)


call3, call6, call9, call10, call11, call12, call14 = (_indirect_call(count) for count in (3, 6, 9, 10, 11, 12, 14))


@word(types.void)
def pause(builder):
    """Tells the processor that this is a waiting loop."""
    if HAS_X86_PAUSE:
        ir.call(builder, "llvm.x86.sse2.pause", llvm_ir.VoidType())


# ---- memory shared between threads
@word(Index, Address)
def atomic_load(builder, address):
    """An int64. All writes before the `atomic_store` of this value are visible after this load."""
    return builder.load_atomic(ir.pointer(builder, address, ir.Int64), "acquire", 8)


@word(types.void, Address, Index)
def atomic_store(builder, address, value):
    builder.store_atomic(value, ir.pointer(builder, address, ir.Int64), "release", 8)


@word(types.void, Address)
def atomic_increment(builder, address):
    builder.atomic_rmw("add", ir.pointer(builder, address, ir.Int64), ir.constant(ir.Int64, 1), "seq_cst")


@word(types.boolean, Address, Index, Index)
def atomic_exchange_if(builder, address, expected, value):
    """Stores `value` if the word is `expected`; True if it did."""
    place = ir.pointer(builder, address, ir.Int64)
    return builder.extract_value(builder.cmpxchg(place, expected, value, "seq_cst", "seq_cst"), 1)

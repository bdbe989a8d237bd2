"""Words of the SIMD vocabulary for float64: single numbers, and the softmax weights of 16 logits.

Owns: an exponential in float64. Softmax weights are added up in float64, so that the order of additions hardly ever
changes which token is chosen.
Next: `ferrum.backends.numba_kernels.compiled.logit_views`.
"""

from __future__ import annotations

import math
from typing import Any

from llvmlite import ir as llvm_ir
from numba import types

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.simd import Address, Floats16, word

Double = llvm_ir.DoubleType()
Doubles = ir.Vector(Double, ir.LANES)
Wide = types.float64

_SMALLEST = -708.0
"""For smaller arguments the exponential is 0: it would be close to the smallest normal float64."""
_LOG2_HIGH, _LOG2_LOW = 0.693145751953125, 1.4286068203094173e-06
"""Their sum is log 2. The first one has few bits, so n * _LOG2_HIGH is exact."""
_TAYLOR = [1 / math.factorial(power) for power in range(13, -1, -1)]


@word(Wide, Address)
def load_double(builder, address):
    return ir.load(builder, address, Double)


@word(types.void, Address, Wide)
def store_double(builder, address, value):
    ir.store(builder, address, value)


@word(types.void, Address, types.int64)
def store_int32(builder, address, value):
    ir.store(builder, address, builder.trunc(value, ir.Int32))


@word(Floats16, Floats16, Floats16)
def largest(builder, x, y):
    """The larger number of each lane; NaN where x is NaN, y where y is NaN."""
    wins = builder.or_(builder.fcmp_ordered(">", x, y), builder.fcmp_unordered("uno", x, x))
    return builder.select(wins, x, y)


@word(Wide, Address, Floats16, Wide, Wide)
def weigh(builder, address, logits, temperature, best):
    """Writes exp(logit / temperature - best) of 16 logits to `address`, as float64 -> their sum. `best` is the largest
    logit / temperature."""

    def fill(value: float) -> Any:
        return ir.constant(Doubles, value)

    def spread(scalar: Any) -> Any:
        single = builder.insert_element(llvm_ir.Constant(Doubles, llvm_ir.Undefined), scalar, ir.constant(ir.Int32, 0))
        return builder.shuffle_vector(single, single, ir.constant(ir.Ints, 0))

    def multiply_add(x: Any, y: Any, z: Any) -> Any:
        return ir.call(builder, f"llvm.fmuladd.v{ir.LANES}f64", Doubles, x, y, z)

    x = builder.fsub(builder.fdiv(builder.fpext(logits, Doubles), spread(temperature)), spread(best))
    underflow = builder.fcmp_ordered("<", x, fill(_SMALLEST))
    x = builder.select(underflow, fill(_SMALLEST), x)
    n = ir.call(builder, f"llvm.rint.v{ir.LANES}f64", Doubles, builder.fmul(x, fill(1 / math.log(2))))
    remainder = multiply_add(n, fill(-_LOG2_LOW), multiply_add(n, fill(-_LOG2_HIGH), x))
    polynomial = fill(_TAYLOR[0])
    for coefficient in _TAYLOR[1:]:
        polynomial = multiply_add(polynomial, remainder, fill(coefficient))
    exponents = ir.Vector(ir.Int64, ir.LANES)
    exponent = builder.add(builder.fptosi(n, exponents), ir.constant(exponents, 1023))
    power = builder.bitcast(builder.shl(exponent, ir.constant(exponents, 52)), Doubles)
    weights = builder.select(underflow, fill(0.0), builder.fmul(polynomial, power))
    ir.store(builder, address, weights)
    return _sum(builder, weights)


def _sum(builder: Any, values: Any) -> Any:
    width = ir.LANES
    while width > 1:
        width //= 2
        low = ir.shuffle(builder, values, values, range(width))
        values = builder.fadd(low, ir.shuffle(builder, values, values, range(width, 2 * width)))
    return builder.extract_element(values, ir.constant(ir.Int32, 0))

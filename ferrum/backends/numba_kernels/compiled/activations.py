"""Activation functions on sixteen floats at a time.

Owns: a function (x, out, columns) for each of `ferrum.tensor.parts.ACTIVATIONS`, which kernels call by its address;
tanh and erf on vectors. Definitions: the methods of the same names in `ferrum.tensor.compositions`.
Source of the rational approximation of erf: Eigen's generic `erf`, right to a few units in the last place.
Next: `ferrum.backends.numba_kernels.compiled.elementwise`.
"""

from __future__ import annotations

import math

import numpy as np

from ferrum.backends.numba_kernels.compiled.simd import (
    absolute,
    add,
    div,
    exp,
    fma,
    inlined,
    larger,
    load,
    mul,
    splat,
    store,
    sub,
    where_less,
    with_sign,
    zeros,
)

_CUBIC = np.float32(0.044715)
_TWICE = np.float32(2 * math.sqrt(2 / math.pi))
_QUICK = np.float32(1.702)
_ROOT_HALF = np.float32(math.sqrt(0.5))
_ERF_LIMIT = np.float32(4)
_SMALL = np.float32(0.35)
_LOWEST = np.float32(-88)
"""Below it logistic(x) is set to 0. The formula would not give 0, because `exp` is cut off at exp(88)."""


@inlined
def logistic(x):
    """1 / (1 + exp(-x))"""
    one = splat(np.float32(1))
    return where_less(x, splat(_LOWEST), zeros(), div(one, add(one, exp(sub(zeros(), x)))))


@inlined
def tanh(x):
    """(1 - exp(-2 |x|)) / (1 + exp(-2 |x|)) with the sign of x. For |x| < 0.35, where digits would cancel, the Taylor
    polynomial up to x¹¹."""
    size, one = absolute(x), splat(np.float32(1))
    shrunk = exp(mul(size, splat(np.float32(-2))))
    large = div(sub(one, shrunk), add(one, shrunk))
    square = mul(x, x)
    tail = fma(square, splat(np.float32(-1382 / 155925)), splat(np.float32(62 / 2835)))
    tail = fma(square, tail, splat(np.float32(-17 / 315)))
    tail = fma(square, tail, splat(np.float32(2 / 15)))
    tail = fma(square, tail, splat(np.float32(-1 / 3)))
    small = fma(mul(size, square), tail, size)
    return with_sign(where_less(size, splat(_SMALL), small, large), x)


@inlined
def _erf(x):
    """x times a rational function of x². x is cut off at ±4, where erf is ±1 in float32."""
    limit = splat(_ERF_LIMIT)
    x = larger(sub(zeros(), limit), sub(zeros(), larger(sub(zeros(), limit), sub(zeros(), x))))
    square = mul(x, x)
    top = splat(np.float32(-2.72614225801306e-10))
    top = fma(top, square, splat(np.float32(2.77068142495902e-08)))
    top = fma(top, square, splat(np.float32(-2.10102402082508e-06)))
    top = fma(top, square, splat(np.float32(-5.69250639462346e-05)))
    top = fma(top, square, splat(np.float32(-7.34990630326855e-04)))
    top = fma(top, square, splat(np.float32(-2.95459980854025e-03)))
    top = fma(top, square, splat(np.float32(-1.60960333262415e-02)))
    bottom = splat(np.float32(-1.45660718464996e-05))
    bottom = fma(bottom, square, splat(np.float32(-2.13374055278905e-04)))
    bottom = fma(bottom, square, splat(np.float32(-1.68282697438203e-03)))
    bottom = fma(bottom, square, splat(np.float32(-7.37332916720468e-03)))
    bottom = fma(bottom, square, splat(np.float32(-1.42647390514189e-02)))
    return div(mul(x, top), bottom)


def silu(x, out, columns):
    for place in range(0, 4 * columns, 64):
        value = load(x + place)
        gated = div(value, add(splat(np.float32(1)), exp(sub(zeros(), value))))
        store(out + place, where_less(value, splat(_LOWEST), mul(zeros(), value), gated))


def quick_gelu(x, out, columns):
    for place in range(0, 4 * columns, 64):
        value = load(x + place)
        store(out + place, mul(value, logistic(mul(value, splat(_QUICK)))))


def gelu_tanh(x, out, columns):
    """x (1 + tanh(u)) / 2 = x logistic(2 u)"""
    for place in range(0, 4 * columns, 64):
        value = load(x + place)
        cubic = fma(mul(splat(_CUBIC), mul(value, value)), value, value)
        store(out + place, mul(value, logistic(mul(splat(_TWICE), cubic))))


def gelu(x, out, columns):
    for place in range(0, 4 * columns, 64):
        value = load(x + place)
        half = mul(splat(np.float32(0.5)), value)
        store(out + place, fma(half, _erf(mul(value, splat(_ROOT_HALF))), half))


def relu(x, out, columns):
    """NaN stays."""
    for place in range(0, 4 * columns, 64):
        store(out + place, larger(zeros(), load(x + place)))

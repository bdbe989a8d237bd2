"""A second definition of every operation, in float64 NumPy and plain Python, independent of `ferrum.tensor`.

Owns: `Expected` (a value and its sensitivity to rounding) and one function per operation. A property test compares a
backend with these; they share no code with backends.
Refuses to know: `ferrum.tensor`, backends, which error is allowed (`ferrum.conformance.tolerances`).
Sources: the papers named in specs/OPS.md; Random123 for the Philox known answers.
Next: `ferrum.conformance.attention_oracle`.

**Magnitude.** The error of a sum of large terms that cancel is a rounding of the terms, not of the sum; the error of
exp(s) is a rounding of s times exp(s). `Expected.magnitude` is that first-order bound: the change of the value when
every intermediate result changes by its own size. So magnitude * unit roundoff bounds the error of any order of
evaluation.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]
Integers = NDArray[np.int64]


@dataclass(frozen=True)
class Expected:
    """value and magnitude: float64, of one shape; terms: length of the longest sum behind the value."""

    value: Array
    magnitude: Array
    terms: int = 1

    def plus(self, other: Array) -> Expected:
        """The value with an exact addend."""
        return Expected(self.value + other, self.magnitude + np.abs(other), self.terms)

    def reshape(self, *shape: int) -> Expected:
        return Expected(self.value.reshape(shape), self.magnitude.reshape(shape), self.terms)


def exact(value: Any) -> Expected:
    """A value that is exact, except for the last rounding."""
    value = np.asarray(value, np.float64)
    return Expected(value, np.abs(value))


# ---- elementwise

erf = np.vectorize(math.erf, otypes=[np.float64])


def unary(function: Callable[[Array], Array]) -> Callable[[Array], Expected]:
    def oracle(x: Array) -> Expected:
        with np.errstate(all="ignore"):
            return exact(function(np.asarray(x, np.float64)))

    return oracle


exp = unary(np.exp)
log = unary(np.log)
rsqrt = unary(lambda x: 1 / np.sqrt(x))
tanh = unary(np.tanh)
error_function = unary(erf)
relu = unary(lambda x: np.where(x < 0, 0.0, x))


def cos(x: Array) -> Expected:
    return Expected(np.cos(x), np.ones_like(x))


def sin(x: Array) -> Expected:
    return Expected(np.sin(x), np.ones_like(x))


def gelu(x: Array) -> Expected:
    """x Φ(x); 1 + erf cancels for negative x, so the error is that of x itself."""
    return Expected(x * (1 + erf(x / math.sqrt(2))) / 2, np.abs(x))


def gelu_tanh(x: Array) -> Expected:
    inner = math.sqrt(2 / math.pi) * (x + 0.044715 * x**3)
    return Expected(x * (1 + np.tanh(inner)) / 2, np.abs(x))


def sigmoid(x: Array) -> Expected:
    """Two cases by the sign of x, so that nothing overflows; exp(-x) has the rounding error of x."""
    small = np.exp(-np.abs(x))
    value = np.where(x < 0, small / (1 + small), 1 / (1 + small))
    return Expected(value, value * (1 + np.minimum(np.abs(x), 100) * small))


def silu(x: Array) -> Expected:
    gate = sigmoid(x)
    return Expected(x * gate.value, np.abs(x) * gate.magnitude)


def quick_gelu(x: Array) -> Expected:
    """1.702 is rounded, and so is its product."""
    gate = sigmoid(1.702 * x)
    moved = 2 * np.abs(1.702 * x) * gate.value * (1 - gate.value)
    return Expected(x * gate.value, np.abs(x) * (gate.magnitude + moved))


def softcapped(x: Array, cap: float) -> Expected:
    """A tanh made of exponentials has the absolute error of its largest value, even where it is small."""
    return Expected(cap * np.tanh(x / cap), np.minimum(np.abs(x), cap) + cap)


ACTIVATIONS = {
    "relu": relu,
    "gelu": gelu,
    "gelu_tanh": gelu_tanh,
    "quick_gelu": quick_gelu,
    "silu": silu,
}
"""By the name in a part."""


# ---- along the last axis


def total(x: Array, axis: int) -> Expected:
    terms = x.shape[axis]
    return Expected(x.sum(axis, keepdims=True), np.abs(x).sum(axis, keepdims=True), terms)


def running_total(x: Array, axis: int) -> Expected:
    return Expected(np.cumsum(x, axis), np.cumsum(np.abs(x), axis), x.shape[axis])


def mean(x: Array, axis: int) -> Expected:
    summed = total(x, axis)
    return Expected(summed.value / summed.terms, summed.magnitude / summed.terms, summed.terms)


def softmax(x: Array) -> Expected:
    """-inf entries get weight 0; a row that has only -inf gives NaN."""
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(-1, keepdims=True)
        weights = np.exp(shifted)
        value = weights / weights.sum(-1, keepdims=True)
        depth = np.where(np.isfinite(shifted), np.abs(shifted), 0)
    return Expected(value, value * (2 + depth), x.shape[-1])


def log_softmax(x: Array) -> Expected:
    with np.errstate(invalid="ignore"):
        shifted = x - x.max(-1, keepdims=True)
        value = shifted - np.log(np.exp(shifted).sum(-1, keepdims=True))
    return Expected(value, np.abs(value) + 1, x.shape[-1])


def layer_norm(x: Array, weight: Array, bias: Array, epsilon: float) -> Expected:
    centre = x.mean(-1, keepdims=True)
    deviation = np.sqrt(np.mean((x - centre) ** 2, -1, keepdims=True) + epsilon)
    value = (x - centre) / deviation * weight + bias
    # the mean has a rounding error of the summands, and so has everything centred by it
    blur = np.abs(x) + np.abs(x).mean(-1, keepdims=True)
    relative = 1 + blur.max(-1, keepdims=True) / deviation
    magnitude = (blur / deviation + np.abs(x - centre) / deviation * relative) * np.abs(weight) + np.abs(bias)
    return Expected(value, magnitude, x.shape[-1])


def norm_of(x: Expected, weight: Array, bias: Array | None, epsilon: float, centred: bool) -> Expected:
    """Either norm of an inexact x: the errors of x are also errors of its mean and spread."""
    centre = x.value.mean(-1, keepdims=True) if centred else 0.0
    blur = x.magnitude + (x.magnitude.mean(-1, keepdims=True) if centred else 0.0)
    away = x.value - centre
    spread = np.sqrt(np.mean(away**2, -1, keepdims=True) + epsilon)
    relative = 1 + np.sqrt(np.mean(blur**2, -1, keepdims=True)) / spread
    magnitude = (blur + np.abs(away) * relative) / spread * np.abs(weight)
    value = away / spread * weight
    terms = max(x.terms, x.value.shape[-1])
    return Expected(value, magnitude, terms) if bias is None else Expected(value, magnitude, terms).plus(bias)


def rms_norm(x: Array, weight: Array, epsilon: float) -> Expected:
    return exact_of_terms(x / np.sqrt(np.mean(x * x, -1, keepdims=True) + epsilon) * weight, x.shape[-1])


def exact_of_terms(value: Array, terms: int) -> Expected:
    """A value whose sums have only positive terms."""
    return Expected(value, np.abs(value), terms)


# ---- products


def matmul(x: Array, y: Array) -> Expected:
    return Expected(np.einsum("...mk,...kn->...mn", x, y), np.einsum("...mk,...kn->...mn", abs(x), abs(y)), x.shape[-1])


def linear(x: Array, weight: Array, sizes: Array, bias: Array | None) -> Expected:
    """[tokens, in], [out, in], sizes [out, in] of the terms behind each weight, [out] -> [tokens, out]"""
    product = Expected(matmul(x, weight.T).value, matmul(np.abs(x), sizes.T).value, x.shape[-1])
    return product if bias is None else product.plus(bias)


def linear_of(x: Expected, weight: Array, sizes: Array, bias: Array | None) -> Expected:
    """linear of an inexact x: two sums of many terms, so twice the rounding error."""
    product = linear(x.value, weight, sizes, bias)
    magnitude = product.magnitude + matmul(x.magnitude, sizes.T).value
    return Expected(product.value, magnitude, max(product.terms, x.terms))


def activated(x: Expected, name: str) -> Expected:
    """An activation of an inexact value; no slope is more than 1.2 in size."""
    plain = ACTIVATIONS[name](x.value)
    return Expected(plain.value, 1.2 * x.magnitude + plain.magnitude, x.terms)


def clipped(x: Expected, low: float, high: float) -> Expected:
    return Expected(np.clip(x.value, low, high), x.magnitude, x.terms)


def times(x: Expected, y: Expected) -> Expected:
    """The product of two inexact values. If both cancel to 0, only the product of their errors remains."""
    magnitude = x.magnitude * (np.abs(y.value) + 1e-6 * y.magnitude) + np.abs(x.value) * y.magnitude
    return Expected(x.value * y.value, magnitude, max(x.terms, y.terms))


# ---- order


def descending(row: Array) -> list[int]:
    """Indices of a row, largest element first, equal ones by lowest index."""
    return sorted(range(len(row)), key=lambda i: (-row[i], i))


def argsort(x: Array) -> Integers:
    flat = [descending(row) for row in x.reshape(-1, x.shape[-1])]
    return np.asarray(flat, np.int64).reshape(x.shape)


# ---- rotary embedding


def rope(x: Array, cosines: Array, sines: Array) -> Expected:
    """x [tokens, heads, head_dim]; cosines, sines [tokens, half]: dimensions i and i + half are the two parts of a
    complex number times cos + i sin; dimensions from 2 * half on stay."""
    half = cosines.shape[1]
    turned, size = x.copy(), np.abs(x)
    for i in range(half):
        spun = (x[:, :, i] + 1j * x[:, :, i + half]) * (cosines[:, i] + 1j * sines[:, i])[:, None]
        turned[:, :, i], turned[:, :, i + half] = spun.real, spun.imag
        size[:, :, i] = size[:, :, i + half] = np.abs(spun)
    wide = np.maximum(size, np.abs(x))
    return Expected(turned, wide, 2)


# ---- random numbers

WORD = 2**32


def philox4x32(counter: tuple[int, ...], key: tuple[int, ...], rounds: int = 10) -> tuple[int, ...]:
    """Four words of counter, two of key -> four random words (Salmon et al., SC'11)."""
    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(rounds):
        high0, low0 = divmod(0xD2511F53 * c0, WORD)
        high1, low1 = divmod(0xCD9E8D57 * c2, WORD)
        c0, c1, c2, c3 = high1 ^ c1 ^ k0, low1, high0 ^ c3 ^ k1, low0
        k0, k1 = (k0 + 0x9E3779B9) % WORD, (k1 + 0xBB67AE85) % WORD
    return c0, c1, c2, c3


KNOWN_ANSWERS: tuple[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...]], ...] = (
    ((0,) * 4, (0,) * 2, (0x6627E8D5, 0xE169C58D, 0xBC57AC4C, 0x9B00DBD8)),
    ((0xFFFFFFFF,) * 4, (0xFFFFFFFF,) * 2, (0x408F276D, 0x41C83B0E, 0xA20BC7C6, 0x6D5451FD)),
    (
        (0x243F6A88, 0x85A308D3, 0x13198A2E, 0x03707344),
        (0xA4093822, 0x299F31D0),
        (0xD16CFE09, 0x94FDCCEB, 0x5001E420, 0x24126EA1),
    ),
)
"""(counter, key, words), published with Random123 for Philox4x32-10; the third uses digits of pi."""


def halves(number: int) -> tuple[int, int]:
    """The low and high word of a number's absolute value, complemented if the number is negative."""
    low, high = abs(number) % WORD, abs(number) // WORD
    return (low, high) if number >= 0 else (WORD - 1 - low, WORD - 1 - high)


def words(index: int, key: int, stream: int) -> tuple[int, ...]:
    return philox4x32((index, 0, *halves(stream)), halves(key))


def uniform(index: int, key: int, stream: int) -> float:
    return (words(index, key, stream)[0] >> 8) / 2**24


def normal(index: int, key: int, stream: int) -> float:
    first, second = ((word >> 8) / 2**24 for word in words(index, key, stream)[:2])
    return math.sqrt(-2 * math.log1p(-first)) * math.cos(2 * math.pi * second)

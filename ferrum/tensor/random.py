"""Counter-based random numbers: the same key gives the same numbers on every backend.

Owns: Philox4x32-10 written in TensorOps, and uniform and normal numbers made from it. Nothing here has state: number i
of a stream is a function of (key, stream, i), so numbers may be drawn in any order, in any batch, on any device.
Source: Salmon et al., "Parallel random numbers: as easy as 1, 2, 3", SC'11.
Specs: OPS-20 to OPS-22. Next: `ferrum.tensor.attention`.
"""

from __future__ import annotations

import math
from typing import TYPE_CHECKING

from ferrum.tensor.ops import Shape, Tensor

if TYPE_CHECKING:
    from ferrum.tensor.compositions import TensorOps

ROUNDS = 10
MULTIPLIERS = (0xD2511F53, 0xCD9E8D57)
WEYL = (0x9E3779B9, 0xBB67AE85)
WORD = 0xFFFFFFFF


def philox(
    ops: TensorOps, counter: tuple[Tensor, Tensor, Tensor, Tensor], key: tuple[Tensor, Tensor]
) -> tuple[Tensor, ...]:
    """Four counter words and two key words -> four random words. Each word is a uint64 that holds 32 bits; shapes
    broadcast."""

    def constant(value: int) -> Tensor:
        return ops.constant(value, "uint64")

    c0, c1, c2, c3 = counter
    k0, k1 = key
    for _ in range(ROUNDS):
        product0 = ops.mul(c0, constant(MULTIPLIERS[0]))  # 64 bits: high word, low word
        product1 = ops.mul(c2, constant(MULTIPLIERS[1]))
        high0, high1 = (ops.right_shift(p, constant(32)) for p in (product0, product1))
        low0, low1 = (ops.bitwise_and(p, constant(WORD)) for p in (product0, product1))
        c0 = ops.bitwise_xor(ops.bitwise_xor(high1, c1), k0)
        c2 = ops.bitwise_xor(ops.bitwise_xor(high0, c3), k1)
        c1, c3 = low1, low0
        k0 = ops.bitwise_and(ops.add(k0, constant(WEYL[0])), constant(WORD))
        k1 = ops.bitwise_and(ops.add(k1, constant(WEYL[1])), constant(WORD))
    return c0, c1, c2, c3


def key_words(key: int) -> tuple[int, int]:
    """Any Python int, also negative or huge -> two 32-bit words. Two different keys of the same sign and of at most 64
    bits never give the same words; wider keys are folded, 64 bits at a time."""
    folded, rest = 0, abs(key)
    while True:
        folded ^= rest & ((1 << 64) - 1)
        rest >>= 64
        if not rest:
            break
    if key < 0:
        folded ^= (1 << 64) - 1
    return folded & WORD, folded >> 32


def random_words(ops: TensorOps, count: int, key: int, stream: int) -> tuple[Tensor, ...]:
    """-> four words uint64 [count] each: those of the counters (i, 0, stream low, stream high), i = 0, 1, …"""
    low, high = key_words(key)
    index = ops.arange(count, "uint64")
    zero = ops.zeros((count,), "uint64")
    stream_low, stream_high = (ops.full((), word, "uint64") for word in key_words(stream))
    key_pair = (ops.full((), low, "uint64"), ops.full((), high, "uint64"))
    return philox(ops, (index, zero, ops.add(zero, stream_low), ops.add(zero, stream_high)), key_pair)


def to_unit(ops: TensorOps, word: Tensor) -> Tensor:
    """A random word -> float32 in [0, 1): its upper 24 bits times 2**-24, which is exact on every backend."""
    top = ops.cast(ops.right_shift(word, ops.constant(8, "uint64")), "float32")
    return ops.mul(top, ops.constant(2.0**-24, "float32"))


def uniform(ops: TensorOps, shape: Shape, key: int, stream: int = 0) -> Tensor:
    """-> float32 [shape] in [0, 1). The same bits on every backend."""
    return ops.reshape(to_unit(ops, random_words(ops, math.prod(shape), key, stream)[0]), shape)


def normal(ops: TensorOps, shape: Shape, key: int, stream: int = 0) -> Tensor:
    """-> float32 [shape], mean 0, variance 1, by the Box–Muller method from two words. Equal on all backends up to the
    rounding of log and cos."""
    words = random_words(ops, math.prod(shape), key, stream)
    # 1 - u lies in (0, 1], so that the logarithm is finite
    first, second = (ops.cast(to_unit(ops, word), "float64") for word in words[:2])
    minus_log = ops.mul(ops.constant(-2.0, "float64"), ops.log(ops.sub(ops.constant(1.0, "float64"), first)))
    radius = ops.mul(minus_log, ops.rsqrt(ops.maximum(minus_log, ops.constant(1e-300, "float64"))))  # √minus_log
    angle = ops.mul(second, ops.constant(2 * math.pi, "float64"))
    return ops.reshape(ops.cast(ops.mul(radius, ops.cos(angle)), "float32"), shape)

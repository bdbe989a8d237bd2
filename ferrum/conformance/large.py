"""Inputs of the sizes of real models, whose oracles are fast.

Owns: weights of thousands of rows or columns, made of a few hundred blocks that the oracle has decoded; rows of numbers
with ties; the token that a long row's settings draw. Refuses to know: which operation takes them.
Specs: OPS-77. Next: `ferrum.conformance.q8_oracle`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from functools import cache

import numpy as np

from ferrum.conformance import weight_oracle
from ferrum.conformance.oracles import Array
from ferrum.conformance.strategies import FLOAT_KINDS, Host, Layout, LinearCase, WeightCase, block_size
from ferrum.tensor.ops import host_dtype
from ferrum.testing.blocks import random_blocks

DISTINCT = 257
"""Blocks that the oracle decodes. Not a power of two, so that a tile does not get the same blocks again and again."""


@dataclass(frozen=True)
class LargeWeight(WeightCase):
    """A weight whose values and sizes are known from its construction."""

    values_and_sizes: tuple[Array, Array] = field(repr=False)

    @property
    def values(self) -> Array:
        return self.values_and_sizes[0]

    @property
    def sizes(self) -> Array:
        return self.values_and_sizes[1]


@cache
def blocks_read(kind: str) -> tuple[Host, Array, Array]:
    """DISTINCT blocks of this kind: their bytes, values and sizes. They are never written."""
    pool = random_blocks(kind, (DISTINCT, block_size(kind)), np.random.default_rng(0), zeros=0.05)
    return pool, *weight_oracle.dequantize(kind, pool)


def large_weight(kind: str, rows: int, columns: int, seed: int = 0) -> WeightCase:
    """Every block is one of DISTINCT, at random."""
    random = np.random.default_rng((seed, rows, columns))
    if kind in FLOAT_KINDS:
        return WeightCase("dense", random.standard_normal((rows, columns)).astype(host_dtype(kind)), Layout.CONTIGUOUS)
    numbers = random.integers(0, DISTINCT, (rows, columns // block_size(kind)))
    data, values, sizes = (each[numbers].reshape(rows, -1) for each in blocks_read(kind))
    return LargeWeight(kind, data, Layout.CONTIGUOUS, (values, sizes))


def large_linear(kind: str, rows: int, columns: int, seed: int = 0) -> LinearCase:
    bias = np.random.default_rng((seed, rows)).standard_normal(rows).astype(np.float32)
    return LinearCase(large_weight(kind, rows, columns, seed), bias)


def normal(*shape: int, seed: int = 0) -> Array:
    """Values that float32 holds exactly."""
    return np.random.default_rng((seed, *shape)).standard_normal(shape).astype(np.float32).astype(np.float64)


def tied(*shape: int, seed: int = 0) -> Array:
    """Eighths, so that many are equal in a long row."""
    return np.round(8 * normal(*shape, seed=seed)) / 8


def drawn_token(row: Host, temperature: float, top_k: int, top_p: float, min_p: float, unit: float) -> int:
    """The token that these settings draw from a row of logits, in float64, from a sorted row."""
    best = np.lexsort((np.arange(row.size), -row))[: top_k or row.size]
    weights = np.exp((row[best] - row[best[0]]) / temperature)
    before = np.concatenate(([0.0], np.cumsum(weights)[:-1]))
    stays = (weights >= min_p) & ((before < top_p * weights.sum()) | (top_p == 1))
    tokens = np.sort(best[stays])
    running = np.cumsum(np.exp((row[tokens] - row[best[0]]) / temperature))
    return int(tokens[np.argmax(running > unit * running[-1])])

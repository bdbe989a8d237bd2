"""Fields of bits inside blocks: how several small numbers lie in a byte, a word or a run of bytes.

Owns: the ways of packing that several formats share, and the numbers that small floats stand for. Refuses to know:
formats.
Specs: QUANT-01.

All functions take and return arrays whose first dimension counts blocks. Next: `ferrum.load.quants`.
"""

from __future__ import annotations

import numpy as np
from numpy.typing import NDArray

from ferrum.load.scaled import Bytes, Floats

E2M1: NDArray[np.int8] = np.array((0, 1, 2, 3, 4, 6, 8, 12, 0, -1, -2, -3, -4, -6, -8, -12), np.int8)
"""Twice the numbers of the four-bit float E2M1, which are 0, 0.5, 1, 1.5, 2, 3, 4, 6 and their negatives. Source: the
OCP Microscaling Formats (MX) specification 1.0."""


def fields(blocks: Bytes, *sizes: int) -> list[Bytes]:
    """Splits every block into fields of so many bytes: uint8 [blocks, size] each."""
    return np.split(blocks, np.cumsum(sizes)[:-1], axis=1)


def half(field: Bytes) -> Floats:
    """Two bytes as a float16 -> float32 [blocks, 1]"""
    return np.ascontiguousarray(field).view(np.dtype("<f2")).astype(np.float32)


def words(field: Bytes, kind: str) -> NDArray[np.integer]:
    """Bytes as little-endian words of the NumPy type `kind`: uint8 [blocks, n] -> [blocks, n / size]"""
    return np.ascontiguousarray(field).view(np.dtype(kind))


def nibbles(field: Bytes, run: int) -> Bytes:
    """uint8 [blocks, n] -> uint8 [blocks, 2 n]: four-bit codes. Of every `run` bytes, first all low nibbles, then all
    high nibbles."""
    runs = field.reshape(len(field), -1, 1, run)
    return np.concatenate((runs & 15, runs >> 4), axis=2).reshape(len(field), -1)


def bit_pairs(field: Bytes, run: int) -> Bytes:
    """uint8 [blocks, n] -> uint8 [blocks, 4 n]: two-bit codes. Of every `run` bytes, first the lowest pair of each
    byte, then the next pair of each, and so on."""
    runs = field.reshape(len(field), -1, 1, run)
    shifts = np.arange(0, 8, 2, dtype=np.uint8)[:, None]
    return (runs >> shifts & np.uint8(3)).reshape(len(field), -1)


def bits(field: Bytes, run: int = 1) -> Bytes:
    """uint8 [blocks, n] -> uint8 [blocks, 8 n]: single bits. Of every `run` bytes, first the lowest bit of each byte,
    then the next bit of each, and so on."""
    if run == 1:
        return np.unpackbits(field, axis=1, bitorder="little")
    runs = field.reshape(len(field), -1, 1, run)
    return np.unpackbits(runs, axis=2, bitorder="little").reshape(len(field), -1)


def powers_of_two(exponents: Bytes) -> Floats:
    """2 ** (e - 128) for the eight-bit exponents of E8M0: half of what they stand for, because `E2M1` has twice the
    numbers."""
    return np.ldexp(np.float32(1), exponents.astype(np.int32) - 128)


def unsigned_e4m3(field: Bytes) -> Floats:
    """Half of what eight-bit floats without a sign stand for, because `E2M1` has twice the numbers. ggml reads 127,
    which is not a number, as 0."""
    exponent, mantissa = (field >> 3 & 15).astype(np.int32), (field & 7).astype(np.float32)
    numbers = np.ldexp(np.where(exponent > 0, mantissa + 8, mantissa), np.maximum(exponent, 1) - 11)
    return np.where(field == 127, np.float32(0), numbers)

"""Dot products of small whole numbers: four neighbouring bytes of each of several rows, times four of a token.

Owns: what each target multiplies bytes with: the instructions of VNNI, those of AVX2 that multiply bytes in pairs, or
plain multiplications. A register holds four bytes of each of ROWS_AT_ONCE rows, so that the sums of different rows
never have to be added up. All targets have the same sums: they are whole numbers, and none overflows.
Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual (VPDPBUSD, VPMADDUBSW).
Next: `ferrum.backends.numba_kernels.integer_blocks`.
"""

from __future__ import annotations

from typing import Any

from ferrum.backends.numba_kernels import ir
from ferrum.backends.numba_kernels.features import HAS_BYTE_DOTS, HAS_BYTE_SHUFFLE, HAS_WIDE_BYTE_DOTS

ROWS_AT_ONCE = 16 if HAS_WIDE_BYTE_DOTS else 8 if HAS_BYTE_DOTS or HAS_BYTE_SHUFFLE else 4
"""Rows in a register."""
HAS_DOTS = HAS_WIDE_BYTE_DOTS or HAS_BYTE_DOTS
BY_PAIRS = HAS_BYTE_SHUFFLE and not HAS_DOTS
"""Are pairs of bytes added up in 16 bits, unsigned times signed?"""

Bytes, Shorts = ir.Vector(ir.Int8, 4 * ROWS_AT_ONCE), ir.Vector(ir.Int16, 2 * ROWS_AT_ONCE)
Ints, Floats = ir.Vector(ir.Int32, ROWS_AT_ONCE), ir.Vector(ir.Float, ROWS_AT_ONCE)
ZERO = ir.constant(Ints, 0)


def in_all_rows(builder: Any, value: Any, kind: Any) -> Any:
    """One scalar in all lanes of a vector of this type."""
    undefined = ir.constant(kind, [0] * kind.count)
    single = builder.insert_element(undefined, value, ir.constant(ir.Int32, 0))
    return builder.shuffle_vector(single, undefined, ir.constant(ir.Vector(ir.Int32, kind.count), 0))


def four_in_all_rows(builder: Any, address: Any) -> Any:
    """The four bytes of a token at an address, for every row."""
    return builder.bitcast(in_all_rows(builder, ir.load(builder, address, ir.Int32), Ints), Bytes)


class Codes:
    """Four codes of each row, made ready once for all tokens."""

    def __init__(self, builder: Any, raw: Any, signed: bool) -> None:
        """raw: bytes; signed: from -128 to 127, else from 0 to 63."""
        self.raw, self.unsigned = raw, raw
        if signed and HAS_DOTS:  # 128 is added, and taken away again where the sum begins
            self.unsigned = builder.xor(raw, ir.constant(Bytes, -128))
        elif signed and BY_PAIRS:
            negative = builder.icmp_signed("<", raw, ir.constant(Bytes, 0))
            self.unsigned = builder.select(negative, builder.sub(ir.constant(Bytes, 0), raw), raw)


class Dot:
    """The growing sum of one group of one token, for ROWS_AT_ONCE rows."""

    def __init__(self, builder: Any, start: Any, signed: bool, pairs: int) -> None:
        """start: int32 of each row. pairs: how many sums of two products 16 bits hold."""
        self._builder, self._total, self._signed = builder, start, signed
        self._pairs, self._held, self._waiting = pairs, 0, None

    def add(self, codes: Codes, token: Any) -> None:
        """codes · token, added to each row's sum; token: bytes from -127 to 127."""
        builder = self._builder
        if HAS_DOTS:
            name = f"llvm.x86.avx512.vpdpbusd.{32 * ROWS_AT_ONCE}"
            self._total = ir.call(builder, name, Ints, self._total, codes.unsigned, token)
        elif BY_PAIRS:
            self._add_pairs(codes, token)
        else:
            self._total = builder.add(self._total, _plain_dot(builder, codes.raw, token))

    def _add_pairs(self, codes: Codes, token: Any) -> None:
        builder = self._builder
        if self._signed:
            token = ir.call(builder, "llvm.x86.avx2.psign.b", Bytes, token, codes.raw)
        sums = ir.call(builder, "llvm.x86.avx2.pmadd.ub.sw", Shorts, codes.unsigned, token)
        self._waiting = sums if self._waiting is None else builder.add(self._waiting, sums)
        self._held += 1
        if self._held == self._pairs:
            self._flush()

    def _flush(self) -> None:
        if self._waiting is not None:
            ones = ir.constant(Shorts, 1)
            wide = ir.call(self._builder, "llvm.x86.avx2.pmadd.wd", Ints, self._waiting, ones)
            self._total, self._waiting, self._held = self._builder.add(self._total, wide), None, 0

    def floats(self) -> Any:
        """The sum, which float32 holds exactly."""
        self._flush()
        return self._builder.sitofp(self._total, Floats)


def _plain_dot(builder: Any, codes: Any, token: Any) -> Any:
    """Four products of each row in 32 bits, added up."""
    wide = ir.Vector(ir.Int32, 4 * ROWS_AT_ONCE)
    products = builder.mul(builder.sext(codes, wide), builder.sext(token, wide))
    parts = [
        builder.shuffle_vector(products, products, ir.constant(Ints, [4 * row + i for row in range(ROWS_AT_ONCE)]))
        for i in range(4)
    ]
    return builder.add(builder.add(parts[0], parts[1]), builder.add(parts[2], parts[3]))

"""Dot products of small whole numbers: four neighbouring bytes of each of several rows, times four of a token.

Owns: what each target multiplies bytes with: the instructions of VNNI, those of AVX2 that multiply bytes in pairs, or
multiplications of 16 bits, which every processor has. A register holds four bytes of each of ROWS_AT_ONCE rows, so that
the sums of different rows never have to be added up. All targets have the same sums: they are whole numbers, and none
overflows.
Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual (VPDPBUSD, VPMADDUBSW).
Next: `ferrum.backends.numba_kernels.compiled.integer_blocks`.
"""

from __future__ import annotations

from typing import Any

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.loading.features import HAS_BYTE_DOTS, HAS_BYTE_SHUFFLE, HAS_WIDE_BYTE_DOTS

ROWS_AT_ONCE = 16 if HAS_WIDE_BYTE_DOTS else 8 if HAS_BYTE_DOTS or HAS_BYTE_SHUFFLE else 4
"""Rows in a register."""
HAS_DOTS = HAS_WIDE_BYTE_DOTS or HAS_BYTE_DOTS

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
        elif signed and HAS_BYTE_SHUFFLE:
            negative = builder.icmp_signed("<", raw, ir.constant(Bytes, 0))
            self.unsigned = builder.select(negative, builder.sub(ir.constant(Bytes, 0), raw), raw)
        elif not HAS_DOTS and not HAS_BYTE_SHUFFLE:
            self.halves = _in_halves(builder, raw)


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
            return
        sums = self._sums_of_pairs(codes, token)
        self._waiting = sums if self._waiting is None else builder.add(self._waiting, sums)
        self._held += 1
        if self._held == self._pairs:
            self._flush()

    def _sums_of_pairs(self, codes: Codes, token: Any) -> Any:
        """Two products added up in 16 bits, which hold them."""
        builder = self._builder
        if not HAS_BYTE_SHUFFLE:
            low, high = map(builder.mul, codes.halves, _in_halves(builder, token))
            return builder.add(low, high)
        if self._signed:
            token = ir.call(builder, "llvm.x86.avx2.psign.b", Bytes, token, codes.raw)
        return ir.call(builder, "llvm.x86.avx2.pmadd.ub.sw", Shorts, codes.unsigned, token)

    def _flush(self) -> None:
        if self._waiting is not None:
            self._total = self._builder.add(self._total, _added_up(self._builder, self._waiting))
            self._waiting, self._held = None, 0

    def floats(self) -> Any:
        """The sum, which float32 holds exactly."""
        self._flush()
        return self._builder.sitofp(self._total, Floats)


def _in_halves(builder: Any, values: Any) -> tuple[Any, Any]:
    """Signed bytes as 16 bits each: the first and the second of each pair."""
    both, eight = builder.bitcast(values, Shorts), ir.constant(Shorts, 8)
    return builder.ashr(builder.shl(both, eight), eight), builder.ashr(both, eight)


def _added_up(builder: Any, pairs: Any) -> Any:
    """The sum of two neighbours of 16 bits, in 32."""
    if HAS_BYTE_SHUFFLE:
        return ir.call(builder, "llvm.x86.avx2.pmadd.wd", Ints, pairs, ir.constant(Shorts, 1))
    both, sixteen = builder.bitcast(pairs, Ints), ir.constant(Ints, 16)
    return builder.add(builder.ashr(builder.shl(both, sixteen), sixteen), builder.ashr(both, sixteen))

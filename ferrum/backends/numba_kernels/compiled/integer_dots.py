"""Dot products of int8: four neighbouring bytes of each of several rows, times four bytes of a token.

Owns: the instructions that each target multiplies bytes with: those of VNNI, those of AVX2 for pairs of bytes, or
multiplications of 16 bits, which every processor has. A register holds four bytes of each of ROWS_AT_ONCE rows, so a
sum never crosses lanes. All targets compute the same sums: they are integers, and none overflows.
Source of the instructions: Intel 64 and IA-32 Architectures Software Developer's Manual (VPDPBUSD, VPMADDUBSW).
Next: `ferrum.backends.numba_kernels.compiled.integer_blocks`.
"""

from __future__ import annotations

from typing import Any

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.loading.features import HAS_BYTE_DOTS, HAS_BYTE_SHUFFLE, HAS_WIDE_BYTE_DOTS

ROWS_AT_ONCE = 16 if HAS_WIDE_BYTE_DOTS else 8 if HAS_BYTE_DOTS or HAS_BYTE_SHUFFLE else 4
"""Rows whose four bytes fit into a register."""
HAS_DOTS = HAS_WIDE_BYTE_DOTS or HAS_BYTE_DOTS

Bytes, Shorts = ir.Vector(ir.Int8, 4 * ROWS_AT_ONCE), ir.Vector(ir.Int16, 2 * ROWS_AT_ONCE)
Ints, Floats = ir.Vector(ir.Int32, ROWS_AT_ONCE), ir.Vector(ir.Float, ROWS_AT_ONCE)
ZERO = ir.constant(Ints, 0)


def in_all_rows(builder: Any, value: Any, kind: Any) -> Any:
    """A scalar in all lanes of a vector of type `kind`."""
    undefined = ir.constant(kind, [0] * kind.count)
    single = builder.insert_element(undefined, value, ir.constant(ir.Int32, 0))
    return builder.shuffle_vector(single, undefined, ir.constant(ir.Vector(ir.Int32, kind.count), 0))


def four_in_all_rows(builder: Any, address: Any) -> Any:
    """The four bytes of a token at an address, once for each row."""
    return builder.bitcast(in_all_rows(builder, ir.load(builder, address, ir.Int32), Ints), Bytes)


class Codes:
    """Four codes of each row, prepared once for all tokens."""

    def __init__(self, builder: Any, raw: Any, signed: bool) -> None:
        """raw: the bytes. signed: codes from -128 to 127, else from 0 to 63."""
        self.raw, self.unsigned = raw, raw
        if signed and HAS_DOTS:  # 128 is added to each code; the sum begins with X_MINUS_128, which subtracts it
            self.unsigned = builder.xor(raw, ir.constant(Bytes, -128))
        elif signed and HAS_BYTE_SHUFFLE:
            negative = builder.icmp_signed("<", raw, ir.constant(Bytes, 0))
            self.unsigned = builder.select(negative, builder.sub(ir.constant(Bytes, 0), raw), raw)
        elif not HAS_DOTS and not HAS_BYTE_SHUFFLE:
            self.halves = _in_halves(builder, raw)


class Dot:
    """The sum of one group of one token, for ROWS_AT_ONCE rows."""

    def __init__(self, builder: Any, start: Any, signed: bool, pairs: int) -> None:
        """start: the initial value of each row, int32. pairs: how many sums of two products fit into 16 bits."""
        self._builder, self._total, self._signed = builder, start, signed
        self._pairs, self._waiting_count, self._waiting = pairs, 0, None

    def add(self, codes: Codes, token: Any) -> None:
        """Adds codes · token to the sum of each row. token: bytes from -127 to 127."""
        builder = self._builder
        if HAS_DOTS:
            name = f"llvm.x86.avx512.vpdpbusd.{32 * ROWS_AT_ONCE}"
            self._total = ir.call(builder, name, Ints, self._total, codes.unsigned, token)
            return
        sums = self._sums_of_pairs(codes, token)
        self._waiting = sums if self._waiting is None else builder.add(self._waiting, sums)
        self._waiting_count += 1
        if self._waiting_count == self._pairs:
            self._flush()

    def _sums_of_pairs(self, codes: Codes, token: Any) -> Any:
        """The sums of two neighbouring products, in 16 bits each."""
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
            self._waiting, self._waiting_count = None, 0

    def floats(self) -> Any:
        """The sum as float32, which is exact."""
        self._flush()
        return self._builder.sitofp(self._total, Floats)


def _in_halves(builder: Any, values: Any) -> tuple[Any, Any]:
    """The first and the second byte of each pair, as signed 16 bits."""
    words, eight = builder.bitcast(values, Shorts), ir.constant(Shorts, 8)
    return builder.ashr(builder.shl(words, eight), eight), builder.ashr(words, eight)


def _added_up(builder: Any, pairs: Any) -> Any:
    """The sums of two neighbouring numbers of 16 bits, in 32 bits."""
    if HAS_BYTE_SHUFFLE:
        return ir.call(builder, "llvm.x86.avx2.pmadd.wd", Ints, pairs, ir.constant(Shorts, 1))
    words, sixteen = builder.bitcast(pairs, Ints), ir.constant(Ints, 16)
    return builder.add(builder.ashr(builder.shl(words, sixteen), sixteen), builder.ashr(words, sixteen))

"""Units of sixteen rows side by side: the layout of quantised weights for int8 products.

Owns: the layout of a *unit* for each kind of weight, and how a tile reads it. A unit holds 16 rows, block of columns by
block of columns. A vector of 64 bytes holds four neighbouring codes of each row, so one instruction computes 16 rows
and no sum crosses lanes. Nibbles: byte i of a row in vector k holds column 8 k + i in its low half and column 8 k + 4 +
i in its high half. The parts of a block of a unit, in their order; [16] stands for one number of each row:

    q4_0  scales [2 groups][16] float16, codes [2][4][64]           two blocks of the file, so that vectors are aligned
    to cache lines
    q4_1  scale [16], minimum [16] float16, codes [4][64]
    q8_0  scales [2 groups][16] float16, codes [2][8][64] int8
    q4_k  scale [16], minimum [16] float16, [8 groups][16] the low four bits of a group's scale and, above them, of its
          minimum, [4 pairs of groups][16] the two high bits of each of these, codes [8][4][64]
    q5_k  the same, and after the codes of each group their fifth bits [64]: bit k of byte i is of column 4 k + i
    q6_k  scale [16] float16, 32 unused bytes, scales of runs [16 runs][16] int8,
          then [8 groups] of low bits [4][64] and high bits [2][64]: bits 2 f, 2 f + 1 of vector j are of column 16 j +
          4 f + i

Definitions: `grouped` of the weights in `ferrum.tensor`. Next: `ferrum.backends.numba_kernels.compiled.integer_tiles`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.blocks import floats_of
from ferrum.backends.numba_kernels.compiled.integer_dots import HAS_DOTS, ROWS_AT_ONCE, Bytes, Floats, Ints, Shorts
from ferrum.backends.numba_kernels.sizes import X_MINUS_8, X_MINUS_32_OF_HALVES, X_MINUS_128


@dataclass(frozen=True)
class Run:
    """Columns of a unit that share a scale, for ROWS_AT_ONCE rows."""

    group: int  # number of their group in the turn
    codes: Iterator[tuple[int, Any]]  # (number of four columns in the group, their bytes)
    step: Any  # scale of each row, float32
    minimum: Any | None  # of each row, float32; None: 0
    start: int | None  # offset of the initial value of the sum in a token's group; None: the sum begins with 0


@dataclass(frozen=True)
class UnitKind:
    """How a tile reads a kind of weight."""

    turns: int  # equal parts of a block, read in a loop to save time of compilation
    signed: bool  # codes are signed bytes
    pairs: int  # sums of two products that fit into 16 bits, for `Dot`
    read: Callable[[Any, Any, Any, Any], Iterator[Run]]  # (builder, block address, turn, part of the rows) -> its runs


def _place(builder: Any, address: Any, distance: int, part: Any, size: int) -> Any:
    """The address of the numbers of the rows of `part`, which have `size` bytes each."""
    return ir.offset(builder, builder.add(address, ir.scaled(builder, part, size * ROWS_AT_ONCE)), distance)


def _vector(builder: Any, address: Any, distance: int, part: Any) -> Any:
    return ir.load(builder, _place(builder, address, distance, part, 4), Bytes)


def _halves(builder: Any, address: Any, distance: int, part: Any) -> Any:
    """The float16 of each row, as floats."""
    place = _place(builder, address, distance, part, 2)
    return floats_of(builder, ir.load(builder, place, ir.Vector(ir.Int16, ROWS_AT_ONCE)))


def _right(builder: Any, values: Any, count: int) -> Any:
    """Bytes shifted right by `count` bits. Bits of the neighbouring byte come in; the caller masks them."""
    return builder.bitcast(builder.lshr(builder.bitcast(values, Shorts), ir.constant(Shorts, count)), Bytes)


def _left(builder: Any, values: Any, count: int) -> Any:
    return builder.bitcast(builder.shl(builder.bitcast(values, Shorts), ir.constant(Shorts, count)), Bytes)


def _nibbles(builder: Any, address: Any, distance: int, part: Any) -> Iterator[tuple[int, Any]]:
    """The 32 codes of four bits of a group."""
    mask = ir.constant(Bytes, 15)
    for k in range(4):
        raw = _vector(builder, address, distance + 64 * k, part)
        yield 2 * k, builder.and_(raw, mask)
        yield 2 * k + 1, builder.and_(_right(builder, raw, 4), mask)


def _q4_0(builder: Any, address: Any, turn: Any, part: Any) -> Iterator[Run]:
    for g in range(2):
        step = _halves(builder, address, 32 * g, part)
        yield Run(g, _nibbles(builder, address, 64 + 256 * g, part), step, None, X_MINUS_8)


def _q4_1(builder: Any, address: Any, turn: Any, part: Any) -> Iterator[Run]:
    step, minimum = _halves(builder, address, 0, part), _halves(builder, address, 32, part)
    yield Run(0, _nibbles(builder, address, 64, part), step, minimum, None)


def _q8_0(builder: Any, address: Any, turn: Any, part: Any) -> Iterator[Run]:
    for g in range(2):
        codes = ((k, _vector(builder, address, 64 + 512 * g + 64 * k, part)) for k in range(8))
        yield Run(g, codes, _halves(builder, address, 32 * g, part), None, X_MINUS_128 if HAS_DOTS else None)


def _affine_runs(
    builder: Any, address: Any, turn: Any, part: Any, codes: Callable[[int], Iterator[tuple[int, Any]]]
) -> Iterator[Run]:
    """The runs of a pair of groups of Q4_K or Q5_K, whose scales and minimums have six bits."""
    scale = _halves(builder, address, 0, part)
    minimum = builder.fmul(_halves(builder, address, 32, part), ir.constant(Floats, -1.0))
    kind = ir.Vector(ir.Int8, ROWS_AT_ONCE)

    def numbers(distance: int, stride: int) -> Any:
        start = builder.add(address, ir.scaled(builder, turn, stride))
        return ir.load(builder, _place(builder, start, distance, part, 1), kind)

    def six_bits(low: Any, low_shift: int, high: Any, high_shift: int) -> Any:
        low = builder.and_(builder.lshr(low, ir.constant(kind, low_shift)), ir.constant(kind, 15))
        high = builder.and_(builder.lshr(high, ir.constant(kind, high_shift)), ir.constant(kind, 3))
        joined = builder.or_(low, builder.shl(high, ir.constant(kind, 4)))
        return builder.uitofp(builder.zext(joined, Ints), Floats)

    high = numbers(64 + 128, 16)
    for g in range(2):
        low = numbers(64 + 16 * g, 32)
        step = builder.fmul(six_bits(low, 0, high, 4 * g), scale)
        least = builder.fmul(six_bits(low, 4, high, 4 * g + 2), minimum)
        yield Run(g, codes(g), step, least, None)


def _q4_k(builder: Any, address: Any, turn: Any, part: Any) -> Iterator[Run]:
    base = builder.add(address, ir.scaled(builder, turn, 2 * 256))
    return _affine_runs(builder, address, turn, part, lambda g: _nibbles(builder, base, 256 + 256 * g, part))


def _q5_k(builder: Any, address: Any, turn: Any, part: Any) -> Iterator[Run]:
    base = builder.add(address, ir.scaled(builder, turn, 2 * 320))

    def codes(g: int) -> Iterator[tuple[int, Any]]:
        fifth = _vector(builder, base, 256 + 320 * g + 256, part)
        for k, low in _nibbles(builder, base, 256 + 320 * g, part):
            moved = _left(builder, fifth, 4 - k) if k < 4 else _right(builder, fifth, k - 4)
            yield k, builder.or_(low, builder.and_(moved, ir.constant(Bytes, 16)))

    return _affine_runs(builder, address, turn, part, codes)


def _q6_k(builder: Any, address: Any, turn: Any, part: Any) -> Iterator[Run]:
    scale = _halves(builder, address, 0, part)
    base = builder.add(address, ir.scaled(builder, turn, 2 * 384))

    def codes(run: int) -> Iterator[tuple[int, Any]]:
        group, j = 320 + 384 * (run // 2), run % 2
        pairs = _vector(builder, base, group + 256 + 64 * j, part)
        for f in range(4):
            k = 4 * j + f
            raw = _vector(builder, base, group + 64 * (k // 2), part)
            low = builder.and_(_right(builder, raw, 4) if k % 2 else raw, ir.constant(Bytes, 15))
            moved = _left(builder, pairs, 4 - 2 * f) if f < 2 else _right(builder, pairs, 2 * f - 4) if f > 2 else pairs
            yield k, builder.or_(low, builder.and_(moved, ir.constant(Bytes, 48)))

    steps = builder.add(address, ir.scaled(builder, turn, 4 * 16))
    for run in range(4):
        place = _place(builder, steps, 64 + 16 * run, part, 1)
        numbers = builder.sext(ir.load(builder, place, ir.Vector(ir.Int8, ROWS_AT_ONCE)), Ints)
        step = builder.fmul(builder.sitofp(numbers, Floats), scale)
        yield Run(run // 2, codes(run), step, None, X_MINUS_32_OF_HALVES[run % 2])


UNIT_KINDS = {
    "q4_0": UnitKind(1, False, 8, _q4_0),
    "q4_1": UnitKind(1, False, 8, _q4_1),
    "q8_0": UnitKind(1, True, 1, _q8_0),
    "q4_k": UnitKind(4, False, 8, _q4_k),
    "q5_k": UnitKind(4, False, 4, _q5_k),
    "q6_k": UnitKind(4, False, 2, _q6_k),
}

"""Stored rows rearranged into units of sixteen rows.

Owns: the kernel that moves the bits of each kind of weight from the order of the file to that of `integer_blocks`. It
is a permutation of bits; rows and columns that fill no unit are padded with zeros.
Next: `ferrum.backends.numba_kernels.compiled.linear`.
"""

from __future__ import annotations

from numba import types

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.k_blocks import KINDS
from ferrum.backends.numba_kernels.compiled.simd import Address, Index, inlined, load_word, word
from ferrum.backends.numba_kernels.sizes import GROUP, UNIT_BLOCK_BYTES, UNIT_GROUPS, UNIT_ROWS

_NIBBLES = 0x0F0F0F0F
_TWICE = 0x03030303
_ONES = 0x01010101


@word(Index, Address)
def _four(builder, address):
    """Four bytes, as an unsigned integer."""
    return builder.zext(ir.load(builder, address, ir.Int32), ir.Int64)


@word(types.void, Address, Index)
def _put_four(builder, address, value):
    ir.store(builder, address, builder.trunc(value, ir.Int32))


@word(Index, Address)
def _byte(builder, address):
    """One byte, as an unsigned integer."""
    return builder.zext(ir.load(builder, address, ir.Int8), ir.Int64)


@word(types.void, Address, Index)
def _put_one(builder, address, value):
    ir.store(builder, address, builder.trunc(value, ir.Int8))


@word(types.void, Address, Address)
def _move_two(builder, target, source):
    ir.store(builder, target, ir.load(builder, source, ir.Int16))


@inlined
def _nibbles(source, target, shift):
    """Moves the low (shift 0) or high (shift 4) nibbles of 32 bytes, the 32 columns of a group, to four vectors, in
    each of which the row has four bytes."""
    for k in range(4):
        low, high = _four(source + 8 * k) >> shift, _four(source + 8 * k + 4) >> shift
        _put_four(target + 64 * k, (low & _NIBBLES) | (high & _NIBBLES) << 4)


@inlined
def _half_nibbles(source, target):
    """The same for 16 bytes whose low nibbles are columns 0-15 and whose high nibbles are columns 16-31."""
    for k in range(2):
        low, high = _four(source + 8 * k), _four(source + 8 * k + 4)
        _put_four(target + 64 * k, (low & _NIBBLES) | (high & _NIBBLES) << 4)
        _put_four(target + 128 + 64 * k, (low >> 4 & _NIBBLES) | (high >> 4 & _NIBBLES) << 4)


# ---- one block of one row: its address, that of the unit's block, the row in the unit, the block in the unit's block
@inlined
def _q4_0(source, unit, row, block):
    _move_two(unit + 32 * block + 2 * row, source)
    _half_nibbles(source + 2, unit + 64 + 256 * block + 4 * row)


@inlined
def _q4_1(source, unit, row, block):
    _move_two(unit + 2 * row, source)
    _move_two(unit + 32 + 2 * row, source + 2)
    _half_nibbles(source + 4, unit + 64 + 4 * row)


@inlined
def _q8_0(source, unit, row, block):
    _move_two(unit + 32 * block + 2 * row, source)
    for k in range(8):
        _put_four(unit + 64 + 512 * block + 64 * k + 4 * row, _four(source + 2 + 4 * k))


@inlined
def _six_bit_scales(source, unit, row):
    """The scales and minimums at the beginning of Q4_K and Q5_K. `ferrum.tensor.k_quants` describes how the file packs
    them."""
    _move_two(unit + 2 * row, source)
    _move_two(unit + 32 + 2 * row, source + 2)
    for pair in range(4):
        high = 0
        for group in range(2 * pair, 2 * pair + 2):
            if group < 4:
                scale, least = _byte(source + 4 + group) & 63, _byte(source + 8 + group) & 63
            else:
                last = _byte(source + 8 + group)
                scale = last & 15 | _byte(source + group) >> 6 << 4
                least = last >> 4 | _byte(source + 4 + group) >> 6 << 4
            _put_one(unit + 64 + 16 * group + row, scale & 15 | (least & 15) << 4)
            high |= (scale >> 4 | least >> 4 << 2) << 4 * (group % 2)
        _put_one(unit + 192 + 16 * pair + row, high)


@inlined
def _q4_k(source, unit, row, block):
    _six_bit_scales(source, unit, row)
    for group in range(8):
        _nibbles(source + 16 + 32 * (group // 2), unit + 256 + 256 * group + 4 * row, 4 * (group % 2))


@inlined
def _q5_k(source, unit, row, block):
    _six_bit_scales(source, unit, row)
    for group in range(8):
        target = unit + 256 + 320 * group + 4 * row
        _nibbles(source + 48 + 32 * (group // 2), target, 4 * (group % 2))
        fifth = 0
        for k in range(8):
            fifth |= (_four(source + 16 + 4 * k) >> group & _ONES) << k
        _put_four(target + 256, fifth)


@inlined
def _q6_k(source, unit, row, block):
    _move_two(unit + 2 * row, source + 208)
    for run in range(16):
        _put_one(unit + 64 + 16 * run + row, _byte(source + 192 + run))
    for group in range(8):
        half, quarter = group // 4, group % 4
        target = unit + 320 + 384 * group + 4 * row
        _nibbles(source + 64 * half + 32 * (quarter % 2), target, 4 * (quarter // 2))
        for j in range(2):
            pairs = 0
            for f in range(4):
                place = source + 128 + 32 * half + 16 * j + 4 * f
                pairs |= (_four(place) >> 2 * quarter & _TWICE) << 2 * f
            _put_four(target + 256 + 64 * j, pairs)


_BLOCKS = {"q4_0": _q4_0, "q4_1": _q4_1, "q8_0": _q8_0, "q4_k": _q4_k, "q5_k": _q5_k, "q6_k": _q6_k}


def interleaved(kind):
    """The kernel for a kind of weight.

    1 stored rows, 2 bytes from one to the next, 3 rows, 4 columns, 5 units, which are zeros before, 6 bytes of a unit.
    A chunk is a part of the units."""
    move, size, stored = _BLOCKS[kind], KINDS[kind].size, KINDS[kind].bytes
    together, span = UNIT_GROUPS[kind] * GROUP // KINDS[kind].size, UNIT_BLOCK_BYTES[kind]

    def interleave(row, chunk, chunks):
        source, row_bytes, rows, columns = (
            load_word(row + 8),
            load_word(row + 16),
            load_word(row + 24),
            load_word(row + 32),
        )
        target, unit_bytes = load_word(row + 40), load_word(row + 48)
        units = (rows + UNIT_ROWS - 1) // UNIT_ROWS
        for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
            for lane in range(min(UNIT_ROWS, rows - UNIT_ROWS * unit)):
                place = source + (UNIT_ROWS * unit + lane) * row_bytes
                for block in range(columns // size):
                    base = target + unit * unit_bytes + block // together * span
                    move(place + block * stored, base, lane, block % together)

    return interleave

"""Moves of numbers between rows and pages: strided copies, conversion on the way, rotation.

Owns: the words that attention and the writing of keys and values carry their operands about with, and where a page
lies in the cache.
Next: `ferrum.backends.numba_kernels.compiled.writing`.
"""

from __future__ import annotations

from typing import Any

from numba import types
from numba.core import cgutils

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.blocks import half_in_all_lanes
from ferrum.backends.numba_kernels.compiled.simd import Address, Index, Real, word
from ferrum.backends.numba_kernels.loading.features import HAS_HALF


def _from_float(builder: Any, address: Any) -> Any:
    return ir.load(builder, address, ir.Float)


def _from_half(builder: Any, address: Any) -> Any:
    return builder.extract_element(half_in_all_lanes(builder, address), ir.constant(ir.Int32, 0))


def _as_it_is(builder: Any, address: Any, value: Any) -> None:
    ir.store(builder, address, value)


def _to_half(builder: Any, address: Any, value: Any) -> None:
    """To nearest even. Where the target has no conversion no float16 cache comes to the kernels."""
    if HAS_HALF:
        ir.store(builder, address, builder.fptrunc(value, ir.Half))


def _from_short(builder: Any, address: Any) -> Any:
    return ir.load(builder, address, ir.Int16)


def _copy(name: str, read: Any, write: Any) -> Any:
    """Word (source, source step, target, target step, count): numbers from places so many bytes apart to others."""

    def build(builder, source, source_step, target, target_step, count):
        with cgutils.for_range(builder, count) as loop:
            value = read(builder, builder.add(source, builder.mul(loop.index, source_step)))
            write(builder, builder.add(target, builder.mul(loop.index, target_step)), value)

    build.__name__ = name
    return word(types.void, *[Index] * 5)(build)


copy = _copy("copy", _from_float, _as_it_is)
copy_from_half = _copy("copy_from_half", _from_half, _as_it_is)
copy_to_half = _copy("copy_to_half", _from_float, _to_half)
copy_shorts = _copy("copy_shorts", _from_short, _as_it_is)


@word(types.void, Address, Address, Index, Index, Address, Address, Real)
def rotate(builder, source, target, head_dim, half, cos, sin, scale):
    """One head: dimensions i and i + half turn by angle i; the rest passes. All times `scale`. Sixteen at a time where
    there are as many: element by element, the arithmetic is the same."""
    vectors = builder.mul(builder.sdiv(half, ir.constant(ir.Int64, ir.LANES)), ir.constant(ir.Int64, ir.LANES))
    lanes, one, zero = (ir.constant(ir.Int64, value) for value in (ir.LANES, 1, 0))

    def turn(index: Any, kind: Any, factor: Any) -> None:
        low, high = ir.scaled(builder, index, 4), ir.scaled(builder, builder.add(index, half), 4)
        first, second = (ir.load(builder, builder.add(source, place), kind) for place in (low, high))
        c, s = (ir.load(builder, builder.add(table, low), kind) for table in (cos, sin))
        turned_first = builder.fsub(builder.fmul(first, c), builder.fmul(second, s))
        turned_second = builder.fadd(builder.fmul(second, c), builder.fmul(first, s))
        ir.store(builder, builder.add(target, low), builder.fmul(turned_first, factor))
        ir.store(builder, builder.add(target, high), builder.fmul(turned_second, factor))

    with cgutils.for_range_slice(builder, zero, vectors, lanes, inc=True) as (index, _):
        turn(index, ir.Floats, ir.splat(builder, scale))
    with cgutils.for_range_slice(builder, vectors, half, one, inc=True) as (index, _):
        turn(index, ir.Float, scale)
    with cgutils.for_range_slice(builder, builder.add(half, half), head_dim, one, inc=True) as (index, _):
        place = ir.scaled(builder, index, 4)
        passing = ir.load(builder, builder.add(source, place), ir.Float)
        ir.store(builder, builder.add(target, place), builder.fmul(passing, scale))


def _place(builder, start, table, head, kv_heads, row, block_size, begin):
    """-> start + row * how many (block, head) pairs lie before that of position `begin`, and its offset in the block"""
    block = ir.load(builder, builder.add(table, ir.scaled(builder, builder.sdiv(begin, block_size), 4)), ir.Int32)
    pair = builder.add(builder.mul(builder.sext(block, ir.Int64), kv_heads), head)
    return builder.add(start, builder.mul(pair, row)), builder.srem(begin, block_size)


@word(Index, Address, Address, Index, Index, Index, Index, Index, Index)
def key_place(builder, keys, table, head, kv_heads, head_dim, block_size, element, begin):
    """Address of the first dimension of the key at position `begin`, of numbers of `element` bytes; the next dimension
    lies block_size numbers further on."""
    row = builder.mul(builder.mul(head_dim, block_size), element)
    place, offset = _place(builder, keys, table, head, kv_heads, row, block_size, begin)
    return builder.add(place, builder.mul(offset, element))


@word(Index, Address, Address, Index, Index, Index, Index, Index, Index)
def value_place(builder, values, table, head, kv_heads, head_dim, block_size, element, begin):
    """Address of the value at position `begin`: head_dim numbers side by side."""
    row = builder.mul(builder.mul(head_dim, block_size), element)
    place, offset = _place(builder, values, table, head, kv_heads, row, block_size, begin)
    return builder.add(place, builder.mul(builder.mul(offset, head_dim), element))


@word(types.void, Address, Index, Index)
def fetch(builder, address, step, count):
    """Ask for the cache lines at `count` places so many bytes apart."""
    with cgutils.for_range(builder, count) as loop:
        ir.prefetch(builder, builder.add(address, builder.mul(loop.index, step)))


@word(types.void, Address, Index, Index)
def fetch_near(builder, address, step, count):
    """The same into the nearest cache."""
    with cgutils.for_range(builder, count) as loop:
        ir.prefetch(builder, builder.add(address, builder.mul(loop.index, step)), nearest=True)

"""Strided copies of numbers, with conversion or rotation, and the addresses of positions in the KV cache.

Owns: the words with which the kernels of attention and of `kv_write` copy queries, keys and values.
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


def _to_float(builder: Any, address: Any, value: Any) -> None:
    ir.store(builder, address, value)


def _to_half(builder: Any, address: Any, value: Any) -> None:
    """Rounded to nearest even. Targets without this conversion do not use kernels for float16 caches."""
    if HAS_HALF:
        ir.store(builder, address, builder.fptrunc(value, ir.Half))


def _from_short(builder: Any, address: Any) -> Any:
    return ir.load(builder, address, ir.Int16)


def _copy(name: str, read: Any, write: Any) -> Any:
    """Word (source, source step, target, target step, count): copies `count` numbers. Steps are in bytes."""

    def build(builder, source, source_step, target, target_step, count):
        with cgutils.for_range(builder, count) as loop:
            value = read(builder, builder.add(source, builder.mul(loop.index, source_step)))
            write(builder, builder.add(target, builder.mul(loop.index, target_step)), value)

    build.__name__ = name
    return word(types.void, *[Index] * 5)(build)


copy = _copy("copy", _from_float, _to_float)
copy_from_half = _copy("copy_from_half", _from_half, _to_float)
copy_to_half = _copy("copy_to_half", _from_float, _to_half)
copy_shorts = _copy("copy_shorts", _from_short, _to_float)


@word(types.void, Address, Address, Index, Index, Address, Address, Real)
def rotate(builder, source, target, head_dim, half, cos, sin, scale):
    """Rotates one head: dimensions i and i + half by angle i; dimensions from 2 * half on are copied. All are
    multiplied by `scale`. Sixteen dimensions at a time where possible; the arithmetic of single ones is the same."""
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
    """-> the address of the block of position `begin` for a head, and the offset of the position in the block. `row`:
    bytes of a block of one head."""
    block = ir.load(builder, builder.add(table, ir.scaled(builder, builder.sdiv(begin, block_size), 4)), ir.Int32)
    pair = builder.add(builder.mul(builder.sext(block, ir.Int64), kv_heads), head)
    return builder.add(start, builder.mul(pair, row)), builder.srem(begin, block_size)


@word(Index, Address, Address, Index, Index, Index, Index, Index, Index)
def key_place(builder, keys, table, head, kv_heads, head_dim, block_size, element, begin):
    """The address of the first dimension of the key at position `begin`. Numbers have `element` bytes; the next
    dimension is block_size numbers later."""
    row = builder.mul(builder.mul(head_dim, block_size), element)
    place, offset = _place(builder, keys, table, head, kv_heads, row, block_size, begin)
    return builder.add(place, builder.mul(offset, element))


@word(Index, Address, Address, Index, Index, Index, Index, Index, Index)
def value_place(builder, values, table, head, kv_heads, head_dim, block_size, element, begin):
    """The address of the value at position `begin`: head_dim neighbouring numbers."""
    row = builder.mul(builder.mul(head_dim, block_size), element)
    place, offset = _place(builder, values, table, head, kv_heads, row, block_size, begin)
    return builder.add(place, builder.mul(builder.mul(offset, head_dim), element))


@word(types.void, Address, Index, Index)
def fetch(builder, address, step, count):
    """Prefetches the cache lines of `count` addresses, `step` bytes apart, into the second-level cache."""
    with cgutils.for_range(builder, count) as loop:
        ir.prefetch(builder, builder.add(address, builder.mul(loop.index, step)))


@word(types.void, Address, Index, Index)
def fetch_near(builder, address, step, count):
    """The same, into the first-level cache."""
    with cgutils.for_range(builder, count) as loop:
        ir.prefetch(builder, builder.add(address, builder.mul(loop.index, step)), nearest=True)

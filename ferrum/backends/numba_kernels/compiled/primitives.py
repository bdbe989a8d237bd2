"""Kernels of primitives: arithmetic, comparison and selection of elements, copies, and rows of a table.

Owns: the kernels of those primitives whose results IEEE 754 determines, so that a recorded step has the same bits as
the step itself. Sums and elementary functions are not among them, because NumPy has its own order of additions and its
own approximations. Definitions: `NumpyOps` in `ferrum.backends.numpy_backend`.
Specs: OPS-60. Next: `ferrum.backends.numba_kernels.compiled.chunk_claims`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
from numba import types

from ferrum.backends.numba_kernels.compiled import ir
from ferrum.backends.numba_kernels.compiled.simd import (
    Address,
    Floats16,
    Real,
    inlined,
    load,
    load_float,
    load_int32,
    load_word,
    splat,
    store,
    store_float,
    word,
)

_BYTES = ir.Vector(ir.Int8, ir.LANES)
_NAN = np.float32(np.nan)


# ---- flags: bytes of 0 and 1 in memory, floats of 0 and 1 in registers
@word(Floats16, Address)
def load_flags(builder, address):
    """16 flags"""
    return builder.uitofp(ir.load(builder, address, _BYTES), ir.Floats)


@word(Real, Address)
def load_flag(builder, address):
    return builder.uitofp(ir.load(builder, address, ir.Int8), ir.Float)


@word(types.void, Address, Floats16)
def store_flags(builder, address, values):
    """16 flags"""
    ir.store(builder, address, builder.zext(_is_set(builder, values, ir.Floats), _BYTES))


@word(types.void, Address, Real)
def store_flag(builder, address, value):
    ir.store(builder, address, builder.zext(_is_set(builder, value, ir.Float), ir.Int8))


@word(Real, Floats16)
def first_lane(builder, values):
    return builder.extract_element(values, ir.constant(ir.Int32, 0))


def _is_set(builder: Any, flags: Any, kind: Any) -> Any:
    return builder.fcmp_unordered("!=", flags, ir.constant(kind, 0.0))


# ---- operations on 16 elements; those of one or two operands do not use the others
def _maximum(builder: Any, x: Any, y: Any) -> Any:
    """NaN if one is NaN; y if both are equal, also for 0 and -0: like NumPy."""
    wins = builder.or_(builder.fcmp_ordered(">", x, y), builder.fcmp_unordered("uno", x, x))
    return builder.select(wins, x, y)


def _rsqrt(builder: Any, x: Any) -> Any:
    root = ir.call(builder, f"llvm.sqrt.v{ir.LANES}f32", ir.Floats, x)
    return builder.fdiv(ir.constant(ir.Floats, 1.0), root)


_BUILDERS = {
    "copy": lambda builder, x, y, z: x,
    "add": lambda builder, x, y, z: builder.fadd(x, y),
    "sub": lambda builder, x, y, z: builder.fsub(x, y),
    "mul": lambda builder, x, y, z: builder.fmul(x, y),
    "div": lambda builder, x, y, z: builder.fdiv(x, y),
    "maximum": lambda builder, x, y, z: _maximum(builder, x, y),
    "rsqrt": lambda builder, x, y, z: _rsqrt(builder, x),
    "less": lambda builder, x, y, z: builder.uitofp(builder.fcmp_ordered("<", x, y), ir.Floats),
    "equal": lambda builder, x, y, z: builder.uitofp(builder.fcmp_ordered("==", x, y), ir.Floats),
    "where": lambda builder, x, y, z: builder.select(_is_set(builder, x, ir.Floats), y, z),
}
_OPERATIONS = {name: word(Floats16, *[Floats16] * 3)(build) for name, build in _BUILDERS.items()}
_FLOATS, _FLAGS = (4, load, load_float, store, store_float), (1, load_flags, load_flag, store_flags, store_flag)
_READS_FLAGS, _WRITES_FLAGS = ("where",), ("less", "equal")


@inlined
def _place(operand, i, j, k):
    """The address of row (i, j, k) of an operand. `operand`: the address of its words, which are its address and four
    strides in bytes."""
    outer = load_word(operand) + i * load_word(operand + 8)
    return outer + j * load_word(operand + 16) + k * load_word(operand + 24)


def elementwise(name):
    """The kernel of a primitive. Its words, for a result of four dimensions:

    1 product of the first three dimensions, 2 second, 3 third, 4 last, 5 out: address and four strides in bytes,
    10 first operand, 15 second, 20 third: the same, with stride 0 where the operand is broadcast, 25 always 0. Sixteen
    elements at a time where they are neighbours in memory."""
    operation = _OPERATIONS[name]
    x_bytes, load_x, load_one_x, _, _ = _FLAGS if name in _READS_FLAGS else _FLOATS
    out_bytes, _, _, store_out, store_one = _FLAGS if name in _WRITES_FLAGS else _FLOATS

    @inlined
    def read_x(address, step, n):
        return splat(load_one_x(address)) if step == 0 else load_x(address + step * n)

    @inlined
    def read(address, step, n):
        return splat(load_float(address)) if step == 0 else load(address + step * n)

    def apply(row, chunk, chunks):
        units, second, third, count = load_word(row + 8), load_word(row + 16), load_word(row + 24), load_word(row + 32)
        out_step, x_step, y_step = load_word(row + 72), load_word(row + 112), load_word(row + 152)
        z_step, whole = load_word(row + 192), 0
        floats_in_line = (y_step == 0 or y_step == 4) and (z_step == 0 or z_step == 4)
        if floats_in_line and (x_step == 0 or x_step == x_bytes) and out_step == out_bytes:
            whole = count // 16 * 16
        for unit in range(units * chunk // chunks, units * (chunk + 1) // chunks):
            i, j, k = unit // third // second, unit // third % second, unit % third
            out, x = _place(row + 40, i, j, k), _place(row + 80, i, j, k)
            y, z = _place(row + 120, i, j, k), _place(row + 160, i, j, k)
            for n in range(0, whole, 16):
                store_out(out + out_step * n, operation(read_x(x, x_step, n), read(y, y_step, n), read(z, z_step, n)))
            for n in range(whole, count):
                a, b, c = load_one_x(x + x_step * n), load_float(y + y_step * n), load_float(z + z_step * n)
                store_one(out + out_step * n, first_lane(operation(splat(a), splat(b), splat(c))))

    return apply


def take(row, chunk, chunks):
    """Rows of a table, by their indices.

    1 indices (int32), 2 their count, 3 table, 4 bytes from row to row, 5 rows, 6 columns, 7 out (contiguous), 25 always
    0. Elements have four bytes. An index below 0 counts from the end. An index outside of the table, for which NumPy
    raises an error, gives a row of NaN, which the checks after a step report."""
    count, rows, columns = load_word(row + 16), load_word(row + 40), load_word(row + 48)
    for i in range(count * chunk // chunks, count * (chunk + 1) // chunks):
        index, out = load_int32(load_word(row + 8) + 4 * i), load_word(row + 56) + 4 * columns * i
        if index < 0:
            index += rows
        if index < 0 or index >= rows:
            for n in range(columns):
                store_float(out + 4 * n, _NAN)
        else:
            source, whole = load_word(row + 24) + index * load_word(row + 32), columns // 16 * 16
            for n in range(0, whole, 16):
                store(out + 4 * n, load(source + 4 * n))
            for n in range(whole, columns):
                store_float(out + 4 * n, load_float(source + 4 * n))

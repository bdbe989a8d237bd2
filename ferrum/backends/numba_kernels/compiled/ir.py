"""Small builders of portable LLVM vector IR, from which the SIMD vocabulary and the tiles are made.

Owns: constants, loads, splats, shuffles and the reduction tree. Every address is an int64, so the same code runs on
mapped files and NumPy buffers. Reductions are explicit trees without fast-math flags, which LLVM may not reorder: a sum
has the same bits in every shape of tile and on every target with fused multiply-add.
Next: `ferrum.backends.numba_kernels.compiled.simd`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from llvmlite import ir
from numba.core import cgutils

from ferrum.backends.numba_kernels.loading.features import HAS_BFLOAT16

LANES = 16

IntType = ir.IntType

Half, Float = ir.HalfType(), ir.FloatType()
Int8, Int16, Int32, Int64 = ir.IntType(8), ir.IntType(16), ir.IntType(32), ir.IntType(64)
Vector = ir.VectorType
Floats, Ints = Vector(Float, LANES), Vector(Int32, LANES)  # the 16-lane types of all kernels
NONE = ir.Constant(Int8.as_pointer(), None)  # the value that stands for None in Numba


def constant(kind: Any, value: Any) -> Any:
    """A constant. One number fills every lane of a vector type."""
    if isinstance(kind, Vector) and not isinstance(value, (list, tuple)):
        value = [value] * kind.count
    return ir.Constant(kind, value)


def call(builder: Any, name: str, result: Any, *arguments: Any) -> Any:
    """Calls an LLVM intrinsic or an external function by name."""
    kind = ir.FunctionType(result, [argument.type for argument in arguments])
    return builder.call(cgutils.get_or_insert_function(builder.module, kind, name), list(arguments))


def pointer(builder: Any, address: Any, kind: Any) -> Any:
    return builder.inttoptr(address, kind.as_pointer())


def offset(builder: Any, address: Any, distance: Any) -> Any:
    """address + distance in bytes"""
    return builder.add(address, constant(Int64, distance) if isinstance(distance, int) else distance)


def scaled(builder: Any, index: Any, factor: int) -> Any:
    return builder.mul(index, constant(Int64, factor))


def load(builder: Any, address: Any, kind: Any) -> Any:
    return builder.load(pointer(builder, address, kind), align=1)


def store(builder: Any, address: Any, value: Any) -> None:
    builder.store(value, pointer(builder, address, value.type), align=1)


def prefetch(builder: Any, address: Any, nearest: bool = False) -> None:
    """Prefetches the cache line at `address` into the second-level cache, or with `nearest` into the first-level cache.
    An invalid address has no effect."""
    place = pointer(builder, address, Int8)
    access, level, data = (constant(Int32, value) for value in (0, 3 if nearest else 2, 1))
    call(builder, "llvm.prefetch.p0", ir.VoidType(), place, access, level, data)


def splat(builder: Any, value: Any) -> Any:
    """One scalar in all lanes."""
    kind = Vector(value.type, LANES)
    undefined = ir.Constant(kind, ir.Undefined)
    single = builder.insert_element(undefined, value, constant(Int32, 0))
    return builder.shuffle_vector(single, undefined, constant(Ints, 0))


def pack(builder: Any, scalars: Sequence[Any]) -> Any:
    """Scalars of one type as the lanes of a vector."""
    vector = ir.Constant(Vector(scalars[0].type, len(scalars)), ir.Undefined)
    for lane, value in enumerate(scalars):
        vector = builder.insert_element(vector, value, constant(Int32, lane))
    return vector


def shuffle(builder: Any, first: Any, second: Any, lanes: Sequence[int]) -> Any:
    return builder.shuffle_vector(first, second, ir.Constant(Vector(Int32, len(lanes)), list(lanes)))


def multiply_add(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x * y + z on vectors of floats: fused where the target can, never a library call."""
    return call(builder, f"llvm.fmuladd.v{x.type.count}f32", x.type, x, y, z)


class _BFloatType(ir.Type):  # type: ignore[misc]
    """The type bfloat of LLVM, which llvmlite does not define."""

    def _to_string(self) -> str:
        return "bfloat"

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _BFloatType)

    def __hash__(self) -> int:
        return hash(_BFloatType)


def dot_pairs(builder: Any, x: Any, y: Any, z: Any) -> Any:
    """x and y hold 16 pairs of bfloat16, as 16 int32. Both products of a pair are added to its lane of z. The
    instruction of AVX512_BF16 treats denormal numbers as 0 and rounds to nearest even. Other targets use two
    multiply-adds in float32."""
    if HAS_BFLOAT16:
        pairs = (builder.bitcast(each, Vector(_BFloatType(), 2 * LANES)) for each in (x, y))
        return call(builder, "llvm.x86.avx512bf16.dpbf16ps.512", Floats, z, *pairs)
    for half in (_low_of_pairs, _high_of_pairs):
        z = multiply_add(builder, half(builder, x), half(builder, y), z)
    return z


def _low_of_pairs(builder: Any, pairs: Any) -> Any:
    """A bfloat16 is the upper half of a float32."""
    return builder.bitcast(builder.shl(pairs, constant(Ints, 16)), Floats)


def _high_of_pairs(builder: Any, pairs: Any) -> Any:
    return builder.bitcast(builder.and_(pairs, constant(Ints, -1 << 16)), Floats)


def pairs_of(builder: Any, low: Any, high: Any) -> Any:
    """Two vectors of 16 floats, rounded to bfloat16, as 16 int32: `low` in the lower halves, `high` in the upper
    ones."""
    low, high = (_rounded_to_bfloat16(builder, x) for x in (low, high))
    return builder.or_(builder.lshr(low, constant(Ints, 16)), builder.and_(high, constant(Ints, -1 << 16)))


def _rounded_to_bfloat16(builder: Any, x: Any) -> Any:
    """The bits of 16 floats whose upper halves are the numbers rounded to bfloat16, to nearest even. NaN stays NaN."""
    bits = builder.bitcast(x, Ints)
    odd = builder.and_(builder.lshr(bits, constant(Ints, 16)), constant(Ints, 1))
    rounded = builder.add(bits, builder.add(odd, constant(Ints, 0x7FFF)))
    quiet = builder.or_(bits, constant(Ints, 0x400000))
    return builder.select(builder.fcmp_unordered("uno", x, x), quiet, rounded)


def widen(builder: Any, integers: Any) -> Any:
    """<16 x i8> signed -> 16 floats"""
    return builder.sitofp(builder.sext(integers, Ints), Floats)


def allocate(builder: Any, starts: Sequence[Any]) -> list[Any]:
    """Accumulators with these initial values. LLVM keeps them in registers."""
    slots = [cgutils.alloca_once(builder, start.type) for start in starts]
    for start, slot in zip(starts, slots, strict=True):
        builder.store(start, slot)
    return slots


def allocate_zeros(builder: Any, count: int) -> list[Any]:
    return allocate(builder, [constant(Floats, 0.0)] * count)


def opaque(builder: Any, value: Any) -> Any:
    """The same value, about which LLVM knows nothing. If LLVM knew the pattern of a shuffle it would choose other
    instructions, and if it knew that an address is used again it would keep the loaded value in a register that is
    needed elsewhere. The inline assembly has no instruction; it only names the kind of register."""
    kind = ir.FunctionType(value.type, [value.type])
    constraint = "=r,0" if value.type == Int64 else "=x,0"
    return builder.call(ir.InlineAsm(kind, "", constraint, False), [value])


def stack(builder: Any, size: int) -> Any:
    """The address of `size` bytes on the stack, as an `opaque` value: otherwise LLVM would keep their content in
    registers instead of reading it from memory."""
    slot = cgutils.alloca_once(builder, ir.ArrayType(Int8, size))
    slot.align = 64
    return opaque(builder, builder.ptrtoint(slot, Int64))


def spread(builder: Any, address: Any, index: int) -> Any:
    """The float number `index` at an address, in all lanes."""
    return splat(builder, load(builder, offset(builder, address, 4 * index), Float))


def keep_order(builder: Any) -> None:
    """LLVM may not move loads from after this point to before it. Otherwise it would do all loads of a loop at its
    beginning and run out of registers."""
    builder.call(ir.InlineAsm(ir.FunctionType(ir.VoidType(), []), "", "~{memory}", True), [])


def switch_on(builder: Any, value: Any, cases: Sequence[int], body: Any) -> None:
    """Runs body(case) for the case that equals the int64 `value`, and nothing if no case does."""
    end = builder.append_basic_block("switch.done")
    switch = builder.switch(value, end)
    for case in cases:
        block = builder.append_basic_block(f"switch.{case}")
        switch.add_case(constant(Int64, case), block)
        builder.position_at_end(block)
        body(case)
        builder.branch(end)
    builder.position_at_end(end)


def horizontal_sums(builder: Any, parts: Sequence[Sequence[Any]]) -> list[Any]:
    """The sum of all lanes of each vector, always by the tree (i, i+8), (i, i+4), (i, i+2), (i, i+1).

    A vector of 16 lanes comes in parts: 1 of 16 lanes, 2 of 8 or 4 of 4; parts[p][v] is part p of vector v. Several
    vectors share their additions (16 sums cost 15 additions instead of 64), but each keeps its tree, and so its
    rounding.
    """
    while len(parts) > 1:
        half = len(parts) // 2
        pairs = zip(parts[:half], parts[half:], strict=True)
        parts = [[builder.fadd(a, b) for a, b in zip(*pair, strict=True)] for pair in pairs]
    (vectors,) = parts
    lanes = vectors[0].type.count
    sums: list[Any] = []
    while len(sums) < len(vectors):
        count = min(lanes, 1 << ((len(vectors) - len(sums)).bit_length() - 1))
        sums += _fold(builder, list(vectors[len(sums) : len(sums) + count]), lanes)
    return sums


def _fold(builder: Any, vectors: list[Any], lanes: int) -> list[Any]:
    """The lane sums of vectors. Their number is a power of two, at most the number of their lanes."""
    count, width = len(vectors), lanes  # each vector holds lanes / width groups of `width` partial sums
    while len(vectors) > 1:
        half = width // 2
        starts = [source + group for source in (0, lanes) for group in range(0, lanes, width)]
        low = [start + lane for start in starts for lane in range(half)]
        high = [start + half + lane for start in starts for lane in range(half)]
        pairs = zip(vectors[::2], vectors[1::2], strict=True)
        vectors = [builder.fadd(shuffle(builder, a, b, low), shuffle(builder, a, b, high)) for a, b in pairs]
        width = half
    (folded,) = vectors
    while width > 1:
        half = width // 2
        starts = list(range(0, folded.type.count, width))
        low = [start + lane for start in starts for lane in range(half)]
        high = [start + half + lane for start in starts for lane in range(half)]
        folded = builder.fadd(shuffle(builder, folded, folded, low), shuffle(builder, folded, folded, high))
        width = half
    return [builder.extract_element(folded, constant(Int32, lane)) for lane in range(count)]

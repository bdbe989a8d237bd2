"""Quantised matrices of safetensors directories: the formats of GPTQ, AWQ, MLX, compressed-tensors, FP8 and MXFP4.

Owns: how each format spreads one matrix over several tensors, the check that their shapes fit together, and the numbers
of some rows as `Scaled`. Refuses to know: what config.json says (`ferrum.load.quantization_config`).
Specs: LOAD-104, LOAD-105, QUANT-20. Source: AutoGPTQ's and AutoAWQ's `pack`, MLX's `quantize`, compressed-tensors'
`pack_to_int32`, gpt-oss' safetensors, transformers' `finegrained_fp8` and `fbgemm_fp8`.

A matrix is [rows, columns], and rows make outputs, as everywhere; AWQ and GPTQ store the transposed matrix.
Next: `ferrum.load.quantization_config`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from typing import NoReturn, Protocol

import numpy as np
from numpy.typing import NDArray

from ferrum.errors import ModelError, Unsupported
from ferrum.load.bits import E2M1, nibbles, powers_of_two
from ferrum.load.scaled import Floats, Scaled, keep
from ferrum.load.source import StoredTensor
from ferrum.tensor.weights import Weight

PIECE = 1 << 20
"""Weights unpacked at a time."""
FLOATS = ("F16", "BF16", "F32")
SCALES = (*FLOATS, "F8_E8M0")

Words = NDArray[np.uint32]
Codes = NDArray[np.int16]


class RawTensors(Protocol):
    """The tensors of a directory as they are stored."""

    def describe(self, name: str) -> StoredTensor: ...
    def raw(self, name: str) -> np.ndarray: ...
    def __contains__(self, name: str) -> bool: ...


@dataclass(frozen=True)
class Packed:
    """One matrix, or a stack of them, not yet read. `read(start, stop)` returns rows, counted through all matrices of
    the stack; start and stop are multiples of 8, or the end."""

    label: str
    shape: tuple[int, ...]
    kinds: tuple[str, ...]
    """The types that may hold its numbers, the smallest first."""
    read: Callable[[int, int], Scaled] = field(repr=False)

    def weight(self) -> Weight:
        """All rows, in the smallest type that holds the numbers exactly."""
        *inner, columns = self.shape
        return keep(self._pieces, (math.prod(inner), columns), self.kinds)

    def _pieces(self) -> Iterator[Scaled]:
        rows, step = math.prod(self.shape[:-1]), max(8, PIECE // self.shape[-1] // 8 * 8)
        return (self.read(start, min(start + step, rows)) for start in range(0, rows, step))


@dataclass(frozen=True)
class Format:
    """A tensor whose name ends in `main` and whose type is one of `types` is a part of a matrix. The names of its other
    parts end in `ends` instead; `name` is the ending of the matrix's own name."""

    main: str
    types: tuple[str, ...]
    ends: tuple[str, ...]
    name: str
    open: Callable[[Parts], Packed]


class Parts:
    """The tensors that make up one matrix, by the ends of their names."""

    def __init__(self, tensors: RawTensors, where: str, stem: str, form: Format) -> None:
        self.tensors, self.where, self.stem, self.form = tensors, where, stem, form

    def names(self) -> list[str]:
        """The names of the parts that the file has."""
        return [self.stem + end for end in (self.form.main, *self.form.ends) if self.stem + end in self.tensors]

    def main(self, dimensions: int, stacked: bool = True) -> np.ndarray:
        """The tensor that identifies the matrix. It has `dimensions` dimensions, or more for a stack of matrices if
        `stacked` is True; none of them is 0."""
        stored = self.tensors.describe(self.stem + self.form.main)
        missing, extra = len(stored.shape) < dimensions, len(stored.shape) > dimensions
        if missing or (extra and not stacked) or 0 in stored.shape:
            self.wrong(self.form.main, f"has shape {list(stored.shape)}, which holds no matrix")
        return self.tensors.raw(stored.name)

    def part(self, end: str, types: tuple[str, ...], *shapes: tuple[int, ...]) -> np.ndarray:
        """Another tensor, of one of these types and shapes. Raises `ModelError`, or `Unsupported` for a type."""
        name, main = self.stem + end, self.stem + self.form.main
        if name not in self.tensors:
            raise ModelError(f"{self.where}: tensor {name} is missing, without which {main} has no meaning")
        stored = self.tensors.describe(name)
        if shapes and stored.shape not in shapes:
            expected = " or ".join(str(list(shape)) for shape in shapes)
            self.wrong(end, f"has shape {list(stored.shape)}, but {main} asks for {expected}")
        if stored.type not in types:
            raise Unsupported(f"{self.where}: tensor {name} is stored as {stored.type}, not as {' or '.join(types)}")
        return self.tensors.raw(name)

    def has(self, end: str) -> bool:
        return self.stem + end in self.tensors

    def wrong(self, end: str, problem: str) -> NoReturn:
        raise ModelError(f"{self.where}: tensor {self.stem}{end} {problem}")

    def check_multiple(self, columns: int, group: int) -> None:
        """Raises `ModelError` if the columns are not a whole number of groups."""
        if columns % group:
            self.wrong(
                self.form.main, f"holds {columns} columns, which are no multiple of {group}, the size of a group"
            )


def gptq(bits: int, group: int, offset: int, is_symmetric: bool) -> Format:
    """Codes of 32 bits in a word along the columns, zero points along the rows. In the first version 1 is missing in
    zero points. With "act order" a tensor gives the group of each column."""

    def read_parts(parts: Parts) -> Packed:
        words = parts.main(2, stacked=False).view(np.uint32)  # [columns * bits / 32, rows]
        columns, rows = words.shape[0] * 32 // bits, words.shape[1]
        groups, places = _groups(parts, ".g_idx", columns, group)
        scales = parts.part(".scales", FLOATS, (groups, rows))
        zeros = parts.part(".qzeros", ("I32",), (groups, -(-rows * bits // 32))).view(np.uint32)

        def read(start: int, stop: int) -> Scaled:
            codes = _unpacked(words[:, start:stop].T, bits)
            zero = _unpacked(zeros, bits)[:, start:stop].T + np.int16(offset) & np.int16((1 << bits) - 1)
            return _centred(codes, zero, scales[:, start:stop].T.astype(np.float32), places)

        kinds = ("q4_0", "q8_0") if bits == 4 and is_symmetric else ("q8_0",)
        return Packed(f"GPTQ {bits}-bit", (rows, columns), () if places is not None else kinds, read)

    return Format(".qweight", ("I32",), (".qzeros", ".scales", ".g_idx"), ".weight", read_parts)


_AWQ_PLACES = np.array([0, 4, 1, 5, 2, 6, 3, 7])
"""The nibble that holds each of 8 neighbouring rows."""


def awq(group: int) -> Format:
    """Codes and zero points of 8 rows in a word, even rows in its lower half."""

    def read_parts(parts: Parts) -> Packed:
        words = parts.main(2, stacked=False).view(np.uint32)  # [columns, rows / 8]
        columns, rows = words.shape[0], words.shape[1] * 8
        groups, places = _groups(parts, None, columns, group)
        scales = parts.part(".scales", FLOATS, (groups, rows))
        zeros = parts.part(".qzeros", ("I32",), (groups, rows // 8)).view(np.uint32)

        def read(start: int, stop: int) -> Scaled:
            codes, zero = (
                _unpacked(each[:, start // 8 : stop // 8], 4).reshape(len(each), -1, 8)[:, :, _AWQ_PLACES]
                for each in (words, zeros)
            )
            scale = scales[:, start:stop].T.astype(np.float32)
            return _centred(codes.reshape(columns, -1).T, zero.reshape(groups, -1).T, scale, places)

        return Packed("AWQ 4-bit", (rows, columns), () if places is not None else ("q8_0",), read)

    return Format(".qweight", ("I32",), (".qzeros", ".scales"), ".weight", read_parts)


def compressed_int4(bits: int, group: int) -> Format:
    """Signed codes, in words along the columns, stored with an offset as numbers from 0 on."""

    def read_parts(parts: Parts) -> Packed:
        words = parts.main(2, stacked=False).view(np.uint32)
        rows, columns = words.shape[0], words.shape[1] * 32 // bits
        groups, places = _groups(parts, ".weight_g_idx", columns, group)
        scales = parts.part(".weight_scale", FLOATS, (rows, groups))
        if parts.part(".weight_shape", ("I64", "I32"), (2,)).tolist() != [rows, columns]:
            parts.wrong(
                ".weight_shape", f"says otherwise than {parts.stem}.weight_packed, which holds {[rows, columns]}"
            )

        def read(start: int, stop: int) -> Scaled:
            codes = _unpacked(words[start:stop], bits)
            middle = np.full((stop - start, groups), 1 << bits - 1, np.int16)
            return _centred(codes, middle, scales[start:stop].astype(np.float32), places)

        kinds = ("q4_0",) if bits == 4 else ("q8_0",)
        return Packed(f"INT{bits}", (rows, columns), () if places is not None else kinds, read)

    ends = (".weight_scale", ".weight_shape", ".weight_g_idx")
    return Format(".weight_packed", ("I32",), ends, ".weight", read_parts)


def _groups(parts: Parts, end: str | None, columns: int, size: int) -> tuple[int, NDArray[np.integer] | None]:
    """-> the number of groups, and the group of each column; None if groups are runs of `size` neighbouring columns.
    Size -1 means one group of all columns."""
    size = columns if size == -1 else size
    groups = -(-columns // size)
    neighbours = np.arange(columns) // size
    if end is None or not parts.has(end):
        return groups, None if columns % size == 0 else neighbours
    places = parts.part(end, ("I32", "I64"), (columns,))
    if places.min() < 0 or places.max() >= groups:
        parts.wrong(end, f"names a group that is none of {groups}")
    is_plain = columns % size == 0 and np.array_equal(places, neighbours)
    return groups, None if is_plain else places


def _unpacked(words: Words, bits: int) -> Codes:
    """[n, words] -> [n, codes]: each word holds 32 / bits codes, the lowest first."""
    shifts = np.arange(0, 32, bits, dtype=np.uint32)
    codes = words[:, :, None] >> shifts & np.uint32((1 << bits) - 1)
    return codes.astype(np.int16).reshape(len(words), -1)


def _centred(codes: Codes, zeros: Codes, scales: Floats, places: NDArray[np.integer] | None) -> Scaled:
    """scale * (code - zero): codes [rows, columns], scales and zeros [rows, groups]"""
    if places is not None:
        return Scaled(scales[:, places], codes - zeros[:, places])
    groups = codes.reshape(*zeros.shape, -1)
    return Scaled(scales, (groups - zeros[:, :, None]).reshape(codes.shape))


def mlx_affine(settings: Callable[[str], tuple[int, int]]) -> Format:
    """scale * code + bias. `settings` gives the bits and the group size of a module."""

    def read_parts(parts: Parts) -> Packed:
        bits, group = settings(parts.stem)
        words = parts.main(2)  # [..., rows, columns * bits / 32]
        columns = words.shape[-1] * 32 // bits
        parts.check_multiple(columns, group)
        shape = (*words.shape[:-1], columns // group)
        scales, biases = (parts.part(end, FLOATS, shape) for end in (".scales", ".biases"))
        codes, scales, biases = (each.reshape(-1, each.shape[-1]) for each in (words.view(np.uint8), scales, biases))

        def read(start: int, stop: int) -> Scaled:
            unpacked = nibbles(codes[start:stop], 1) if bits == 4 else codes[start:stop]
            steps, offsets = scales[start:stop].astype(np.float32), -biases[start:stop].astype(np.float32)
            return Scaled(steps, unpacked, offsets=offsets)

        return Packed(f"MLX {bits}-bit", (*words.shape[:-1], columns), ("q4_1",) if bits == 4 else (), read)

    return Format(".weight", ("U32",), (".scales", ".biases"), ".weight", read_parts)


def mxfp4(parts: Parts) -> Packed:
    """As gpt-oss stores its experts: bytes of two codes [..., rows, groups, 16], the lower first, and an exponent for
    each group. Rows make outputs, whereas transformers transposes these matrices."""
    blocks = parts.main(3)
    *inner, groups, size = blocks.shape
    if size != 16:
        parts.wrong(parts.form.main, f"has shape {list(blocks.shape)}, whose last dimension must be 16 bytes")
    return _e2m1(blocks, parts.part("_scales", ("U8",), (*inner, groups)))


def mlx_mxfp4(parts: Parts) -> Packed:
    """The same numbers as MLX stores them: words of 8 codes."""
    words = parts.main(2)
    *inner, count = words.shape
    parts.check_multiple(8 * count, 32)
    return _e2m1(words.view(np.uint8), parts.part(".scales", ("U8",), (*inner, count // 4)))


def _e2m1(codes: np.ndarray, scales: np.ndarray) -> Packed:
    *inner, groups = scales.shape
    codes, scales = codes.reshape(-1, groups * 16), scales.reshape(-1, groups)

    def read(start: int, stop: int) -> Scaled:
        return Scaled(powers_of_two(scales[start:stop]), E2M1[nibbles(codes[start:stop], 1)])

    return Packed("MXFP4", (*inner, groups * 32), ("q8_0",), read)


MXFP4 = Format("_blocks", ("U8",), ("_scales",), "", mxfp4)
MLX_MXFP4 = Format(".weight", ("U32",), (".scales",), ".weight", mlx_mxfp4)


def scaled_elements(label: str, kind: str, block: tuple[int, int] | None) -> Format:
    """8-bit elements, and scales: one for the matrix, one for each row, for each group in a row, or for each block of
    rows and columns. The shape of the scales tells which. A product of such a float with a power of two has few
    digits."""

    def read_parts(parts: Parts) -> Packed:
        elements = parts.main(2)
        *stack, rows, columns = elements.shape
        high, wide = block or (1, columns)
        by_block = -(-rows // high), -(-columns // wide)
        shapes = (), (1,), (1, 1), (*stack, rows), (*stack, rows, 1), (*stack, *by_block), (*stack, 1, 1), tuple(stack)
        end = "_scale_inv" if parts.has("_scale_inv") else "_scale"
        scales = parts.part(end, SCALES, *dict.fromkeys(shapes))
        if scales.ndim < 2 or scales.shape == (*stack, rows):
            scales = scales.reshape(*scales.shape, *(1,) * (elements.ndim - scales.ndim))
        scales = np.broadcast_to(scales, (*stack, *scales.shape[-2:]))
        is_power = bool((np.frexp(scales.astype(np.float32))[0] == 0.5).all())
        kinds = ("q8_0",) if kind == "I8" else ("bfloat16",) if is_power else ()
        return Packed(label, elements.shape, kinds, _grid_reader(elements, scales, high, wide))

    return Format("", (kind,), ("_scale_inv", "_scale"), "", read_parts)


def _grid_reader(elements: np.ndarray, scales: np.ndarray, high: int, wide: int) -> Callable[[int, int], Scaled]:
    """scales [..., 1 or rows or blocks of rows, 1 or blocks of columns]"""
    rows, columns = elements.shape[-2:]
    height = {1: rows, rows: 1}.get(scales.shape[-2], high)
    flat, grids = elements.reshape(-1, columns), scales.reshape(-1, *scales.shape[-2:])

    def read(start: int, stop: int) -> Scaled:
        numbers = np.arange(start, stop)
        steps = grids[numbers // rows, numbers % rows // height].astype(np.float32)
        if steps.shape[1] > 1 and columns % wide:  # the last block is incomplete
            steps = np.repeat(steps, wide, axis=1)[:, :columns]
        codes = flat[start:stop]
        return Scaled(steps, codes if codes.dtype.kind == "i" else codes.astype(np.float32))

    return read

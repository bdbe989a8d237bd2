"""Numbers as scales times small whole numbers, and the types with kernels that hold exactly those numbers.

Owns: `Scaled`, the form to which every block format is decoded, and `keep`, which stores the same numbers in the first
of some types that holds them exactly. Refuses to know: files, and how any format packs its bits (`ferrum.load.quants`,
`ferrum.load.packed`).
Specs: QUANT-07, QUANT-08. Next: `ferrum.load.bits`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass

import ml_dtypes
import numpy as np
from numpy.typing import NDArray

from ferrum.tensor.k_quants import Q6_K, SUPER_GROUP
from ferrum.tensor.weights import GROUP, Q4_0, Q4_1, Q8_0, BlockWeight, Dense, Weight

Bytes = NDArray[np.uint8]
Floats = NDArray[np.float32]


@dataclass(frozen=True, eq=False)
class Scaled:
    """number = (scale * multiple) * code - offset.

    `codes` [rows, columns] are whole numbers of at most 16 bits. `scales` is float32 [rows, groups]: the columns of a
    group share one. A format with scales of scales has `scales` [rows, 1] and `multiples` float32 [rows, groups].
    `offsets` is float32 [rows, groups] or None. A row is a block, or a whole row of the matrix: what the format scales
    as one.
    """

    scales: Floats
    codes: NDArray[np.integer]
    multiples: Floats | None = None
    offsets: Floats | None = None

    @property
    def steps(self) -> Floats:
        """[rows, groups]: the factors of the codes."""
        return self.scales if self.multiples is None else self.scales * self.multiples

    def values(self) -> Floats:
        """float32 [rows, columns]. The operations have ggml's order, so that the last bit agrees."""
        steps = self.steps
        groups = self.codes.reshape(*steps.shape, -1).astype(np.float32)
        numbers = steps[:, :, None] * groups
        if self.offsets is not None:
            numbers = numbers - self.offsets[:, :, None]
        return numbers.reshape(self.codes.shape)


def keep(pieces: Callable[[], Iterable[Scaled]], shape: tuple[int, int], kinds: Sequence[str]) -> Weight:
    """The matrix that the pieces make up, row by row, in the first of these types that holds every number of it; in
    float32 if none does.

    `pieces` is called once for each type that is tried, because a whole decoded matrix would take several times its
    memory.
    """
    with np.errstate(invalid="ignore", over="ignore"):  # infinity times a code of zero is NaN, as in ggml
        for kind in (*kinds, "float32"):
            packed = _packed(pieces(), shape, _PACKERS[kind])
            if packed is not None:
                return _BLOCKS[kind](packed) if kind in _BLOCKS else Dense(packed)
    raise AssertionError("float32 holds whatever was computed in it")


def _packed(
    pieces: Iterable[Scaled], shape: tuple[int, int], pack: Callable[[Scaled], np.ndarray | None]
) -> np.ndarray | None:
    """A new array [rows, elements of a packed row]; None if a piece does not fit."""
    packed: np.ndarray = np.empty(shape if 0 in shape else (shape[0], 0), np.float32)
    start = 0
    for piece in pieces:
        part = pack(piece)
        if part is None:
            return None
        if not packed.size:
            packed = np.empty((shape[0], shape[1] * part.size // piece.codes.size), part.dtype)
        packed.reshape(-1)[start : start + part.size] = part.reshape(-1)
        start += part.size
    return packed


def _halves(numbers: Floats, columns: int) -> Bytes | None:
    """Numbers, one for each group of columns -> the float16 of each block of 32 columns, uint8 [blocks, 2]. None if
    float16 does not hold them, or if groups are not whole blocks."""
    groups = numbers.shape[1]
    halves = numbers.astype("<f2")
    if columns % (groups * GROUP) or not np.array_equal(halves.astype(np.float32), numbers, equal_nan=True):
        return None
    return np.repeat(halves.reshape(-1), columns // groups // GROUP).view(np.uint8).reshape(-1, 2)


def _fit(codes: NDArray[np.integer], least: int, most: int) -> bool:
    return bool(codes.min() >= least and codes.max() <= most)


def _nibbles(codes: NDArray[np.integer]) -> Bytes:
    """Codes 0 to 15 -> uint8 [blocks, 16]: of each block of 32 the first half in low nibbles, the second half in high
    nibbles"""
    blocks = codes.astype(np.uint8).reshape(-1, 2, GROUP // 2)
    return blocks[:, 0] | blocks[:, 1] << np.uint8(4)


def _q8_0(piece: Scaled) -> Bytes | None:
    scales = _halves(piece.steps, piece.codes.shape[1])
    if scales is None or piece.offsets is not None or not _fit(piece.codes, -128, 127):
        return None
    return np.concatenate((scales, piece.codes.astype(np.int8).view(np.uint8).reshape(-1, GROUP)), axis=1)


def _q4_0(piece: Scaled) -> Bytes | None:
    scales = _halves(piece.steps, piece.codes.shape[1])
    if scales is None or piece.offsets is not None or not _fit(piece.codes, -8, 7):
        return None
    return np.concatenate((scales, _nibbles(piece.codes + 8)), axis=1)


def _q4_1(piece: Scaled) -> Bytes | None:
    if piece.offsets is None or not _fit(piece.codes, 0, 15):
        return None
    scales, minimums = (_halves(each, piece.codes.shape[1]) for each in (piece.steps, -piece.offsets))
    if scales is None or minimums is None:
        return None
    return np.concatenate((scales, minimums, _nibbles(piece.codes)), axis=1)


def _q6_k(piece: Scaled) -> Bytes | None:
    """A row of the piece is one block: one scale, and 8 or 16 multiples of it."""
    blocks, columns = piece.codes.shape
    halves, multiples = piece.scales.astype("<f2"), piece.multiples
    if columns != SUPER_GROUP or multiples is None or piece.offsets is not None or not _fit(piece.codes, -32, 31):
        return None
    whole = multiples.astype(np.int8)
    if not np.array_equal(halves.astype(np.float32), piece.scales, equal_nan=True) or (whole != multiples).any():
        return None
    quarters = (piece.codes + 32).astype(np.uint8).reshape(blocks, 2, 4, 32)
    low, high = quarters & 15, quarters >> 4
    nibbles = low[:, :, :2] | low[:, :, 2:] << 4
    pairs = high[:, :, 0] | high[:, :, 1] << 2 | high[:, :, 2] << 4 | high[:, :, 3] << 6
    group_scales = np.repeat(whole, 16 // whole.shape[1], axis=1).view(np.uint8)
    fields = nibbles.reshape(blocks, 128), pairs.reshape(blocks, 64), group_scales, halves.view(np.uint8)
    return np.concatenate(fields, axis=1)


def _float(kind: type) -> Callable[[Scaled], np.ndarray | None]:
    def pack(piece: Scaled) -> np.ndarray | None:
        values = piece.values()
        cast: np.ndarray = values.astype(kind)
        return cast if np.array_equal(cast.astype(np.float32), values, equal_nan=True) else None

    return pack


_BLOCKS: dict[str, type[BlockWeight]] = {kind.kind: kind for kind in (Q8_0, Q4_0, Q4_1, Q6_K)}
_PACKERS: dict[str, Callable[[Scaled], np.ndarray | None]] = {
    "q8_0": _q8_0,
    "q4_0": _q4_0,
    "q4_1": _q4_1,
    "q6_k": _q6_k,
    "float16": _float(np.float16),
    "bfloat16": _float(ml_dtypes.bfloat16),
    "float32": Scaled.values,
}
"""By type: a piece in the layout of that type, in the piece's order; None if the type cannot hold it exactly."""

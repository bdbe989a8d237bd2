"""Launches that copy whole blocks: rows along the first axis of an array, by their ids.

Owns: how a block is divided into units, each of which a thread copies at once. Refuses to know: what is in a block.
Specs: CUDA-37. Next: `ferrum.backends.cuda.choose`.
"""

from __future__ import annotations

import math

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.elementwise import contiguous

THREADS, UNITS = 256, 4
"""Threads of a CUDA block, and units that a thread copies, as in blocks.cu."""

_UNITS = {16: "uint4", 4: "unsigned", 2: "half_t", 1: "char"}
_IDS = {"int32": "int", "int64": "long long"}
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = tuple(
    ("blocks", {"unit_t": unit, "number_t": number}) for unit in _UNITS.values() for number in _IDS.values()
)
"""Every combination of definitions with which the kernel is compiled."""


class BlockKernels:
    """Copies of blocks on one device. Ids are int32 or int64."""

    def __init__(self, device: Device) -> None:
        self._device = device

    def gather(self, array: Array, ids: Array) -> Array:
        """array [blocks, ...], ids of any shape -> [..., ...]: array[ids]. An id out of range gives bytes of 0xff,
        which are NaN; nothing is read outside of the array."""
        out = self._device.empty((*ids.shape, *array.shape[1:]), str(array.dtype))
        self._copy(contiguous(self._device, array), ids, out, None, ids.size)
        return out

    def scatter(self, array: Array, ids: Array, values: Array) -> None:
        """array[ids] = values, for values [count, ...] and a contiguous array [blocks, ...]. The ids [count] are
        distinct and in range."""
        self._copy(contiguous(self._device, values), None, array, ids, ids.shape[0])

    def copy(self, array: Array, sources: Array, targets: Array) -> None:
        """array[targets] = array[sources], for a contiguous array. All ids are in range; targets are distinct, and none
        of them is a source."""
        self._copy(array, sources, array, targets, sources.shape[0])

    def _copy(self, source: Array, read: Array | None, target: Array, written: Array | None, count: int) -> None:
        """target[written] = source[read]. None means all blocks, in order."""
        size = math.prod(source.shape[1:]) * source.dtype.itemsize
        starts = self._device.address(source), self._device.address(target)
        unit = next(each for each in _UNITS if all(place % each == 0 for place in (size, *starts)))
        numbers = next(str(ids.dtype) for ids in (read, written) if ids is not None)
        places = (None if ids is None else contiguous(self._device, ids) for ids in (read, written))
        read, written = places
        kernel = self._device.kernels.get("blocks", "copy_blocks", unit_t=_UNITS[unit], number_t=_IDS[numbers])
        stretches = -(-size // (unit * THREADS * UNITS))
        kernel((count, stretches), (THREADS,), source, read, target, written, source.shape[0], size // unit)

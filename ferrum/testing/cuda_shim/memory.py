"""Memory of the shim's device that makes wrong accesses visible.

Owns: allocation. New memory holds NaN, and freed memory is filled with NaN again, so a graph that uses an old address
computes NaN. The bytes on both sides of an array are checked when it is freed: a write outside of the array changes
them.
Refuses to know: kernels. Specs: CUDA-14. Next: `ferrum.testing.cuda_shim.device`.
"""

from __future__ import annotations

import math
import weakref
from collections import defaultdict
from typing import Any

import numpy as np

from ferrum.errors import DeviceError
from ferrum.tensor.ops import Shape, host_dtype

GUARD = 64
"""Bytes on both sides of an array."""
POISON = 0xFF
"""A float of these bytes is NaN, an int is -1."""
CANARY = 0xA5
MOST_FILLED = 64 << 20
"""Larger arrays hold zeros at first, so that pages that are never accessed take no memory."""


class Memory:
    """Host memory that stands for the memory of a device."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self._damaged = 0

    def array(self, shape: Shape, dtype: str) -> np.ndarray:
        """An array. Its memory is freed when it and all its views are freed."""
        kind = host_dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        whole = -(-size // 256) * 256 + 2 * GUARD
        raw = self._free[whole].pop() if self._free[whole] else self.fresh(whole)
        raw[:GUARD] = raw[GUARD + size :] = CANARY
        if size <= MOST_FILLED:
            raw[GUARD : GUARD + size] = POISON
        buffer: np.ndarray = np.asarray(_Piece(self, raw, size))
        return buffer.view(kind).reshape(shape)

    def fresh(self, size: int) -> np.ndarray:
        """uint8 [size], content undefined; pages of zeros take no memory until they are accessed."""
        return np.zeros(size, np.uint8)

    def check(self) -> None:
        """Raises DeviceError if there was a write outside of an array that has been freed since."""
        if self._damaged:
            self._damaged = 0
            raise DeviceError("a kernel wrote beyond the end of an array")

    def give_back(self, raw: np.ndarray, size: int) -> None:
        self._damaged += bool((raw[:GUARD] != CANARY).any() or (raw[GUARD + size :] != CANARY).any())
        if size <= MOST_FILLED:
            raw.fill(POISON)
            self._free[len(raw)].append(raw)


class _Piece:
    """The owner of the memory of an array, to which all its views refer."""

    def __init__(self, memory: Memory, raw: np.ndarray, size: int) -> None:
        self._raw, self._size = raw, size
        weakref.finalize(self, memory.give_back, raw, size).atexit = False  # not needed when the interpreter ends

    @property
    def __array_interface__(self) -> dict[str, Any]:
        inside = self._raw[GUARD : GUARD + self._size]
        return {"shape": inside.shape, "typestr": "|u1", "data": (inside.ctypes.data, False), "version": 3}

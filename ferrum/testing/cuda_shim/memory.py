"""Memory of the shim's device that shows misuse.

Owns: what is handed out and given back. All of it holds NaN at first; what is given back is filled with NaN again, so
that a graph that kept an address of it computes nonsense; and the bytes around an array are looked at when it goes: a
kernel that wrote beyond an end has changed them.
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
"""A float of such bytes is NaN, an int -1."""
CANARY = 0xA5
MOST_FILLED = 64 << 20
"""Larger arrays hold zeros at first, so that memory which nobody touches costs nothing."""


class Memory:
    """Pieces of host memory that stand for a device's."""

    def __init__(self) -> None:
        self._free: defaultdict[int, list[np.ndarray]] = defaultdict(list)
        self._damaged = 0

    def array(self, shape: Shape, dtype: str) -> np.ndarray:
        """An array whose memory comes back when it and all of its views are gone."""
        kind = host_dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        whole = -(-size // 256) * 256 + 2 * GUARD
        raw = self._free[whole].pop() if self._free[whole] else self.fresh(whole)
        raw[:GUARD] = raw[GUARD + size :] = CANARY
        if size <= MOST_FILLED:
            raw[GUARD : GUARD + size] = POISON
        held: np.ndarray = np.asarray(_Piece(self, raw, size))
        return held.view(kind).reshape(shape)

    def fresh(self, size: int) -> np.ndarray:
        """uint8 [size], contents undefined; zeros cost nothing until they are touched."""
        return np.zeros(size, np.uint8)

    def check(self) -> None:
        """Raises DeviceError where something was written beyond the end of an array that is gone by now."""
        if self._damaged:
            self._damaged = 0
            raise DeviceError("a kernel wrote beyond the end of an array")

    def give_back(self, raw: np.ndarray, size: int) -> None:
        self._damaged += bool((raw[:GUARD] != CANARY).any() or (raw[GUARD + size :] != CANARY).any())
        if size <= MOST_FILLED:
            raw.fill(POISON)
            self._free[len(raw)].append(raw)


class _Piece:
    """What all views of an array hold on to."""

    def __init__(self, memory: Memory, raw: np.ndarray, size: int) -> None:
        self._raw, self._size = raw, size
        weakref.finalize(self, memory.give_back, raw, size).atexit = False  # an interpreter that ends has no use for it

    @property
    def __array_interface__(self) -> dict[str, Any]:
        inside = self._raw[GUARD : GUARD + self._size]
        return {"shape": inside.shape, "typestr": "|u1", "data": (inside.ctypes.data, False), "version": 3}

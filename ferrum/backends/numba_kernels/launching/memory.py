"""Memory for results: where an array lies, arrays that begin with a cache line, and large ones used again.

Owns: the addresses of arrays, and results that nobody holds any more. To touch a page for the first time costs a
microsecond and, on a virtual machine, many; a step makes and drops the same arrays in every layer.
Next: `ferrum.backends.numba_kernels.launching.operand_words`.
"""

from __future__ import annotations

import sys
from collections import deque
from ctypes import addressof, c_char

import numpy as np

CACHE_LINE = 64
LARGE = 1 << 16
"""Bytes from which on memory is used again; smaller arrays come from the allocator's own store of warm pages."""
MOST_KEPT = 24
"""Large arrays that are remembered, those used last."""


def address(array: np.ndarray) -> int:
    """Where an array's first element lies. Whoever holds the address must hold the array."""
    try:
        # a quarter of the time of the other way, but for writable contiguous memory only
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        place: int = array.__array_interface__["data"][0]
        return place


def root(array: np.ndarray) -> np.ndarray:
    """The array whose memory this one shows: itself, or the one that it is a view of."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def aligned(count: int) -> np.ndarray:
    """uint8 [count] that begins with a cache line: every second load of a vector would cross a boundary otherwise."""
    return _from_cache_line(np.empty(count + CACHE_LINE, np.uint8), count)


def _from_cache_line(memory: np.ndarray, count: int) -> np.ndarray:
    skipped = -address(memory) % CACHE_LINE
    return memory[skipped : skipped + count]


class Reused:
    """Arrays that begin with a cache line, in memory that earlier ones have left."""

    def __init__(self) -> None:
        self._kept: deque[np.ndarray] = deque(maxlen=MOST_KEPT)

    def take(self, count: int) -> np.ndarray:
        """uint8 [count], contents undefined."""
        if count < LARGE:
            return aligned(count)
        for memory in self._kept:
            # every view of an array refers to the array itself: three references are the deque, `memory` and the call
            if memory.size == count + CACHE_LINE and sys.getrefcount(memory) == 3:
                return _from_cache_line(memory, count)
        memory = np.empty(count + CACHE_LINE, np.uint8)
        self._kept.append(memory)
        return _from_cache_line(memory, count)

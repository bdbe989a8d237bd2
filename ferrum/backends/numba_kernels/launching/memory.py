"""Memory for results: addresses of arrays, arrays aligned to cache lines, and large arrays used again.

Owns: the memory of results that are no longer referenced. The first access to a page of memory costs a microsecond, on
a virtual machine many; every layer of a step needs arrays of the same sizes, so their memory is used again.
Next: `ferrum.backends.numba_kernels.launching.operand_words`.
"""

from __future__ import annotations

import sys
from collections import deque
from ctypes import addressof, c_char

import numpy as np

CACHE_LINE = 64
LARGE = 1 << 16
"""Bytes from which on the memory of an array is used again. For smaller arrays the allocator does the same."""
MOST_KEPT = 24
"""Large arrays whose memory is remembered: those allocated last."""


def address(array: np.ndarray) -> int:
    """The address of the first element of an array. The caller must keep a reference to the array as long as it uses
    the address."""
    try:
        # four times as fast as the other way, but for writable contiguous memory only
        return addressof(c_char.from_buffer(array))  # type: ignore[arg-type]
    except (TypeError, ValueError, BufferError):
        place: int = array.__array_interface__["data"][0]
        return place


def root(array: np.ndarray) -> np.ndarray:
    """The array that owns the memory of this one: itself, or the array of which it is a view."""
    while isinstance(array.base, np.ndarray):
        array = array.base
    return array


def aligned(count: int) -> np.ndarray:
    """uint8 [count], aligned to a cache line. Otherwise every vector of 64 bytes would lie in two cache lines."""
    return _from_cache_line(np.empty(count + CACHE_LINE, np.uint8), count)


def _from_cache_line(memory: np.ndarray, count: int) -> np.ndarray:
    skipped = -address(memory) % CACHE_LINE
    return memory[skipped : skipped + count]


class Reused:
    """Arrays aligned to cache lines, in the memory of earlier arrays that are no longer referenced."""

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

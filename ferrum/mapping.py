"""Memory of arrays in mapped files, which can be given back when the array is no longer read.

Owns: giving pages back. The system keeps them as long as it has room, and reads them again from the file when they are
used. Refuses to know: what is in a file.
Specs: FILES-07. Next: `ferrum.paths`.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np


def give_back(data: np.ndarray) -> None:
    """Gives back the whole pages that an array occupies in a mapped file. Other memory stays, and so does a writable
    mapping, whose content may not be in the file."""
    mapped = data.base
    while isinstance(mapped, (np.ndarray, memoryview)):
        mapped = mapped.base if isinstance(mapped, np.ndarray) else mapped.obj
    if not isinstance(mapped, mmap.mmap) or not memoryview(mapped).readonly or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = _address(data) - _address(np.frombuffer(mapped, np.uint8, 1))
    first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        with suppress(OSError, ValueError):  # a system that refuses keeps the pages: no harm
            mapped.madvise(mmap.MADV_DONTNEED, first, end - first)


def _address(array: np.ndarray) -> int:
    place: int = array.__array_interface__["data"][0]
    return place

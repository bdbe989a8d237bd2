"""Arrays in mapped files: their pages, which need no memory once nobody reads them any more.

Owns: giving such pages back. The system keeps them as long as it has room, and reads them again from the file if
anybody asks. Refuses to know: what is in a file.
Specs: FILES-07. Next: `ferrum.paths`.
"""

from __future__ import annotations

import mmap
from contextlib import suppress

import numpy as np


def give_back(data: np.ndarray) -> None:
    """Whole pages of a mapped file that an array lies in need no memory any more; any other memory stays, and so does a
    mapping that can be written to: what was written may be nowhere else."""
    mapped = data.base
    while isinstance(mapped, (np.ndarray, memoryview)):
        mapped = mapped.base if isinstance(mapped, np.ndarray) else mapped.obj
    if not isinstance(mapped, mmap.mmap) or not memoryview(mapped).readonly or not hasattr(mmap, "MADV_DONTNEED"):
        return
    start = _address(data) - _address(np.frombuffer(mapped, np.uint8, 1))
    first, end = -(-start // mmap.PAGESIZE) * mmap.PAGESIZE, (start + data.nbytes) // mmap.PAGESIZE * mmap.PAGESIZE
    if first < end:
        with suppress(OSError, ValueError):  # a system that refuses keeps the pages, which is no fault
            mapped.madvise(mmap.MADV_DONTNEED, first, end - first)


def _address(array: np.ndarray) -> int:
    place: int = array.__array_interface__["data"][0]
    return place

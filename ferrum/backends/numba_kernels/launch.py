"""Launching kernels: the only place with threads.

Owns: the row of words, scratch memory, and the choice between one thread and all of them. Today each operation is
launched at once (*eager*); because a launch is nothing but a row of words, a recorded sequence of rows can be replayed
without Python. Next: `ferrum.kv.pool`.
"""

from __future__ import annotations

from collections.abc import Callable

import numba
import numpy as np
from numba import njit, prange

from ferrum.backends.numba_kernels.library import LIBRARY
from ferrum.backends.numba_kernels.simd import call3, load_word
from ferrum.errors import InvalidParameter

ROW_WORDS = 24


@njit(parallel=True, cache=True)
def _launch_parallel(row, threads):
    for thread in prange(threads):
        call3(load_word(row), row, thread, threads)


@njit(cache=True)
def _launch_serial(row):
    call3(load_word(row), row, 0, 1)


def address(array: np.ndarray) -> int:
    """Where an array's first element lies. Whoever holds the address must hold the array."""
    place: int = array.__array_interface__["data"][0]
    return place


def float_bits(value: float) -> int:
    """A float32 as the low half of a word."""
    return int(np.float32(value).view(np.int32))


class Launcher:
    """Runs kernels on `threads` threads (None: as many as Numba has)."""

    def __init__(self, threads: int | None) -> None:
        available = numba.config.NUMBA_NUM_THREADS
        if threads is not None and threads > available:
            raise InvalidParameter("threads", f"is {threads}, but this process may use at most {available}")
        self.threads = threads or available
        self._row = np.zeros(ROW_WORDS, np.int64)
        self._row_address = address(self._row)
        self._scratch = np.empty(0, np.uint8)

    def launch(self, kernel: Callable[..., None], *words: int, parallel: bool = True) -> None:
        """Run a kernel on a row of these words. A parallel region costs microseconds: small work goes without."""
        row = self._row
        row[: len(words) + 1] = (LIBRARY.address(kernel), *words)
        if parallel and self.threads > 1:
            numba.set_num_threads(self.threads)
            _launch_parallel(self._row_address, self.threads)
        else:
            _launch_serial(self._row_address)

    def scratch(self, bytes_per_thread: int) -> tuple[int, int]:
        """Address and size of each thread's private memory; contents do not survive a launch."""
        stride = -(-bytes_per_thread // 4096) * 4096
        if self._scratch.size < stride * self.threads:
            self._scratch = np.empty(stride * self.threads, np.uint8)
        return address(self._scratch), stride

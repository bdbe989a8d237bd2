"""A team of threads that runs the chunks of a kernel launch.

Owns: the worker threads, and when they sleep. The calling thread and the workers claim the chunks of a launch one by
one, in compiled code (`chunk_claims`). A worker that has had no work for a second leaves compiled code and waits for an
event.
Next: `ferrum.backends.numba_kernels.launching.launch`.
"""

from __future__ import annotations

import logging
import os
import sys
import threading

import numpy as np

from ferrum.backends.numba_kernels.launching.memory import address
from ferrum.backends.numba_kernels.layouts import BOARD_BYTES, BOARD_PROCESSOR_SETS, PROCESSOR_SET_BYTES
from ferrum.backends.numba_kernels.loading.library import LIBRARY

logger = logging.getLogger(__name__)


def prepare() -> None:
    """Loads or compiles the functions of `chunk_claims`, so that an error is raised here and not in a worker."""
    for name in ("run_launch", "serve_launches", "replay_launches"):
        LIBRARY.address(f"chunk_claims.{name}")


class Team:
    """`size` threads including the caller, or as many as can be started. Launches of several callers run one after the
    other."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._memory = np.zeros(BOARD_BYTES // 8 + 8, np.int64)
        start: int = self._memory.__array_interface__["data"][0]
        self._board = -(-start // 64) * 64
        self._elsewhere = _processor_sets(size)
        if self._elsewhere is not None:
            self._memory[(self._board + BOARD_PROCESSOR_SETS - start) // 8] = address(self._elsewhere)
        self._run = LIBRARY.function("chunk_claims.run_launch", 3)
        self._serve = LIBRARY.function("chunk_claims.serve_launches", 1)
        self._replay = LIBRARY.function("chunk_claims.replay_launches", 5)
        self._wake: list[threading.Event] = []
        for _ in range(size - 1):
            event = threading.Event()
            try:
                threading.Thread(target=self._worker, args=(event,), name="ferrum-kernels", daemon=True).start()
            except RuntimeError:  # the process may start no more threads; the threads that run claim all chunks
                logger.warning("only %d of %d threads could be started", len(self._wake) + 1, size)
                break
            self._wake.append(event)

    def run(self, row: int, chunks: int) -> None:
        """Runs the kernel of the row at this address in `chunks` chunks. Returns when all chunks are done."""
        with self._lock:
            self._wake_up()
            self._run(self._board, row, chunks)

    def replay(self, rows: int, row_bytes: int, chunks: int, count: int) -> None:
        """Runs `count` rows that lie `row_bytes` apart. The int64 number i at address `chunks` is the number of chunks
        of row i."""
        with self._lock:
            self._wake_up()
            self._replay(self._board, rows, row_bytes, chunks, count)

    def _wake_up(self) -> None:
        for event in self._wake:
            if not event.is_set():
                event.set()

    def _worker(self, event: threading.Event) -> None:
        while True:
            event.wait()
            self._serve(self._board)
            event.clear()


def _processor_sets(threads: int) -> np.ndarray | None:
    """uint8 [processors, PROCESSOR_SET_BYTES]: row p is the set of the processors that this process may use, without p.
    None if there are fewer processors than threads, or if the system does not let a thread choose."""
    usable = os.sched_getaffinity(0) if sys.platform == "linux" else set()
    if not 1 < threads <= len(usable) or max(usable) >= 8 * PROCESSOR_SET_BYTES:
        return None
    bits = np.zeros(8 * PROCESSOR_SET_BYTES, np.uint8)
    bits[list(usable)] = 1
    without = np.tile(bits, (max(usable) + 1, 1))
    np.fill_diagonal(without, 0)
    return np.packbits(without, axis=1, bitorder="little")


_teams: dict[int, Team] = {}


def _forget_teams() -> None:
    """A forked child has no worker threads, and its copy of a lock may be held for ever."""
    _teams.clear()


os.register_at_fork(after_in_child=_forget_teams)


def team_of(size: int) -> Team:
    """The team of this size; a process has one of each size."""
    if size not in _teams:
        _teams[size] = Team(size)
    return _teams[size]

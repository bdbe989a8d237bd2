"""Copies of rows between the GPU and host memory, beside other work.

Owns: a stream for copies to the host, and the order of copies. A copy to the host begins after all earlier launches are
done; a copy back begins after all copies to the host are done. A reference to the memory is kept until its copy is
done, because freed memory is used by later launches.
Refuses to know: what is in the rows.
Specs: CUDA-09. Source: the CUDA C++ programming guide on streams and events. Next: `ferrum.backends.cuda.gpu`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator, Sequence
from contextlib import suppress
from typing import Any

import numpy as np

from ferrum.backends.cuda.device import Array

MOST_PENDING = 8
"""Most copies that are not done; each keeps a reference to its memory."""
NULL_STREAM = 0


class Swaps:
    """Copies between arrays of the current device and pinned host arrays, both contiguous."""

    def __init__(self, cupy: Any) -> None:
        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self._work = cupy.cuda.Stream.null
        self._aside = cupy.cuda.Stream(non_blocking=True)
        self._pending: deque[tuple[Any, Array, np.ndarray]] = deque()
        self._stored: Any = None

    def __del__(self) -> None:
        """Waits for the copies, which still read and write memory that will be freed."""
        with suppress(Exception):  # at the end of a process the driver may be unloaded
            self._aside.synchronize()

    def store(self, x: Array, places: np.ndarray, rows: Sequence[int]) -> None:
        """places[rows] = x, after all earlier launches. x must not change until then."""
        self._aside.wait_event(self._work.record(self._event()))
        kind, stream = self._runtime.memcpyDeviceToHost, self._aside.ptr
        for host, device, size in _pieces(x.data.ptr, places, rows):
            self._runtime.memcpyAsync(host, device, size, kind, stream)
        self._stored = self._aside.record(self._event())
        self._keep(self._stored, x, places)

    def fetch(self, places: np.ndarray, rows: Sequence[int], x: Array) -> None:
        """x = places[rows], before all later launches."""
        if self._stored is not None:
            self._work.wait_event(self._stored)
        kind = self._runtime.memcpyHostToDevice
        for host, device, size in _pieces(x.data.ptr, places, rows):
            self._runtime.memcpyAsync(device, host, size, kind, NULL_STREAM)
        self._keep(self._work.record(self._event()), x, places)

    def _event(self) -> Any:
        return self._cupy.cuda.Event(disable_timing=True)

    def _keep(self, done: Any, x: Array, places: np.ndarray) -> None:
        self._pending.append((done, x, places))
        if len(self._pending) > MOST_PENDING:
            self._pending[0][0].synchronize()
        while self._pending and self._pending[0][0].done:
            self._pending.popleft()


def _pieces(start: int, places: np.ndarray, rows: Sequence[int]) -> Iterator[tuple[int, int, int]]:
    """Host address, device address and bytes of each run of consecutive rows."""
    size = places.strides[0]
    first = 0
    for end in range(1, len(rows) + 1):
        if end == len(rows) or rows[end] != rows[end - 1] + 1:
            yield places.ctypes.data + rows[first] * size, start + first * size, (end - first) * size
            first = end

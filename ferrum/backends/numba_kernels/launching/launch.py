"""Launches of kernels: run at once, or recorded on a tape and replayed.

Owns: scratch memory, the number of chunks of a launch, and tapes. A launch is a row of words, so the rows of a tape are
run one after the other without Python in between. Next: `ferrum.backends.numba_recording`.
"""

from __future__ import annotations

import math
import struct
from collections.abc import Callable
from functools import cache

import numpy as np

from ferrum.backends.numba_kernels.launching.memory import Reused, address, aligned, root
from ferrum.backends.numba_kernels.launching.primitive_calls import MOST_DIMENSIONS, elementwise
from ferrum.backends.numba_kernels.launching.team import team_of
from ferrum.backends.numba_kernels.launching.thread_count import default_threads, usable_processors
from ferrum.backends.numba_kernels.loading.library import LIBRARY
from ferrum.backends.recorded_steps import NotRecordable
from ferrum.errors import InvalidParameter

ROW_WORDS = 32

SERIAL_WORK = 1 << 16
"""Multiply-adds up to which a launch is faster on one thread."""
FINE_WORK = 1 << 22
"""Multiply-adds from which on a launch has two chunks for each thread, so that a late thread delays it less."""


@cache
def float_bits(value: float) -> int:
    """The bits of a float32, as a word."""
    return int(np.float32(value).view(np.int32))


@cache
def _packer(count: int) -> Callable[..., None]:
    """A function that writes this number of int64 words into a buffer."""
    return struct.Struct(f"={count}q").pack_into


class Launcher:
    """Runs kernels at once, on `threads` threads (None: as many as this process can keep busy)."""

    def __init__(self, threads: int | None) -> None:
        available = usable_processors()
        if threads is not None and not 1 <= threads <= 4 * available:
            most = f"this process may use {available} processors"
            raise InvalidParameter("threads", f"must be from 1 to {4 * available} ({most}), not {threads}")
        self.threads = default_threads() if threads is None else threads
        self._row = np.zeros(ROW_WORDS, np.int64)
        self._row_address = address(self._row)
        self._memory = Reused()
        self._scratch = np.empty(0, np.uint8)
        self._scratch_stride = 0

    def launch(self, kernel: str, *words: int, work: int, count: int) -> None:
        """Runs the kernel of this name on a row of these words. `work` is its size in multiply-adds. `count` is the
        index of the word that is proportional to the number of tokens of the step."""
        _packer(len(words) + 1)(self._row, 0, LIBRARY.address(kernel), *words)
        chunks = self._chunks(work)
        if chunks == 1:
            LIBRARY.kernel(kernel)(self._row_address, 0, 1)
        else:
            team_of(self.threads).run(self._row_address, chunks)

    def _chunks(self, work: int) -> int:
        """The number of chunks of a launch of this size."""
        if work <= SERIAL_WORK or self.threads == 1:
            return 1
        return self.threads * (2 if work >= FINE_WORK else 1)

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        """Memory for a result: float32 of this shape, content undefined."""
        return self._memory.take(4 * math.prod(shape)).view(np.float32).reshape(shape)

    def contiguous(self, x: np.ndarray) -> np.ndarray:
        """x as contiguous float32; a copy if it is not."""
        return np.ascontiguousarray(x, np.float32)

    def scratch(self, bytes_per_chunk: int) -> tuple[int, int]:
        """The address of the scratch memory, and its bytes per chunk. Its content is lost after a launch."""
        if bytes_per_chunk > self._scratch_stride:
            self._scratch_stride = -(-bytes_per_chunk // 4096) * 4096
            self._scratch = aligned(self._scratch_stride * 2 * self.threads)
            self._scratch_address = address(self._scratch)
        return self._scratch_address, self._scratch_stride


class Recorder(Launcher):
    """Runs nothing. It keeps the row of every launch, and references to all memory that it reads or writes, for a
    tape."""

    def __init__(self, threads: int) -> None:
        super().__init__(threads)
        self._rows: list[np.ndarray] = []
        self._row_chunks: list[int] = []
        self._row_counts: list[int] = []
        self._kept: list[np.ndarray] = []
        self._results: set[int] = set()  # ids of the arrays that own the memory of results

    def launch(self, kernel: str, *words: int, work: int, count: int) -> None:
        _packer(len(words) + 1)(self._row, 0, LIBRARY.address(kernel), *words)
        self._rows.append(self._row.copy())
        self._row_chunks.append(self._chunks(work))
        self._row_counts.append(count)

    def keep(self, x: np.ndarray) -> None:
        """Keeps a reference to x as long as the tape exists."""
        self._kept.append(x)

    def buffer(self, shape: tuple[int, ...]) -> np.ndarray:
        """Zeros until a replay writes it: read as an index before that, it is the index of an existing row."""
        made = super().buffer(shape)
        made.fill(0)
        self.keep(made)
        self._results.add(id(root(made)))
        return made

    def is_result(self, x: np.ndarray) -> bool:
        """True if a replay writes to the memory of x."""
        return id(root(x)) in self._results

    def contiguous(self, x: np.ndarray) -> np.ndarray:
        if x.dtype != np.float32 or x.ndim > MOST_DIMENSIONS:
            raise NotRecordable(f"a copy of {x.ndim} dimensions of {x.dtype}")
        if x.flags.c_contiguous:
            return x
        self.keep(x)
        made = self.buffer(x.shape)
        elementwise(self, "copy", (x,), made, grows=False)
        return made

    def scratch(self, bytes_per_chunk: int) -> tuple[int, int]:
        found = super().scratch(bytes_per_chunk)
        if not any(
            kept is self._scratch for kept in self._kept
        ):  # rows recorded earlier hold the address of the previous scratch memory
            self.keep(self._scratch)
        return found

    def tape(self, tokens: int) -> Tape:
        """The tape of a step of this number of tokens. Raises NotRecordable if nothing was launched, or if the `count`
        word of a launch is not a multiple of the tokens."""
        if not self._rows:
            raise NotRecordable("no launch")
        rows = np.stack(self._rows)
        chunks, counts = (np.array(each, np.int64) for each in (self._row_chunks, self._row_counts))
        if (rows[np.arange(len(rows)), counts] % tokens).any():
            raise NotRecordable("a launch whose size is not a multiple of the tokens")
        return Tape(self.threads, rows, chunks, counts, tokens, self._kept)


class Tape:
    """Recorded launches, run one after the other without Python in between, for the recorded number of tokens or fewer:
    only the `count` word of each row changes. A tape keeps references to all memory that its rows point to, except for
    weights and caches."""

    def __init__(
        self,
        threads: int,
        rows: np.ndarray,
        chunks: np.ndarray,
        counts: np.ndarray,
        tokens: int,
        kept: list[np.ndarray],
    ) -> None:
        """rows int64 [launches, ROW_WORDS]; chunks int64 [launches]; counts int64 [launches]: word counts[i] of row i
        is a multiple of `tokens`. kept: all arrays that the rows point to."""
        self._threads, self._tokens = threads, tokens
        self._rows, self._counted = rows, (np.arange(len(rows)), counts)
        self._per_token = rows[self._counted] // tokens
        self._held = (chunks, kept)
        self._words = (address(rows), rows.strides[0], address(chunks), len(rows))

    def replay(self, tokens: int) -> None:
        if tokens != self._tokens:
            self._rows[self._counted], self._tokens = self._per_token * tokens, tokens
        team_of(self._threads).replay(*self._words)

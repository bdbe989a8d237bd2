"""A team of threads that share out the chunks of one kernel launch.

Owns: worker threads, and the hand-over of work between them and the caller. A launch is cut into chunks; the caller
and the workers *claim* them one by one. The caller never waits for a worker to start, only for chunks already claimed
to end: on a busy machine, where a worker may not get a processor, the caller simply does everything itself.
A worker waits by spinning (new work comes within microseconds while a model runs), then by short sleeps, and after a
second without work on an event that costs nothing. A worker that finds itself on the caller's processor, where the two
would take turns, moves to another one: schedulers often leave it there for as long as the others are busy.
Next: `ferrum.backends.numba_kernels.launch`.
"""

from __future__ import annotations

import os
import sys
import threading
from functools import partial

import numpy as np
from numba import njit, types

from ferrum.backends.numba_kernels.cache import with_cache
from ferrum.backends.numba_kernels.memory import address
from ferrum.backends.numba_kernels.simd import (
    atomic_exchange_if,
    atomic_increment,
    atomic_load,
    atomic_store,
    call3,
    inlined,
    load_word,
    pause,
)

# The board: words that all threads see, each in a cache line of its own.
TICKET = 0  # launch number * MOST_CHUNKS + next chunk to claim
ROW = 64  # address of the row of words to run
CHUNKS = 128  # how many chunks the launch has
DONE = 192  # how many of them are finished
CALLER = 256  # processor that the caller runs on
ELSEWHERE = 320  # address of the processor sets without one processor, PROCESSOR_SET_BYTES each; 0 where not supported
BOARD_BYTES = 384

PROCESSOR_SET_BYTES = 128  # cpu_set_t: a bit for each of 1024 processors

MOST_CHUNKS = 1 << 16
SPINS = 2000  # pauses before a waiting thread lets others run: some 50 microseconds
YIELDS = 200  # turns given away before a worker sleeps between looks
SLEEP_MICROSECONDS = 50
SLEEPS = 10_000  # looks before a worker leaves compiled code and waits on its event

_yield_processor = types.ExternalFunction("sched_yield", types.int32())
# on other systems these are never called, and any function will do
_LINUX = sys.platform == "linux"
_this_processor = types.ExternalFunction("sched_getcpu" if _LINUX else "sched_yield", types.int32())
_run_on = types.ExternalFunction(
    "sched_setaffinity" if _LINUX else "sched_yield", types.int32(types.int32, types.int64, types.int64)
)
_sleep_microseconds = types.ExternalFunction("usleep", types.int32(types.uint32))


@inlined
def _work(board):
    """Run chunks of the current launch until none is left to claim. The row read is the one of the ticket: the claim
    succeeds only if no other launch was posted in between."""
    while True:
        ticket = atomic_load(board + TICKET)
        chunk, chunks = ticket % MOST_CHUNKS, atomic_load(board + CHUNKS)
        row = atomic_load(board + ROW)
        if chunk >= chunks:
            return
        if atomic_exchange_if(board + TICKET, ticket, ticket + 1):
            call3(load_word(row), row, chunk, chunks)
            atomic_increment(board + DONE)


@njit(nogil=True, cache=True, error_model="numpy")
def _run(board, row, chunks):
    """The caller's part: post the launch, work on it, wait for chunks that others claimed."""
    launch = atomic_load(board + TICKET) // MOST_CHUNKS + 1
    # close the old launch, so that no worker can pair its ticket with the new row
    atomic_store(board + TICKET, launch * MOST_CHUNKS + MOST_CHUNKS - 1)
    atomic_store(board + DONE, 0)
    atomic_store(board + ROW, row)
    atomic_store(board + CHUNKS, chunks)
    if atomic_load(board + ELSEWHERE) != 0:
        atomic_store(board + CALLER, _this_processor())
    atomic_store(board + TICKET, (launch + 1) * MOST_CHUNKS)
    _work(board)
    spins = 0
    while atomic_load(board + DONE) < chunks:
        pause()
        spins += 1
        if spins > SPINS:
            _yield_processor()


@inlined
def _keep_away(board):
    """Leave the caller's processor to it."""
    sets = atomic_load(board + ELSEWHERE)
    if sets != 0:
        processor = _this_processor()
        if processor == atomic_load(board + CALLER):
            _run_on(0, PROCESSOR_SET_BYTES, sets + processor * PROCESSOR_SET_BYTES)  # type: ignore[call-overload, operator]


@njit(nogil=True, cache=True, error_model="numpy")
def _serve(board):
    """A worker's part, until a long time passes without work."""
    idle, seen = 0, atomic_load(board + TICKET)
    while idle < SPINS + YIELDS + SLEEPS:
        ticket = atomic_load(board + TICKET)
        if ticket != seen:
            _keep_away(board)
            _work(board)
            seen, idle = ticket, 0  # a launch posted meanwhile shows as another ticket
        elif idle < SPINS:
            pause()
        elif idle < SPINS + YIELDS:
            _yield_processor()
        else:
            _sleep_microseconds(SLEEP_MICROSECONDS)  # type: ignore[call-overload]
        idle += 1


@njit(nogil=True, cache=True, error_model="numpy")
def _replay(board, rows, row_bytes, chunks, count):
    """Run `count` rows, one after the other, each in its number of chunks (int64)."""
    for i in range(count):
        row, cut = rows + i * row_bytes, load_word(chunks + 8 * i)
        if cut == 1:
            call3(load_word(row), row, 0, 1)
        else:
            _run(board, row, cut)


@njit(nogil=True, cache=True, error_model="numpy")
def _run_alone(row):
    call3(load_word(row), row, 0, 1)


run_alone = _run_alone
"""Run a row as one chunk on this thread."""


def prepare() -> None:
    """Compile or load what launches kernels, so that it fails here if it fails at all."""
    for function, count in ((_run_alone, 1), (_run, 3), (_replay, 5), (_serve, 1)):
        with_cache(partial(function.compile, (types.int64,) * count))


class Team:
    """`size` threads, the caller among them. Launches of several callers take turns."""

    def __init__(self, size: int) -> None:
        self.size = size
        self._lock = threading.Lock()
        self._memory = np.zeros(BOARD_BYTES // 8 + 8, np.int64)
        start: int = self._memory.__array_interface__["data"][0]
        self._board = -(-start // 64) * 64
        self._elsewhere = _processor_sets(size)
        if self._elsewhere is not None:
            self._memory[(self._board + ELSEWHERE - start) // 8] = address(self._elsewhere)
        self._wake = [threading.Event() for _ in range(size - 1)]
        for event in self._wake:
            threading.Thread(target=self._worker, args=(event,), name="ferrum-kernels", daemon=True).start()

    def run(self, row: int, chunks: int) -> None:
        """Run the kernel of the row at this address in `chunks` chunks; returns when all are done."""
        with self._lock:
            self._wake_up()
            _run(self._board, row, chunks)

    def replay(self, rows: int, row_bytes: int, chunks: int, count: int) -> None:
        """Run `count` rows, `row_bytes` apart, row i in as many chunks as the i-th int64 at address `chunks` says."""
        with self._lock:
            self._wake_up()
            _replay(self._board, rows, row_bytes, chunks, count)

    def _wake_up(self) -> None:
        for event in self._wake:
            if not event.is_set():
                event.set()

    def _worker(self, event: threading.Event) -> None:
        while True:
            event.wait()
            _serve(self._board)
            event.clear()


def _processor_sets(threads: int) -> np.ndarray | None:
    """uint8 [processors, PROCESSOR_SET_BYTES]: row p is the set of those that this process may use, without p. None
    where it has fewer than threads, or cannot choose."""
    usable = os.sched_getaffinity(0) if _LINUX else set()
    if not 1 < threads <= len(usable) or max(usable) >= 8 * PROCESSOR_SET_BYTES:
        return None
    bits = np.zeros(8 * PROCESSOR_SET_BYTES, np.uint8)
    bits[list(usable)] = 1
    without = np.tile(bits, (max(usable) + 1, 1))
    np.fill_diagonal(without, 0)
    return np.packbits(without, axis=1, bitorder="little")


_teams: dict[int, Team] = {}


def _forget_teams() -> None:
    """A forked child has none of its parent's threads, and perhaps a lock that nobody will release."""
    _teams.clear()


os.register_at_fork(after_in_child=_forget_teams)


def team_of(size: int) -> Team:
    """The process's team of this size."""
    if size not in _teams:
        _teams[size] = Team(size)
    return _teams[size]

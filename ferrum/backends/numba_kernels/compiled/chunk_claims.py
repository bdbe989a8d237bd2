"""How threads claim the chunks of a launch: the compiled part of a team.

Owns: posting a launch, claiming and running its chunks, waiting. The caller never waits for a worker to start, only
for chunks already claimed to end: on a busy machine, where a worker may not get a processor, the caller simply does
everything itself. A worker waits by spinning (new work comes within microseconds while a model runs), then by short
sleeps. A worker that finds itself on the caller's processor, where the two would take turns, moves to another one:
schedulers often leave it there for as long as the others are busy.
Next: `ferrum.backends.numba_kernels.compiled.compiler`.
"""

from __future__ import annotations

import sys

from numba import types

from ferrum.backends.numba_kernels.compiled.simd import (
    atomic_exchange_if,
    atomic_increment,
    atomic_load,
    atomic_store,
    call3,
    inlined,
    load_word,
    pause,
)
from ferrum.backends.numba_kernels.layouts import (
    CALLER,
    CHUNKS,
    DONE,
    ELSEWHERE,
    MOST_CHUNKS,
    PROCESSOR_SET_BYTES,
    ROW,
    TICKET,
)

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


def run_launch(board, row, chunks):
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


_run = inlined(run_launch)


@inlined
def _keep_away(board):
    """Leave the caller's processor to it."""
    sets = atomic_load(board + ELSEWHERE)
    if sets != 0:
        processor = _this_processor()
        if processor == atomic_load(board + CALLER):
            _run_on(0, PROCESSOR_SET_BYTES, sets + processor * PROCESSOR_SET_BYTES)  # type: ignore[call-overload, operator]


def serve_launches(board):
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


def replay_launches(board, rows, row_bytes, chunks, count):
    """Run `count` rows, one after the other, each in its number of chunks (int64)."""
    for i in range(count):
        row, cut = rows + i * row_bytes, load_word(chunks + 8 * i)
        if cut == 1:
            call3(load_word(row), row, 0, 1)
        else:
            _run(board, row, cut)

"""How the threads of a team claim the chunks of a launch: the compiled part of `team`.

Owns: posting a launch, claiming and running its chunks, waiting. The caller never waits for a worker to start, only for
claimed chunks to end: on a busy machine, where no worker gets a processor, the caller runs all chunks. A worker waits
in a loop, since new work comes within microseconds while a model runs, and later by short sleeps. A worker that runs on
the same processor as the caller, where they would run by turns, moves to another processor, because the operating
system often leaves it there while the others are busy.
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
    BOARD_CALLER,
    BOARD_CHUNKS,
    BOARD_DONE,
    BOARD_PROCESSOR_SETS,
    BOARD_ROW,
    BOARD_TICKET,
    MOST_CHUNKS,
    PROCESSOR_SET_BYTES,
)

SPINS = 2000  # pauses in a waiting loop before the thread yields its processor: about 50 microseconds
YIELDS = 200  # yields before a worker sleeps between two looks at the board
SLEEP_MICROSECONDS = 50
SLEEPS = 10_000  # sleeps before a worker leaves compiled code and waits for its event

_yield_processor = types.ExternalFunction("sched_yield", types.int32())
# on other systems these are never called; any function that exists can stand for them
_LINUX = sys.platform == "linux"
_this_processor = types.ExternalFunction("sched_getcpu" if _LINUX else "sched_yield", types.int32())
_run_on = types.ExternalFunction(
    "sched_setaffinity" if _LINUX else "sched_yield", types.int32(types.int32, types.int64, types.int64)
)
_sleep_microseconds = types.ExternalFunction("usleep", types.int32(types.uint32))


@inlined
def _work(board):
    """Claims and runs chunks of the current launch until none is left. The row belongs to the ticket: a claim succeeds
    only if no other launch was posted after the ticket was read."""
    while True:
        ticket = atomic_load(board + BOARD_TICKET)
        chunk, chunks = ticket % MOST_CHUNKS, atomic_load(board + BOARD_CHUNKS)
        row = atomic_load(board + BOARD_ROW)
        if chunk >= chunks:
            return
        if atomic_exchange_if(board + BOARD_TICKET, ticket, ticket + 1):
            call3(load_word(row), row, chunk, chunks)
            atomic_increment(board + BOARD_DONE)


def run_launch(board, row, chunks):
    """For the caller: posts the launch, runs chunks, and waits until the chunks of the workers are done."""
    launch = atomic_load(board + BOARD_TICKET) // MOST_CHUNKS + 1
    # close the old launch, so that no worker combines its ticket with the new row
    atomic_store(board + BOARD_TICKET, launch * MOST_CHUNKS + MOST_CHUNKS - 1)
    atomic_store(board + BOARD_DONE, 0)
    atomic_store(board + BOARD_ROW, row)
    atomic_store(board + BOARD_CHUNKS, chunks)
    if atomic_load(board + BOARD_PROCESSOR_SETS) != 0:
        atomic_store(board + BOARD_CALLER, _this_processor())
    atomic_store(board + BOARD_TICKET, (launch + 1) * MOST_CHUNKS)
    _work(board)
    spins = 0
    while atomic_load(board + BOARD_DONE) < chunks:
        pause()
        spins += 1
        if spins > SPINS:
            _yield_processor()


_run = inlined(run_launch)


@inlined
def _leave_callers_processor(board):
    """Moves this thread to another processor if it runs on the same one as the caller."""
    sets = atomic_load(board + BOARD_PROCESSOR_SETS)
    if sets != 0:
        processor = _this_processor()
        if processor == atomic_load(board + BOARD_CALLER):
            _run_on(0, PROCESSOR_SET_BYTES, sets + processor * PROCESSOR_SET_BYTES)  # type: ignore[call-overload, operator]


def serve_launches(board):
    """For a worker: runs chunks of launches, until there was no work for about a second."""
    idle, last_ticket = 0, atomic_load(board + BOARD_TICKET)
    while idle < SPINS + YIELDS + SLEEPS:
        ticket = atomic_load(board + BOARD_TICKET)
        if ticket != last_ticket:
            _leave_callers_processor(board)
            _work(board)
            last_ticket, idle = ticket, 0  # a launch posted meanwhile has another ticket
        elif idle < SPINS:
            pause()
        elif idle < SPINS + YIELDS:
            _yield_processor()
        else:
            _sleep_microseconds(SLEEP_MICROSECONDS)  # type: ignore[call-overload]
        idle += 1


def replay_launches(board, rows, row_bytes, chunks, count):
    """Runs `count` rows one after the other. `chunks`: the address of the number of chunks of each row (int64)."""
    for i in range(count):
        row, cut = rows + i * row_bytes, load_word(chunks + 8 * i)
        if cut == 1:
            call3(load_word(row), row, 0, 1)
        else:
            _run(board, row, cut)

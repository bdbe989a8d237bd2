"""The board of a team: words in memory through which its threads hand each other work.

Owns: the layout, known to threads in Python and to compiled functions alike. Each word has a cache line of its own.
Next: `ferrum.backends.numba_kernels.claims`.
"""

from __future__ import annotations

TICKET = 0  # launch number * MOST_CHUNKS + next chunk to claim
ROW = 64  # address of the row of words to run
CHUNKS = 128  # how many chunks the launch has
DONE = 192  # how many of them are finished
CALLER = 256  # processor that the caller runs on
ELSEWHERE = 320  # address of the processor sets without one processor, PROCESSOR_SET_BYTES each; 0 where not supported
BOARD_BYTES = 384

PROCESSOR_SET_BYTES = 128  # cpu_set_t: a bit for each of 1024 processors
MOST_CHUNKS = 1 << 16

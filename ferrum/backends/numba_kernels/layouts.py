"""Words in memory that Python and compiled functions both read: weights, norms, MLPs, experts, the board of a team.

Owns: the offset of each word. Every offset is in bytes, and every word is an int64. A module of `launching` writes the
words and a module of `compiled` reads them, so both import their places from here.
Next: `ferrum.backends.numba_kernels.compiled.ir`.
"""

from __future__ import annotations

# ---- a stored weight
# Eleven int64 words, here by their byte offsets.
PRODUCT = 0  # address of the product of few tokens
DATA = 8  # address of the stored rows
ROW_BYTES = 16  # from one row to the next
ROWS = 24
COLUMNS = 32
DECODER = 40  # address of the function (destination, source, columns) that decodes part of a row to float32
STRIP = 48  # address of the product of a panel and a strip of tokens
BIAS = 56  # address, 0 for none
BLOCK_BYTES = 64  # bytes of BLOCK_COLUMNS columns; 0 for float32, which need not be decoded
MULTIPLY = 72  # address of `multiply`
SHARE = 80  # rows that the shares of chunks are multiples of
DESCRIPTOR_BYTES = 88

# An expert: the descriptors of its gate, up and down, and the words of what stands between them (`elementwise`).
DOWN = 2 * DESCRIPTOR_BYTES
BETWEEN = 3 * DESCRIPTOR_BYTES
EXPERT_BYTES = BETWEEN + 24

# ---- a norm, as kernels know it: int64 words, here by their byte offsets
NORM_FUNCTION = 0  # address of `norm_rows`
NORM_WEIGHT = 8
NORM_BIAS = 16  # 0 for none
NORM_EPSILON = 24  # float bits
NORM_HEAD_BYTES = 32  # from the weight of one head to that of the next; 0 where heads share theirs
NORM_CENTRED = 40

# ---- what an MLP does between its products
MLP_ACTIVATION = 0  # address of a function of `activations`
MLP_LIMIT = 8  # float bits; infinity for none
MLP_OFFSET = 16  # float bits

# ---- the board: through these words the threads of a team hand each other work; each has a cache line of its own
TICKET = 0  # launch number * MOST_CHUNKS + next chunk to claim
ROW = 64  # address of the row of words to run
CHUNKS = 128  # how many chunks the launch has
DONE = 192  # how many of them are finished
CALLER = 256  # processor that the caller runs on
ELSEWHERE = 320  # address of the processor sets without one processor, PROCESSOR_SET_BYTES each; 0 where not supported
BOARD_BYTES = 384

PROCESSOR_SET_BYTES = 128  # cpu_set_t: a bit for each of 1024 processors
MOST_CHUNKS = 1 << 16

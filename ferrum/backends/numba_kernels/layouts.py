"""Layouts of the words that launches write and kernels read: of weights, norms, MLPs, experts, and of the board of a
team.

Owns: the offset of each word, in bytes from the first. A word is an int64. Modules of `launching` write the words and
modules of `compiled` read them; both import the offsets from here.
Next: `ferrum.backends.numba_kernels.compiled.ir`.
"""

from __future__ import annotations

# ---- the descriptor of a stored weight
WEIGHT_PRODUCT = 0  # address of the product of few tokens with this kind of weight
WEIGHT_DATA = 8  # address of the stored rows
WEIGHT_ROW_BYTES = 16  # from one row to the next, or from one unit to the next
WEIGHT_ROWS = 24
WEIGHT_COLUMNS = 32
WEIGHT_DECODER = 40  # address of the function (destination, source, columns) that decodes part of a row to float32
WEIGHT_STRIP = 48  # address of the product of a panel and a strip of tokens
WEIGHT_BIAS = 56  # address, 0 for none
WEIGHT_BLOCK_BYTES = 64  # bytes of BLOCK_COLUMNS columns; 0 for float32, which need not be decoded
WEIGHT_MULTIPLY = 72  # address of `multiply`
WEIGHT_SHARE_ROWS = 80  # the rows of a chunk are a multiple of this number
WEIGHT_BYTES = 88  # of a descriptor

# ---- an expert: the descriptors of its gate, up and down, then the words of its MLP
EXPERT_DOWN = 2 * WEIGHT_BYTES
EXPERT_MLP = 3 * WEIGHT_BYTES
EXPERT_BYTES = EXPERT_MLP + 24

# ---- a norm
NORM_FUNCTION = 0  # address of `norm_rows`
NORM_WEIGHT = 8  # address
NORM_BIAS = 16  # address, 0 for none
NORM_EPSILON = 24  # bits of a float32
NORM_HEAD_BYTES = 32  # from the weight of one head to the next one; 0 where all heads share one weight
NORM_CENTRED = 40  # 1 where the mean is subtracted first (layer norm), else 0

# ---- an MLP: the elementwise part between its products
MLP_ACTIVATION = 0  # address of a function of `activations`
MLP_LIMIT = 8  # bits of a float32; infinity for none
MLP_OFFSET = 16  # bits of a float32, added to up

# ---- the board of a team: each word has a cache line of its own, because several threads write them
BOARD_TICKET = 0  # launch number * MOST_CHUNKS + next chunk to claim
BOARD_ROW = 64  # address of the row of words to run
BOARD_CHUNKS = 128  # chunks of the launch
BOARD_DONE = 192  # chunks that are finished
BOARD_CALLER = 256  # processor that the caller runs on
BOARD_PROCESSOR_SETS = 320  # address: for each processor, the set of the others, PROCESSOR_SET_BYTES; 0: unsupported
BOARD_BYTES = 384

PROCESSOR_SET_BYTES = 128  # cpu_set_t: a bit for each of 1024 processors
MOST_CHUNKS = 1 << 16

"""Sizes on which kernels and their launches agree: of tiles, panels, pages, units, and of the memory of a chunk.

Owns: each size, chosen so that operands fit into a cache or into the registers, and the bytes of scratch that follow.
Next: `ferrum.backends.numba_kernels.layouts`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.loading.features import REGISTERS

VECTOR = 16
"""Floats that a kernel processes at a time. A row whose length is not a multiple of it is left to the composition."""

# ---- matrix products
TILE_ROWS = 4
TILE_TOKENS = 6 if REGISTERS == 32 else 3
"""Weight rows and tokens of a tile of `panels`. 32 registers hold 4 x 6 accumulators and their operands, 16 hold 4 x
3."""
PANEL_TOKENS = 6
"""Tokens of a strip: they are multiplied with one row of tiles of a panel before the next row of tiles is read. Where a
tile has 3 tokens, the second tile of a strip finds the weights in the first-level cache."""
TILE_BYTES = TILE_ROWS * PANEL_TOKENS * 64
"""Bytes that hold the accumulators of a strip and TILE_ROWS rows between two blocks of columns, 16 floats each."""
BLOCK_COLUMNS = 512
"""Columns of a block: 2 KiB of a row, so that the operands of a tile stay in the first-level cache."""
WHOLE_COLUMNS = 768
"""Rows of at most this many columns are not cut into blocks."""
PANEL_BYTES = 384 << 10
"""Bytes of a panel: its decoded rows stay in the second-level cache of a core while all tokens pass over them."""
LEAST_PANEL_ROWS, MOST_PANEL_ROWS = 24, 120
"""Rows of a panel. Every panel reads all tokens again, so fewer rows would read them from a slower cache too often."""
SHARE_ROWS = 12
"""The rows of a panel and of a chunk are multiples of this number, which the rows of every tile divide."""
SMALL_BATCH = 64
"""For at most this many tokens a panel has LEAST_PANEL_ROWS: it is still in the cache into which it was decoded."""


SUMS_BYTES = -(-MOST_PANEL_ROWS // TILE_ROWS) * TILE_BYTES
"""Bytes for the accumulators of a strip and a panel. They also suffice for one block of columns of a row in float32."""


def product_scratch(columns: int) -> int:
    """Bytes of scratch of a chunk for `multiply`: a panel, and the accumulators of a strip."""
    return max(PANEL_BYTES, LEAST_PANEL_ROWS * 4 * columns) + SUMS_BYTES


def rounded_scratch(columns: int, tokens: int) -> int:
    """Further bytes of scratch of a chunk for `multiply_bfloat16`: the tokens, rounded."""
    return 2 * columns * tokens


EXPERT_SHARE_ROWS = 16
"""The rows of an expert that a chunk computes are a multiple of this number."""
EXPERT_TOKENS = 64
"""Tokens of an expert that are gathered side by side and multiplied at a time."""
EXPERT_ROWS = 480
"""Rows of gate and of up that are multiplied before the activation joins them."""


def expert_scratch(columns: int) -> int:
    """Bytes of scratch of a chunk besides that of its products: gathered tokens, and results of up."""
    return 4 * EXPERT_TOKENS * (columns + EXPERT_ROWS)


def router_scratch(experts: int) -> int:
    """Bytes of scratch of a chunk for the probabilities of a token's experts, in whole vectors."""
    return 4 * (-(-experts // VECTOR) * VECTOR)


# ---- attention
PAGE = 16
"""Positions whose keys are read together: one vector of scores."""
QUERY_ROWS = 6
"""Query rows of a tile. Each keeps a vector of scores in registers."""
SPLIT = 128
"""Positions of a split, whose softmax is computed at once: their scores and keys stay in the first-level cache."""
NO_WINDOW = 1 << 30
"""The window of attention without a window: longer than any context."""


def _padded(head_dim: int) -> int:
    return -(-head_dim // 16) * 16


def attention_scratch(head_dim: int) -> int:
    """Bytes of scratch of a chunk. `attend_split` lists its parts."""
    padded = _padded(head_dim)
    return 4 * (3 * QUERY_ROWS * padded + 2 * PAGE * padded + QUERY_ROWS * SPLIT + 4 * QUERY_ROWS + 64)


def attention_state(head_dim: int) -> int:
    """Bytes that a split of a tile leaves for `merge_attention`: outputs, maxima and sums of its query rows."""
    return 4 * (QUERY_ROWS * _padded(head_dim) + 16)


# ---- int8: units of weights, rounded groups of activations
UNIT_ROWS = 16
"""Weight rows that lie side by side in a unit."""
GROUP = 32
"""Columns of a group: neighbouring activations that share a scale."""
UNIT_SHARE_ROWS = 3 * UNIT_ROWS
"""The rows of a chunk are a multiple of this number: whole units."""

UNIT_GROUPS = {"q4_0": 2, "q4_1": 1, "q8_0": 2, "q4_k": 8, "q5_k": 8, "q6_k": 8}
"""Groups of columns in one block of a unit, by the kind of weight."""
UNIT_BLOCK_BYTES = {"q4_0": 576, "q4_1": 320, "q8_0": 1088, "q4_k": 2304, "q5_k": 2816, "q6_k": 3392}
"""Bytes of one block of a unit. `integer_blocks` tells what lies where."""

# ---- a rounded group of a token: 32 int8 codes, then numbers derived from them; offsets in bytes
X_SCALE = 32  # float32
X_MINUS_8 = 36  # int32: -8 times the sum of the codes
X_MINUS_128 = 40  # int32: -128 times the sum of the codes
X_SCALED_SUM = 44  # float32: the scale times the sum of the codes
X_MINUS_32_OF_HALVES = (48, 52)  # int32: -32 times the sum of each half
X_BYTES = 56


def unit_bytes(kind: str, columns: int) -> int:
    """Bytes of all columns of a unit. A last block with fewer groups than UNIT_GROUPS is padded."""
    return -(-columns // (GROUP * UNIT_GROUPS[kind])) * UNIT_BLOCK_BYTES[kind]


def rounded_groups(columns: int) -> int:
    """Groups of a rounded row of activations: an even number, for blocks of two groups. The last one may be zeros."""
    return -(-columns // (2 * GROUP)) * 2


# ---- the choice of tokens
LOGIT_BLOCK = 64
"""Logits whose maximum is stored, so that a block of small logits is skipped as a whole."""
WEIGHT_BINS = 2048
"""Bins into which the logits of a row are sorted, from the largest down, to find the boundary of top-p."""
MOST_BIN_MEMBERS = 1024
"""Most tokens of one bin that are sorted. A row with more tokens in the bin of the boundary is left to the
definition."""
SETTING_BYTES = 40
"""Bytes of the settings of a row, float64: temperature, top_k, top_p, min_p, and the uniform random number."""
UNDECIDED = -1
"""Stands in place of a token where rounding could change the choice, or where no token can be chosen."""


def blocks_of(count: int) -> int:
    """Blocks that hold this many logits."""
    return (count + LOGIT_BLOCK - 1) // LOGIT_BLOCK


def choice_scratch(vocab: int) -> int:
    """Bytes of scratch of a chunk. In this order: the weight of each bin (float64); the sum of the weights of each
    block (float64); the weight of each candidate (float64); the largest logit of each block (float32); of each
    candidate its logit (float32), its id (int32), and an int32 for sorting."""
    blocks = blocks_of(vocab)
    return 8 * WEIGHT_BINS + (8 + 8 * LOGIT_BLOCK + 4 + 3 * 4 * LOGIT_BLOCK) * blocks

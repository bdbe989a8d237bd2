"""How much kernels do at once, and the memory they need for it.

Owns: the sizes that kernels and those who launch them must agree on. Each is chosen for a cache or the register file.
Next: `ferrum.backends.numba_kernels.layouts`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.loading.features import REGISTERS

VECTOR = 16
"""Floats that kernels take at a time; rows that are no multiple of it are left to compositions."""

# ---- matrix products
PANEL_ROWS = 4
TILE_TOKENS = 6 if REGISTERS == 32 else 3
"""Accumulators must fit the register file: 32 registers hold 4 x 6 and their operands, 16 hold 4 x 3."""
PANEL_TOKENS = 6
"""Tokens that pass over a panel at a time, in one tile or in two, one after the other: the second finds the rows of the
panel in the nearest cache."""
TILE_BYTES = PANEL_ROWS * PANEL_TOKENS * 64
"""Memory for a tile's sums between two blocks of columns: 16 floats each."""
BLOCK_COLUMNS = 512
"""Columns that are multiplied together: two kilobytes of a row, so that a tile's operands stay in the nearest cache."""
WHOLE_COLUMNS = 768
"""Rows of up to so many columns are not cut into blocks."""
PANEL_BYTES = 384 << 10
"""Decoded rows that stay in a core's second-level cache while many tokens pass over them."""
LEAST_ROWS, MOST_ROWS = 24, 120
"""Rows of a panel. With fewer, however long they are, the tokens come from a cache too far away too often."""
UNIT_ROWS = 12
"""Panels and chunks are multiples of this many rows, which every tile divides."""
SMALL_BATCH = 64
"""Up to so many tokens a panel has LEAST_ROWS, which then come from the cache into which they were decoded."""


SUMS_BYTES = -(-MOST_ROWS // PANEL_ROWS) * TILE_BYTES
"""Memory for the sums of a strip; also enough for a block of columns in float32."""


def product_scratch(columns: int) -> int:
    """Bytes of private memory of a chunk for `multiply`: a panel, and the sums of a strip."""
    return max(PANEL_BYTES, LEAST_ROWS * 4 * columns) + SUMS_BYTES


def rounded_scratch(columns: int, tokens: int) -> int:
    """Bytes that `multiply_bfloat16` needs besides."""
    return 2 * columns * tokens


EXPERT_UNIT = 16
"""Rows of an expert that chunks are multiples of."""
EXPERT_TOKENS = 64
"""Tokens of an expert that are gathered and multiplied at a time."""
EXPERT_ROWS = 480
"""Rows of gate and up that are multiplied before they are joined."""


def expert_scratch(columns: int) -> int:
    """Bytes of private memory of a chunk beside that of its products: gathered tokens, and rows of up."""
    return 4 * EXPERT_TOKENS * (columns + EXPERT_ROWS)


def router_scratch(experts: int) -> int:
    """Bytes of private memory of a chunk for the chances of a token's experts, in whole vectors."""
    return 4 * (-(-experts // VECTOR) * VECTOR)


# ---- attention
PAGE = 16
"""Positions whose keys are read together."""
QUERY_ROWS = 6
"""Query rows of a tile: each keeps a vector of scores in registers."""
SPLIT = 128
"""Positions whose softmax is computed at once: their scores and keys stay in the first-level cache."""
NO_WINDOW = 1 << 30
"""A window that no context reaches."""


def _padded(head_dim: int) -> int:
    return -(-head_dim // 16) * 16


def attention_scratch(head_dim: int) -> int:
    """Bytes of private memory of a chunk: see `attend_split`."""
    padded = _padded(head_dim)
    return 4 * (3 * QUERY_ROWS * padded + 2 * PAGE * padded + QUERY_ROWS * SPLIT + 4 * QUERY_ROWS + 64)


def attention_state(head_dim: int) -> int:
    """Bytes of one unit's state between a split and the merge: outputs, maxima, sums."""
    return 4 * (QUERY_ROWS * _padded(head_dim) + 16)


# ---- int8: units of weights, rounded groups of activations
LANES = 16
"""Rows that lie side by side in a unit."""
GROUP = 32
"""Columns that share a scale of the activations."""
SHARE_ROWS = 3 * LANES
"""Rows that the shares of chunks are multiples of: whole units."""

UNIT_GROUPS = {"q4_0": 2, "q4_1": 1, "q8_0": 2, "q4_k": 8, "q5_k": 8, "q6_k": 8}
"""Groups of columns of one block of a unit, by the kind of weight."""
UNIT_BLOCK_BYTES = {"q4_0": 576, "q4_1": 320, "q8_0": 1088, "q4_k": 2304, "q5_k": 2816, "q6_k": 3392}

# ---- a rounded group of a token: 32 codes, then what a sum may begin with or needs; offsets in bytes
X_SCALE = 32  # float32
X_MINUS_8 = 36  # int32: -8 times the sum of the codes
X_MINUS_128 = 40  # int32
X_SCALED_SUM = 44  # float32: the scale times the sum of the codes
X_MINUS_32_OF_HALVES = (48, 52)  # int32: -32 times the sum of each half
X_BYTES = 56


def unit_bytes(kind: str, columns: int) -> int:
    """Bytes of all columns of a unit. Where blocks take two groups, a last one without a mate is padded."""
    return -(-columns // (GROUP * UNIT_GROUPS[kind])) * UNIT_BLOCK_BYTES[kind]


def rounded_groups(columns: int) -> int:
    """Groups of a rounded row: an even number, the last of which may be zeros."""
    return -(-columns // (2 * GROUP)) * 2


# ---- the choice of tokens
BLOCK = 64
"""Logits that are looked at together."""
BINS = 2048
"""Parts into which the weights of a row are sorted, from the largest down."""
MOST_MEMBERS = 1024
"""Tokens of one part that are put in order; a row that has more at the boundary is left to the definition."""
SETTING_BYTES = 40
"""Temperature, top_k, top_p, min_p and the number that draws, in float64."""
UNDECIDED = -1
"""In the place of a token: rounding could decide, or there is none."""


def blocks_of(count: int) -> int:
    """Blocks of so many logits."""
    return (count + BLOCK - 1) // BLOCK


def choice_scratch(vocab: int) -> int:
    """Bytes of private memory of a chunk. In this order: the weights of BINS parts; of each block the sum of its
    weights; of each candidate its weight; of each block its largest logit; of each candidate its logit, its id, and a
    place to put it in order."""
    blocks = blocks_of(vocab)
    return 8 * BINS + (8 + 8 * BLOCK + 4 + 3 * 4 * BLOCK) * blocks

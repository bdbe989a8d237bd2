"""Sizes of the int8 class: of units of weights, and of rounded groups of activations.

Owns: the numbers that its kernels and those who launch them must agree on. What lies in a unit is told in
`integer_blocks`. Next: `ferrum.backends.numba_kernels.integer_dots`.
"""

from __future__ import annotations

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

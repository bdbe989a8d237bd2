"""Sizes of the choice of tokens: what its kernels and those who launch them must agree on.

Owns: where the private memory of a chunk has what. Next: `ferrum.backends.numba_kernels.doubles`.
"""

from __future__ import annotations

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

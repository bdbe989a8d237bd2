"""Random weights in blocks: any codes, and scales that give numbers of normal size.

Owns: where each block format stores its float16 scales, and the size of the numbers that a scale gives. Fully random
bytes would contain infinite scales, and so weights that are NaN. Refuses to know: `ferrum.tensor`, models.
Specs: OPS-17. Next: `ferrum.testing.stub`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray


@dataclass(frozen=True)
class Block:
    """`size` weights in `bytes` bytes. `scales` maps the offset of each float16 to the root mean square of its factor
    in a weight when all other bits are random."""

    size: int
    bytes: int
    scales: dict[int, float]


# mean squares of a code, of a six-bit and of an eight-bit group scale; below, roots of their products
BLOCKS = {
    "q8_0": Block(32, 34, {0: 73.9}),
    "q4_0": Block(32, 18, {0: 4.64}),
    "q4_1": Block(32, 20, {0: 8.80, 2: 1.0}),
    "q4_k": Block(256, 144, {0: 321.0, 2: 36.5}),
    "q5_k": Block(256, 176, {0: 659.0, 2: 36.5}),
    "q6_k": Block(256, 210, {208: 1366.0}),
}


def random_blocks(
    kind: str, shape: tuple[int, int], random: np.random.Generator, size: float = 1.0, zeros: float = 0.0
) -> NDArray[np.uint8]:
    """The data of a weight of that shape, [rows, columns / block size * bytes of a block].

    Weights have mean 0 and root mean square `size`. Scales and minimums are normal, of either sign; each is zero with
    probability `zeros`. columns: a multiple of the format's block size.
    """
    block = BLOCKS[kind]
    rows, columns = shape
    if columns % block.size:
        raise ValueError(f"{columns} columns are not a multiple of {block.size}")
    data = random.integers(0, 256, (rows, columns // block.size, block.bytes), np.uint8)
    share = size / len(block.scales) ** 0.5
    for place, factor in block.scales.items():
        scales = random.standard_normal((*data.shape[:2], 1)) * (share / factor)
        scales[random.random(scales.shape) < zeros] = 0
        data[:, :, place : place + 2] = scales.astype("<f2").view(np.uint8)
    return data.reshape(rows, -1)

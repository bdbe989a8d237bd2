"""Weights rearranged into units of 16 rows, once for each weight, for int8 products.

Owns: the memory of the units, and giving back the pages of the model file that held the weight; an access to them would
read them from the file again. Refuses to know: the layout of a unit (`integer_blocks`).
Next: `ferrum.backends.numba_kernels.launching.expert_calls`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ferrum.backends.numba_kernels.launching.launch import Launcher
from ferrum.backends.numba_kernels.launching.memory import CACHE_LINE, address
from ferrum.backends.numba_kernels.sizes import UNIT_ROWS, unit_bytes
from ferrum.mapping import give_back
from ferrum.tensor.weights import Weight

PIECE_BYTES = 8 << 20
"""Bytes of stored rows that are rearranged before their pages are given back, so that a weight is never in memory
twice."""


@dataclass(frozen=True, eq=False)
class Units:
    """The rows of a weight, sixteen side by side."""

    memory: np.ndarray  # uint8
    place: int  # address of the first unit, aligned to a cache line
    bytes: int  # of a unit


def make_units(launcher: Launcher, weight: Weight) -> Units:
    """Rearranges a weight. `launcher` must run kernels at once: it must not be a Recorder."""
    data, count, size = weight.data, -(-weight.rows // UNIT_ROWS), unit_bytes(weight.kind, weight.columns)
    memory = np.zeros(count * size + CACHE_LINE, np.uint8)  # pages of zeros that are never written take no memory
    units = Units(memory, address(memory) + -address(memory) % CACHE_LINE, size)
    together = max(1, PIECE_BYTES // (UNIT_ROWS * data.shape[1])) * UNIT_ROWS  # rows
    for first in range(0, weight.rows, together):
        piece = data[first : first + together]
        launcher.launch(
            f"interleaving.interleaved.{weight.kind}",
            address(piece), data.strides[0], len(piece), weight.columns, units.place + first // UNIT_ROWS * size, size,
            work=8 * piece.size, count=3,
        )  # fmt: skip
        give_back(piece)
    give_back(data)  # the pages that two pieces share
    return units

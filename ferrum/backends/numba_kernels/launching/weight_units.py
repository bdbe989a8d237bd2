"""Weights in units, made once for each weight: the memory of the int8 class.

Owns: the private memory into which a weight's rows are rearranged, and giving back the pages of the file that held
them: they are read again from the file if anybody asks. Refuses to know: what a unit holds (`integer_blocks`).
Next: `ferrum.backends.numba_kernels.launching.expert_calls`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ferrum.backends.numba_kernels.launching.launch import Launcher
from ferrum.backends.numba_kernels.launching.memory import CACHE_LINE, address
from ferrum.backends.numba_kernels.sizes import LANES, unit_bytes
from ferrum.mapping import give_back
from ferrum.tensor.weights import Weight

PIECE_BYTES = 8 << 20
"""Of stored rows that are rearranged before their pages are given back: a weight is never in memory twice."""


@dataclass(frozen=True, eq=False)
class Units:
    """A weight's rows, sixteen side by side."""

    memory: np.ndarray  # uint8
    place: int  # address of the first unit, at the beginning of a cache line
    bytes: int  # of a unit


def make_units(launcher: Launcher, weight: Weight) -> Units:
    """`launcher` runs kernels at once."""
    data, count, size = weight.data, -(-weight.rows // LANES), unit_bytes(weight.kind, weight.columns)
    memory = np.zeros(count * size + CACHE_LINE, np.uint8)  # from the system: pages that nobody writes cost nothing
    units = Units(memory, address(memory) + -address(memory) % CACHE_LINE, size)
    together = max(1, PIECE_BYTES // (LANES * data.shape[1])) * LANES  # rows
    for first in range(0, weight.rows, together):
        piece = data[first : first + together]
        launcher.launch(
            f"interleaving.interleaved.{weight.kind}",
            address(piece), data.strides[0], len(piece), weight.columns, units.place + first // LANES * size, size,
            work=8 * piece.size, count=3,
        )  # fmt: skip
        give_back(piece)
    give_back(data)  # the pages that two pieces share
    return units

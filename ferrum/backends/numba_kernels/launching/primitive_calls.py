"""Launches of primitives that are recorded: the strides of operands, where an axis that is broadcast has stride 0.

Owns: the rows of words of `elementwise` and `take` in `ferrum.backends.numba_kernels.compiled.primitives`. Which
primitives are recorded, and where their results lie, is decided by `ferrum.backends.numba_recording`.
Next: `ferrum.backends.numba_kernels.launching.thread_count`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import TYPE_CHECKING

import numpy as np

from ferrum.backends.numba_kernels.launching.memory import address

if TYPE_CHECKING:
    from ferrum.backends.numba_kernels.launching.launch import Launcher

MOST_DIMENSIONS = 4
NO_GROWTH = 25
"""The index of a word that is always 0, as `count` of a launch that does not depend on the number of tokens."""


def elementwise(launcher: Launcher, name: str, operands: Sequence[np.ndarray], out: np.ndarray, grows: bool) -> None:
    """Launches the primitive `name`. The operands have the types that it takes and broadcast to `out`; all have at most
    MOST_DIMENSIONS axes. grows: the first axis of `out` is the number of tokens, or a multiple of it."""
    shape = (1,) * (MOST_DIMENSIONS - out.ndim) + out.shape
    x, y, z = (*operands, operands[0], operands[0])[:3]  # operands that the operation does not read may be any array
    units = shape[0] * shape[1] * shape[2]
    launcher.launch(
        f"primitives.elementwise.{name}",
        units, *shape[1:], *_operand(out, shape), *_operand(x, shape), *_operand(y, shape), *_operand(z, shape), 0,
        work=8 * out.size, count=NO_GROWTH if not grows else 4 if out.ndim == 1 else 1,
    )  # fmt: skip


def _operand(x: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """The address of x, and its strides in bytes when broadcast to the shape."""
    return address(x), *np.broadcast_to(x, shape).strides


def take(launcher: Launcher, table: np.ndarray, indices: np.ndarray, out: np.ndarray, grows: bool) -> None:
    """Launches `take`: rows of a table, each contiguous, with elements of four bytes, by contiguous int32 indices."""
    columns = math.prod(table.shape[1:])
    words = (address(indices), indices.size, address(table), table.strides[0], table.shape[0], columns, address(out))
    launcher.launch("primitives.take", *words, *[0] * 18, work=8 * out.size, count=2 if grows else NO_GROWTH)

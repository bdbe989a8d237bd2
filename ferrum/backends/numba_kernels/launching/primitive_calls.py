"""From arrays to rows of words, for primitives: broadcasting as distances of 0.

Owns: the marshalling of `elementwise` and `take` in `ferrum.backends.numba_kernels.compiled.primitives`. Which
primitives are recorded, and in which memory they leave their results, is decided by `ferrum.backends.numba_recording`.
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
"""The number of a word that is 0: for a launch that is the same for any number of tokens."""


def elementwise(launcher: Launcher, name: str, operands: Sequence[np.ndarray], out: np.ndarray, grows: bool) -> None:
    """Operands of the types that the primitive takes, of at most MOST_DIMENSIONS, which broadcast to out. grows: is the
    first dimension of out tokens, or a multiple of them?"""
    shape = (1,) * (MOST_DIMENSIONS - out.ndim) + out.shape
    x, y, z = (*operands, operands[0], operands[0])[:3]  # those that the operation does not look at may be any
    units = shape[0] * shape[1] * shape[2]
    launcher.launch(
        f"primitives.elementwise.{name}",
        units, *shape[1:], *_operand(out, shape), *_operand(x, shape), *_operand(y, shape), *_operand(z, shape), 0,
        work=8 * out.size, count=NO_GROWTH if not grows else 4 if out.ndim == 1 else 1,
    )  # fmt: skip


def _operand(x: np.ndarray, shape: tuple[int, ...]) -> tuple[int, ...]:
    """Address, and the distance in bytes between neighbours in each dimension."""
    return address(x), *np.broadcast_to(x, shape).strides


def take(launcher: Launcher, table: np.ndarray, indices: np.ndarray, out: np.ndarray, grows: bool) -> None:
    """Rows of a table of elements of four bytes, each contiguous, by contiguous int32 indices."""
    columns = math.prod(table.shape[1:])
    words = (address(indices), indices.size, address(table), table.strides[0], table.shape[0], columns, address(out))
    launcher.launch("primitives.take", *words, *[0] * 18, work=8 * out.size, count=2 if grows else NO_GROWTH)

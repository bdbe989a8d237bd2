"""What a capture allows: launches of kernels, views, and memory that the graph owns.

Owns: the memory of a graph, and the refusal of everything else. A graph is an address list: whatever it points to must
be there, unchanged in place, as long as the graph is. So its memory is allocated before the capture, in one piece, by
the count of a run beforehand, and no other graph shares it.
Refuses to know: how a device records. Specs: CUDA-50, CUDA-51. Next: `ferrum.backends.cuda.steps`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any, NoReturn

from ferrum.backends.cuda.device import Array, NotCapturable
from ferrum.tensor.ops import Shape, host_dtype

ALIGNMENT = 256
"""Bytes: every piece starts at a multiple, as whatever a GPU allocates does."""


class NoArrays:
    """Stands for the array library during a capture."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotCapturable(f"{name}, for which there is no kernel")


def piece_bytes(shape: Shape, dtype: str) -> int:
    """What an array takes of an arena."""
    size = math.prod(shape) * host_dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


class Meter:
    """How large an arena must be: counted in a run without one."""

    def __init__(self) -> None:
        self.used = self.most = 0

    def count(self, shape: Shape, dtype: str) -> None:
        self.used += piece_bytes(shape, dtype)
        self.most = max(self.most, self.used)


class Arena:
    """Memory of which pieces are handed out in order. What is handed out within `scratch` comes back at its end."""

    def __init__(self, memory: Array) -> None:
        """memory: uint8 [bytes]"""
        self._memory = memory
        self.used = 0

    def empty(self, shape: Shape, dtype: str) -> Array:
        """Raises NotCapturable where a step takes more than in the run that was counted."""
        start, size = self.used, math.prod(shape) * host_dtype(dtype).itemsize
        self.used += piece_bytes(shape, dtype)
        if self.used > len(self._memory):
            raise NotCapturable("more memory than in the run before")
        return _typed(self._memory[start : start + size], dtype).reshape(shape)


@contextmanager
def scratch(memory: Meter | Arena) -> Iterator[None]:
    """Pieces that are handed out inside may be handed out again afterwards: what is launched later runs later."""
    before = memory.used
    yield
    memory.used = before


def _typed(memory: Any, dtype: str) -> Array:
    return memory.view(host_dtype(dtype))

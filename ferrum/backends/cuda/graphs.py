"""Memory of a CUDA graph, and the refusal of operations that a graph cannot contain.

Owns: both. A graph stores addresses, so all memory that it uses must stay in place as long as the graph exists. Its
memory is one array, allocated before the capture; a run without capture counts how much is needed. Graphs do not share
memory. A capture allows launches of kernels and views, nothing else.
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
"""The address of every array is a multiple of this number of bytes, as for arrays that a GPU allocates."""


class NoArrays:
    """Stands for the array library during a capture: every function raises NotCapturable."""

    def __getattr__(self, name: str) -> NoReturn:
        raise NotCapturable(f"{name}, for which there is no kernel")


def piece_bytes(shape: Shape, dtype: str) -> int:
    """The bytes of an array in an arena."""
    size = math.prod(shape) * host_dtype(dtype).itemsize
    return -(-size // ALIGNMENT) * ALIGNMENT


class Meter:
    """Counts the bytes that an arena needs, in a run without capture."""

    def __init__(self) -> None:
        self.used = self.most = 0

    def count(self, shape: Shape, dtype: str) -> None:
        self.used += piece_bytes(shape, dtype)
        self.most = max(self.most, self.used)


class Arena:
    """Memory from which arrays are taken in order. The memory of arrays from inside `scratch` is used again after
    it."""

    def __init__(self, memory: Array) -> None:
        """memory: uint8 [bytes]"""
        self._memory = memory
        self.used = 0

    def empty(self, shape: Shape, dtype: str) -> Array:
        """An array with undefined content. Raises NotCapturable if a step needs more memory than in the counted run."""
        start, size = self.used, math.prod(shape) * host_dtype(dtype).itemsize
        self.used += piece_bytes(shape, dtype)
        if self.used > len(self._memory):
            raise NotCapturable("more memory in the capture than in the run before it")
        return _typed(self._memory[start : start + size], dtype).reshape(shape)


@contextmanager
def scratch(memory: Meter | Arena) -> Iterator[None]:
    """The memory of arrays from inside the context is used again after it, which is safe because launches run in
    order."""
    before = memory.used
    yield
    memory.used = before


def _typed(memory: Any, dtype: str) -> Array:
    return memory.view(host_dtype(dtype))

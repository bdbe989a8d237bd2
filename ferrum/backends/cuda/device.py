"""The protocol of a device: memory, copies, launches, graphs.

Owns: the protocol `Device`. `ferrum.backends.cuda.gpu` implements it with CuPy. `ferrum.testing.cuda_shim` implements
it with NumPy and fibers, so that all code above it runs without a GPU. Refuses to know: operations.
Specs: CUDA-06 to CUDA-09. Next: `ferrum.backends.cuda.elementwise`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any, Protocol

import numpy as np

from ferrum.backends.cuda.launch import Kernels
from ferrum.backends.recorded_steps import NotRecordable
from ferrum.tensor.ops import Shape

Array = Any
"""An array on the device: of CuPy, or of NumPy in tests."""


class NotCapturable(NotRecordable):
    """A step does something that a graph cannot contain. The message names it."""


class Device(Protocol):
    """Memory and kernels. Kernels run in the order of their launches."""

    kernels: Kernels
    processors: int
    """The number of multiprocessors: at least this many blocks run at the same time."""

    @property
    def xp(self) -> Any:
        """The array library, for operations without a kernel. During a capture its functions raise NotCapturable,
        because a graph would not contain them. Views are methods of arrays and are always allowed."""
        ...

    @property
    def capturing(self) -> bool:
        """True if launches are recorded instead of run."""
        ...

    def empty(self, shape: Shape, dtype: str) -> Array:
        """An array with undefined content. During a capture it lies in the memory of the graph."""
        ...

    def scratch(self) -> AbstractContextManager[None]:
        """Arrays from `empty` inside the context are not used after it: in a graph, later arrays reuse their memory."""
        ...

    def upload(self, values: np.ndarray) -> Array:
        """A copy of a host array. Raises NotCapturable during a capture."""
        ...

    def download(self, x: Array) -> np.ndarray:
        """A copy on the host, after all earlier launches are done. Raises NotCapturable during a capture."""
        ...

    def product(self, x: Array, weight: Array) -> Array:
        """x [tokens, columns], weight [rows, columns], both float32 or both bfloat16 -> float32 [tokens, rows], with
        sums in float32. Raises NotCapturable during a capture if the device cannot record it."""
        ...

    def address(self, x: Array) -> int:
        """The address of the first element of x on the device."""
        ...

    def pinned(self, shape: Shape, dtype: str) -> np.ndarray:
        """An array in pinned host memory, which the device can read and write at full speed."""
        ...

    def store(self, x: Array, places: np.ndarray, rows: Sequence[int]) -> None:
        """places[rows] = x, for a pinned array `places`. The copy runs beside other work, and ends before a later
        `fetch` reads."""
        ...

    def fetch(self, places: np.ndarray, rows: Sequence[int]) -> Array:
        """-> places[rows], for later launches."""
        ...

    def memory(self) -> tuple[int, int]:
        """Free bytes, and all bytes of the device."""
        ...

    def capture(self, run: Callable[[], Array]) -> tuple[Graph, Array]:
        """Runs `run` once and then records its launches -> the graph, and the result of `run`. Raises NotCapturable;
        the device can be used afterwards as before."""
        ...


class Graph(Protocol):
    """Recorded launches, and the memory that they use."""

    def launch(self) -> None:
        """Runs them again, after all earlier launches."""
        ...

"""What the backend needs of whoever has the memory and runs the kernels.

Owns: the protocol `Device`. `ferrum.backends.cuda.gpu` implements it with CuPy; `ferrum.testing.cuda_shim` with NumPy
and fibers, so that all that stands above it runs without a GPU. Refuses to know: operations.
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
"""An array of the device: CuPy's, or in tests NumPy's."""


class NotCapturable(NotRecordable):
    """Something in a step that cannot be part of a graph; the message names it."""


class Device(Protocol):
    """Memory and kernels. What is launched runs in the order of the launches."""

    kernels: Kernels
    processors: int
    """Multiprocessors: blocks that run at the same time at least."""

    @property
    def xp(self) -> Any:
        """The array library, for what has no kernel. During a capture its functions raise NotCapturable: a graph would
        not contain them. Views come from methods of arrays and are always allowed."""
        ...

    @property
    def capturing(self) -> bool:
        """Are launches recorded instead of run?"""
        ...

    def empty(self, shape: Shape, dtype: str) -> Array:
        """Contents undefined. During a capture memory that the graph owns."""
        ...

    def scratch(self) -> AbstractContextManager[None]:
        """Inside, `empty` gives memory that nobody looks at afterwards: in a graph, later launches have it again."""
        ...

    def upload(self, values: np.ndarray) -> Array:
        """A copy of a host array. Raises NotCapturable during a capture."""
        ...

    def download(self, x: Array) -> np.ndarray:
        """A copy on the host, once all that was launched before is done. Raises NotCapturable during a capture."""
        ...

    def product(self, x: Array, weight: Array) -> Array:
        """[tokens, columns], [rows, columns], both float32 or both bfloat16 -> float32 [tokens, rows], added up in
        float32. Not during a capture, unless the device has a way."""
        ...

    def address(self, x: Array) -> int:
        """Where the first element of x lies on the device."""
        ...

    def pinned(self, shape: Shape, dtype: str) -> np.ndarray:
        """Host memory that copies go to and come from at full speed."""
        ...

    def store(self, x: Array, places: np.ndarray, rows: Sequence[int]) -> None:
        """places[rows] = x, where `places` is pinned, some time before a later `fetch` reads it: beside other work."""
        ...

    def fetch(self, places: np.ndarray, rows: Sequence[int]) -> Array:
        """-> places[rows], for whatever is launched next."""
        ...

    def memory(self) -> tuple[int, int]:
        """Bytes that are free, and bytes in all."""
        ...

    def capture(self, run: Callable[[], Array]) -> tuple[Graph, Array]:
        """Records the launches of `run`, which has been run once before -> the graph, and what `run` returned. Raises
        NotCapturable, after which the device is as it was."""
        ...


class Graph(Protocol):
    """Launches that were recorded, and the memory they use."""

    def launch(self) -> None:
        """Runs them again, after all that was launched before."""
        ...

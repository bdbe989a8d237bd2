"""The shim's device with a GPU in it: tests that were written for the shim run every kernel on the GPU.

Owns: memory of the host that a GPU reads and writes at the same addresses, so that arrays are NumPy's, and all that the
shim checks is checked: NaN in memory that was not written, bytes around every array. Each launch is waited for.
Refuses to know: what kernels compute.
"""

from __future__ import annotations

import sys
from bisect import bisect_right, insort
from collections.abc import Callable
from typing import Any, Protocol

import numpy as np

from ferrum.backends.cuda.launch import Module
from ferrum.testing.cuda_shim.device import ShimDevice, _Launched
from ferrum.testing.cuda_shim.memory import Memory


class Gpu(Protocol):
    """The methods that are needed of a GPU: those of `GpuDevice`, or of a stand-in that takes host addresses."""

    def _load(self, text: str, options: tuple[str, ...]) -> Module: ...

    def pinned(self, shape: tuple[int, ...], dtype: str) -> np.ndarray: ...

    def _wait(self) -> None: ...


class OnGpu(ShimDevice):
    """The schedule is the GPU's own."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu, self._memory = gpu, PinnedMemory(gpu)

    def _load(self, text: str, options: tuple[str, ...]) -> Module:
        return _Launched(self, _Waiting(self._gpu, self._memory, self._gpu._load(text, options)))


def on_gpu() -> OnGpu:
    """On the first GPU. Raises BackendError where there is none."""
    from ferrum.backends.cuda.gpu import GpuDevice

    return OnGpu(GpuDevice())


class PinnedMemory(Memory):
    """Memory that a GPU reaches, too. It stays pinned: CuPy keeps what is given back for the next one of its size."""

    def __init__(self, gpu: Gpu) -> None:
        super().__init__()
        self._gpu, self._pieces = gpu, list[tuple[int, int]]()  # first and last byte, in order

    def fresh(self, size: int) -> np.ndarray:
        made = self._gpu.pinned((size,), "uint8")
        insort(self._pieces, (made.ctypes.data, made.ctypes.data + size))
        return made

    def holds(self, x: np.ndarray) -> bool:
        place = x.ctypes.data
        before = bisect_right(self._pieces, (place, sys.maxsize))
        return before > 0 and place + x.nbytes <= self._pieces[before - 1][1]


class _Waiting:
    """A module whose launches take NumPy's arrays and are waited for."""

    def __init__(self, gpu: Gpu, memory: PinnedMemory, module: Module) -> None:
        self._gpu, self._memory, self._module = gpu, memory, module

    def get_function(self, name: str) -> Callable[..., None]:
        launch = self._module.get_function(name)

        def run(grid: Any, block: Any, arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            lent: list[tuple[np.ndarray, np.ndarray]] = []
            launch(grid, block, tuple(self._passed(each, lent) for each in arguments), shared_mem=shared_mem)
            self._gpu._wait()
            for original, copy in lent:
                if original.flags.writeable:
                    original[...] = copy

        return run

    def _passed(self, argument: Any, lent: list[tuple[np.ndarray, np.ndarray]]) -> Any:
        """A number as it is, and of an array its address; a test's own array is copied to where the GPU reaches it."""
        if not isinstance(argument, np.ndarray):
            return argument
        if argument.nbytes and not self._memory.holds(argument):
            copy = self._gpu.pinned(argument.shape, str(argument.dtype))
            copy[...] = argument
            lent.append((argument, copy))
            argument = copy
        return np.uint64(argument.ctypes.data)

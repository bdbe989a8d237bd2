"""A device made of NumPy and fibers, which replaces the GPU and CuPy.

Owns: launching and recording. As on a GPU, nothing runs during a capture, and all memory is that of the graph.
Refuses to know: operations. Specs: CUDA-14, CUDA-15. Next: `ferrum.testing.cuda_shim.backend`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager
from typing import Any

import numpy as np

from ferrum.backends.cuda.device import Array, NotCapturable
from ferrum.backends.cuda.graphs import Arena, Meter, NoArrays, scratch
from ferrum.backends.cuda.launch import Kernels, Module
from ferrum.tensor.ops import Shape, host_dtype
from ferrum.testing.cuda_shim.memory import POISON, Memory
from ferrum.testing.cuda_shim.module import ShimModule

Launch = Callable[[], None]


class ShimDevice:
    """Implements `ferrum.backends.cuda.device.Device`."""

    processors = 4

    def __init__(self, seed: int = 1, captures_products: bool = False) -> None:
        """seed: of the order in which threads run. captures_products: True if a graph can contain `product`."""
        self.kernels = Kernels(self._load)
        self.launches = 0
        self._seed, self._captures_products = seed, captures_products
        self._memory = Memory()
        self._recorded: list[Launch] | None = None
        self._arena: Arena | None = None
        self._meter = Meter()
        self._late: list[Launch] = []

    @property
    def xp(self) -> Any:
        return np if self._recorded is None else NoArrays()

    @property
    def capturing(self) -> bool:
        return self._recorded is not None

    def empty(self, shape: Shape, dtype: str) -> Array:
        if self._arena is not None:
            return self._arena.empty(shape, dtype)
        self._meter.count(shape, dtype)
        return self._memory.array(shape, dtype)

    def scratch(self) -> AbstractContextManager[None]:
        return scratch(self._meter if self._arena is None else self._arena)

    def upload(self, values: np.ndarray) -> Array:
        self._not_recording("a host array")
        array = self._memory.array(values.shape, str(values.dtype))
        array[...] = values
        return array

    def download(self, x: Array) -> np.ndarray:
        self._not_recording("a copy to the host")
        return np.array(x)

    def product(self, x: Array, weight: Array) -> Array:
        if self._recorded is not None and not self._captures_products:
            raise NotCapturable("a product of many tokens")
        out = self.empty((x.shape[0], weight.shape[0]), "float32")

        def run() -> None:
            out[...] = x.astype(np.float32) @ weight.astype(np.float32).T

        self._launch(run)
        return out

    def address(self, x: Array) -> int:
        return int(x.ctypes.data)

    def pinned(self, shape: Shape, dtype: str) -> np.ndarray:
        return np.empty(shape, host_dtype(dtype))

    def store(self, x: Array, places: np.ndarray, rows: Sequence[int]) -> None:
        """Copies as late as allowed, at the next `fetch`: until then `places` has its old content."""
        self._not_recording("a copy to the host")
        values = np.array(x)
        self._late.append(lambda: places.__setitem__(list(rows), values))

    def fetch(self, places: np.ndarray, rows: Sequence[int]) -> Array:
        self._not_recording("a host array")
        for copy in self._late:
            copy()
        self._late.clear()
        return self.upload(places[list(rows)])

    def memory(self) -> tuple[int, int]:
        return 1 << 30, 1 << 30

    def capture(self, run: Callable[[], Array]) -> tuple[ShimGraph, Array]:
        self._meter = Meter()
        run()
        owned = self._memory.array((self._meter.most,), "uint8")
        self._recorded, self._arena = [], Arena(owned)
        try:
            result = run()
            return ShimGraph(self._recorded, owned, self._memory), result
        finally:
            self._recorded = self._arena = None

    def _load(self, text: str, options: tuple[str, ...]) -> Module:
        return _Launched(self, ShimModule(text, options, self._seed))

    def _launch(self, run: Launch) -> None:
        self.launches += 1
        if self._recorded is None:
            run()
            self._memory.check()
        else:
            self._recorded.append(run)

    def _not_recording(self, operation: str) -> None:
        if self._recorded is not None:
            raise NotCapturable(operation)


class _Launched:
    """A module whose kernels a device launches or records."""

    def __init__(self, device: ShimDevice, module: ShimModule) -> None:
        self._device, self._module = device, module

    def get_function(self, name: str) -> Callable[..., None]:
        run = self._module.get_function(name)

        def launch(*facts: Any, **options: Any) -> None:
            self._device._launch(lambda: run(*facts, **options))

        return launch


class ShimGraph:
    """The launches of a capture. Before each run its memory is filled with NaN, so no run can read results of
    another."""

    def __init__(self, launches: list[Launch], owned: np.ndarray, memory: Memory) -> None:
        self._launches, self._owned, self._memory = launches, owned, memory

    def launch(self) -> None:
        self._owned.fill(POISON)
        for run in self._launches:
            run()
        self._memory.check()

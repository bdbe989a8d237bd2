"""A GPU, by way of CuPy: memory, copies, launches and graphs.

Owns: the order of things. All work goes to the null stream, one after the other; a capture has a stream of its own, and
its graph is launched on the null stream like everything else. Host arrays are copied through pinned memory, which stays
as it is until the device has read it. Several threads may call, one at a time.
Refuses to know: operations.
Specs: CUDA-05, CUDA-06, CUDA-08, CUDA-09. Source: the CUDA C++ programming guide on streams and graphs.
Next: `ferrum.kv.eviction`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, suppress
from typing import Any

import numpy as np

from ferrum.backends.cuda.cubins import Cubins
from ferrum.backends.cuda.device import Array, NotCapturable
from ferrum.backends.cuda.failures import Told, failures_told, is_cuda_error
from ferrum.backends.cuda.graphs import Arena, Meter, NoArrays, scratch
from ferrum.backends.cuda.launch import Kernels, Module
from ferrum.backends.cuda.matrices import Matrices
from ferrum.backends.cuda.probe import check
from ferrum.backends.cuda.swaps import NULL_STREAM, Swaps
from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.tensor.ops import Shape, host_dtype

STAGED = 16 << 20
"""Bytes up to which a copy goes through pinned memory of its own; of larger ones the driver takes care."""
MOST_STAGED = 64 << 20
"""Bytes of pinned memory that may wait for the device to read them."""


class GpuDevice:
    """Implements `ferrum.backends.cuda.device.Device`."""

    @failures_told
    def __init__(self, number: int = 0) -> None:
        """Raises BackendError where there is no such device, or something else is missing."""
        check(number)
        import cupy

        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self.number = number
        self._told = Told(cupy)
        self._be_current()
        self.processors = int(self._runtime.deviceGetAttribute(self._runtime.cudaDevAttrMultiProcessorCount, number))
        self._cubins = Cubins(cupy.cuda.nvrtc, cupy.cuda.Device(number).compute_capability)
        self.kernels = Kernels(self._load)
        self._capturing_stream = cupy.cuda.Stream(non_blocking=True)
        self._matrices: Matrices | None = None
        self._swaps = Swaps(cupy)
        self._staging: list[np.ndarray] = []
        self._arena: Arena | None = None
        self._meter = Meter()

    @property
    def xp(self) -> Any:
        if self._arena is not None:
            return NoArrays()
        self._be_current()
        return self._told

    @property
    def capturing(self) -> bool:
        return self._arena is not None

    @failures_told
    def empty(self, shape: Shape, dtype: str) -> Array:
        if self._arena is not None:
            return self._arena.empty(shape, dtype)
        self._meter.count(shape, dtype)
        return self._allocated(shape, dtype)

    def scratch(self) -> AbstractContextManager[None]:
        return scratch(self._meter if self._arena is None else self._arena)

    @failures_told
    def upload(self, values: np.ndarray) -> Array:
        self._not_capturing("a host array")
        array = self._allocated(values.shape, str(values.dtype))
        if not values.nbytes:
            return array
        to_device = self._runtime.memcpyHostToDevice
        if values.nbytes > STAGED:
            whole = np.ascontiguousarray(values)
            self._runtime.memcpy(array.data.ptr, whole.ctypes.data, whole.nbytes, to_device)  # returns when it is read
            return array
        staged = self.pinned(values.shape, str(values.dtype))
        staged[...] = values
        self._runtime.memcpyAsync(array.data.ptr, staged.ctypes.data, staged.nbytes, to_device, NULL_STREAM)
        self._staging.append(staged)
        if sum(each.nbytes for each in self._staging) > MOST_STAGED:
            self._wait()
        return array

    @failures_told
    def download(self, x: Array) -> np.ndarray:
        self._not_capturing("a copy to the host")
        self._be_current()
        x = self._whole(x)
        dtype = str(x.dtype)
        found = self.pinned(x.shape, dtype) if x.nbytes <= STAGED else np.empty(x.shape, host_dtype(dtype))
        if x.nbytes:
            to_host = self._runtime.memcpyDeviceToHost
            self._runtime.memcpyAsync(found.ctypes.data, x.data.ptr, x.nbytes, to_host, NULL_STREAM)
        self._wait()
        return found

    @failures_told
    def product(self, x: Array, weight: Array) -> Array:
        if self._matrices is None:
            self._not_capturing("the first product")
            self._be_current()
            self._matrices = Matrices(self, self._capturing_stream)
        out = self.empty((x.shape[0], weight.shape[0]), "float32")
        self._be_current()
        self._matrices.product(x, weight, out, captured=self._arena is not None)
        return out

    def address(self, x: Array) -> int:
        return int(x.data.ptr)

    @failures_told
    def pinned(self, shape: Shape, dtype: str) -> np.ndarray:
        kind = host_dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if not size:
            return np.empty(shape, kind)
        self._be_current()
        if size > STAGED:  # CuPy's pool would pin the next power of two, and keep it
            memory = self._cupy.cuda.PinnedMemoryPointer(self._cupy.cuda.pinned_memory.PinnedMemory(size), 0)
        else:
            memory = self._cupy.cuda.alloc_pinned_memory(size)  # goes back to the pool with the last view of it
        return np.frombuffer(memory, np.uint8, size).view(kind).reshape(shape)

    @failures_told
    def store(self, x: Array, places: np.ndarray, rows: Sequence[int]) -> None:
        self._not_capturing("a copy to the host")
        self._be_current()
        copy = self._allocated(x.shape, str(x.dtype))  # x may change, and this copy is not seen by anybody
        kind, x = self._runtime.memcpyDeviceToDevice, self._whole(x)
        self._runtime.memcpyAsync(copy.data.ptr, x.data.ptr, x.nbytes, kind, NULL_STREAM)
        self._swaps.store(copy, places, rows)

    @failures_told
    def fetch(self, places: np.ndarray, rows: Sequence[int]) -> Array:
        self._not_capturing("a host array")
        x = self._allocated((len(rows), *places.shape[1:]), str(places.dtype))
        self._swaps.fetch(places, rows, x)
        return x

    @failures_told
    def memory(self) -> tuple[int, int]:
        self._be_current()
        free, whole = self._runtime.memGetInfo()
        return int(free + self._cupy.get_default_memory_pool().free_bytes()), int(whole)

    @failures_told
    def capture(self, run: Callable[[], Array]) -> tuple[GpuGraph, Array]:
        self._meter = Meter()
        try:
            run()
            arena = Arena(self._allocated((self._meter.most,), "uint8"))
        except (MemoryError, ResourceExhausted) as error:
            raise NotCapturable(f"{self._meter.most} bytes, which the GPU does not have") from error
        self._arena = arena
        try:
            recorded, result = self.record(run)
        finally:
            self._arena = None
        return GpuGraph(self, recorded, arena), result

    def record(self, run: Callable[[], Array]) -> tuple[Any, Array]:
        """What `run` launches, without running it -> CuPy's graph, and what `run` returned. Raises NotCapturable where
        the device refuses."""
        self._be_current()
        stream = self._capturing_stream
        try:
            with stream:
                stream.begin_capture(self._runtime.streamCaptureModeRelaxed)
                try:
                    result = run()
                except BaseException:
                    with suppress(Exception):  # what was recorded so far is of no use, and may be no graph
                        stream.end_capture()
                    raise
                return stream.end_capture(), result
        except NotCapturable:
            raise
        except Exception as error:
            if isinstance(error, (DeviceError, ResourceExhausted)) or is_cuda_error(error):
                raise NotCapturable(f"what the device refuses: {error}") from error
            raise

    @failures_told
    def replay(self, recorded: Any) -> None:
        """Runs CuPy's graph after all that was launched before."""
        self._be_current()
        recorded.launch(self._cupy.cuda.Stream.null)

    def _load(self, text: str, options: tuple[str, ...]) -> Module:
        return _Loaded(self, self._cubins.get(text, options))

    def _allocated(self, shape: Shape, dtype: str) -> Array:
        self._be_current()
        return self._cupy.empty(shape, host_dtype(dtype))

    def _whole(self, x: Array) -> Array:
        """x without gaps."""
        return x if x.flags.c_contiguous else self._cupy.ascontiguousarray(x)

    def _wait(self) -> None:
        """Until all that was launched is done."""
        self._runtime.streamSynchronize(NULL_STREAM)
        self._staging.clear()

    def _be_current(self) -> None:
        """CUDA keeps the number of the device for each thread."""
        if self._runtime.getDevice() != self.number:
            self._runtime.setDevice(self.number)

    def _not_capturing(self, what: str) -> None:
        if self._arena is not None:
            raise NotCapturable(what)


class _Loaded:
    """Kernels on a device."""

    @failures_told
    def __init__(self, device: GpuDevice, machine_code: bytes) -> None:
        device._be_current()
        self._device, self._module = device, device._cupy.cuda.function.Module()
        self._module.load(machine_code)

    @failures_told
    def get_function(self, name: str) -> Callable[..., None]:
        launch, be_current = self._module.get_function(name), self._device._be_current

        @failures_told
        def run(grid: Shape, block: Shape, arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            be_current()
            launch(grid, block, arguments, shared_mem)

        return run


class GpuGraph:
    """Launches that were recorded, and the memory that they use."""

    def __init__(self, device: GpuDevice, recorded: Any, arena: Arena) -> None:
        self._device, self._recorded, self._arena = device, recorded, arena

    def launch(self) -> None:
        self._device.replay(self._recorded)

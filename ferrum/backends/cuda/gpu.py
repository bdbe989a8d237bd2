"""A GPU through CuPy: memory, copies, launches and graphs.

Owns: the order of work. All work runs on the null stream, in order. A capture uses a stream of its own, and its graph
is launched on the null stream. Host arrays are copied through pinned memory, which is not changed until the device has
read it. Several threads may call, but only one at a time.
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
from ferrum.backends.cuda.failures import TranslatingModule, is_cuda_error, translating_errors
from ferrum.backends.cuda.graphs import Arena, Meter, NoArrays, scratch
from ferrum.backends.cuda.launch import Kernels, Module
from ferrum.backends.cuda.matrices import Matrices
from ferrum.backends.cuda.probe import check
from ferrum.backends.cuda.swaps import NULL_STREAM, Swaps
from ferrum.errors import DeviceError, ResourceExhausted
from ferrum.tensor.ops import Shape, host_dtype

STAGED = 16 << 20
"""Most bytes of a copy through our own pinned memory; for larger ones the driver provides it."""
MOST_STAGED = 64 << 20
"""Most bytes of pinned memory that the device has not read yet."""


class GpuDevice:
    """Implements `ferrum.backends.cuda.device.Device`."""

    @translating_errors
    def __init__(self, number: int = 0) -> None:
        """Raises BackendError if there is no such device, or if a library is missing."""
        check(number)
        import cupy

        self._cupy, self._runtime = cupy, cupy.cuda.runtime
        self.number = number
        self._xp = TranslatingModule(cupy)
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
        return self._xp

    @property
    def capturing(self) -> bool:
        return self._arena is not None

    @translating_errors
    def empty(self, shape: Shape, dtype: str) -> Array:
        if self._arena is not None:
            return self._arena.empty(shape, dtype)
        self._meter.count(shape, dtype)
        return self._allocated(shape, dtype)

    def scratch(self) -> AbstractContextManager[None]:
        return scratch(self._meter if self._arena is None else self._arena)

    @translating_errors
    def upload(self, values: np.ndarray) -> Array:
        self._not_capturing("a host array")
        array = self._allocated(values.shape, str(values.dtype))
        if not values.nbytes:
            return array
        to_device = self._runtime.memcpyHostToDevice
        if values.nbytes > STAGED:
            whole = np.ascontiguousarray(values)
            self._runtime.memcpy(array.data.ptr, whole.ctypes.data, whole.nbytes, to_device)  # returns after the copy
            return array
        staged = self.pinned(values.shape, str(values.dtype))
        staged[...] = values
        self._runtime.memcpyAsync(array.data.ptr, staged.ctypes.data, staged.nbytes, to_device, NULL_STREAM)
        self._staging.append(staged)
        if sum(each.nbytes for each in self._staging) > MOST_STAGED:
            self._wait()
        return array

    @translating_errors
    def download(self, x: Array) -> np.ndarray:
        self._not_capturing("a copy to the host")
        self._be_current()
        x = self._whole(x)
        dtype = str(x.dtype)
        out = self.pinned(x.shape, dtype) if x.nbytes <= STAGED else np.empty(x.shape, host_dtype(dtype))
        if x.nbytes:
            to_host = self._runtime.memcpyDeviceToHost
            self._runtime.memcpyAsync(out.ctypes.data, x.data.ptr, x.nbytes, to_host, NULL_STREAM)
        self._wait()
        return out

    @translating_errors
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

    @translating_errors
    def pinned(self, shape: Shape, dtype: str) -> np.ndarray:
        kind = host_dtype(dtype)
        size = math.prod(shape) * kind.itemsize
        if not size:
            return np.empty(shape, kind)
        self._be_current()
        if size > STAGED:  # CuPy's pool would allocate the next power of two, and keep it
            memory = self._cupy.cuda.PinnedMemoryPointer(self._cupy.cuda.pinned_memory.PinnedMemory(size), 0)
        else:
            memory = self._cupy.cuda.alloc_pinned_memory(size)  # returns to the pool when its last view is freed
        return np.frombuffer(memory, np.uint8, size).view(kind).reshape(shape)

    @translating_errors
    def store(self, x: Array, places: np.ndarray, rows: Sequence[int]) -> None:
        self._not_capturing("a copy to the host")
        self._be_current()
        copy = self._allocated(x.shape, str(x.dtype))  # a copy, because x may change before it is read
        kind, x = self._runtime.memcpyDeviceToDevice, self._whole(x)
        self._runtime.memcpyAsync(copy.data.ptr, x.data.ptr, x.nbytes, kind, NULL_STREAM)
        self._swaps.store(copy, places, rows)

    @translating_errors
    def fetch(self, places: np.ndarray, rows: Sequence[int]) -> Array:
        self._not_capturing("a host array")
        x = self._allocated((len(rows), *places.shape[1:]), str(places.dtype))
        self._swaps.fetch(places, rows, x)
        return x

    @translating_errors
    def memory(self) -> tuple[int, int]:
        self._be_current()
        free, whole = self._runtime.memGetInfo()
        return int(free + self._cupy.get_default_memory_pool().free_bytes()), int(whole)

    @translating_errors
    def capture(self, run: Callable[[], Array]) -> tuple[GpuGraph, Array]:
        self._meter = Meter()
        try:
            run()
            arena = Arena(self._allocated((self._meter.most,), "uint8"))
        except (MemoryError, ResourceExhausted) as error:
            raise NotCapturable(f"{self._meter.most} bytes of memory, which the GPU does not have") from error
        self._arena = arena
        try:
            recorded, result = self.record(run)
        finally:
            self._arena = None
        return GpuGraph(self, recorded, arena), result

    def record(self, run: Callable[[], Array]) -> tuple[Any, Array]:
        """Records the launches of `run` without running them -> the graph of CuPy, and the result of `run`. Raises
        NotCapturable if the device refuses."""
        self._be_current()
        stream = self._capturing_stream
        try:
            with stream:
                stream.begin_capture(self._runtime.streamCaptureModeRelaxed)
                try:
                    result = run()
                except BaseException:
                    with suppress(Exception):  # the incomplete recording is discarded, and may be invalid
                        stream.end_capture()
                    raise
                return stream.end_capture(), result
        except NotCapturable:
            raise
        except Exception as error:
            if isinstance(error, (DeviceError, ResourceExhausted)) or is_cuda_error(error):
                raise NotCapturable(f"the device refuses to record: {error}") from error
            raise

    @translating_errors
    def replay(self, recorded: Any) -> None:
        """Runs a graph of CuPy after all earlier launches."""
        self._be_current()
        recorded.launch(self._cupy.cuda.Stream.null)

    def _load(self, text: str, options: tuple[str, ...]) -> Module:
        return _Loaded(self, self._cubins.get(text, options))

    def _allocated(self, shape: Shape, dtype: str) -> Array:
        self._be_current()
        return self._cupy.empty(shape, host_dtype(dtype))

    def _whole(self, x: Array) -> Array:
        """x, contiguous."""
        return x if x.flags.c_contiguous else self._cupy.ascontiguousarray(x)

    def _wait(self) -> None:
        """Waits until all launches are done."""
        self._runtime.streamSynchronize(NULL_STREAM)
        self._staging.clear()

    def _be_current(self) -> None:
        """Selects the device for this thread: CUDA stores the selection for each thread."""
        if self._runtime.getDevice() != self.number:
            self._runtime.setDevice(self.number)

    def _not_capturing(self, what: str) -> None:
        if self._arena is not None:
            raise NotCapturable(what)


class _Loaded:
    """A compiled module on a device."""

    @translating_errors
    def __init__(self, device: GpuDevice, machine_code: bytes) -> None:
        device._be_current()
        self._device, self._module = device, device._cupy.cuda.function.Module()
        self._module.load(machine_code)

    @translating_errors
    def get_function(self, name: str) -> Callable[..., None]:
        launch, be_current = self._module.get_function(name), self._device._be_current

        @translating_errors
        def run(grid: Shape, block: Shape, arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            be_current()
            launch(grid, block, arguments, shared_mem)

        return run


class GpuGraph:
    """Recorded launches, and the memory that they use."""

    def __init__(self, device: GpuDevice, recorded: Any, arena: Arena) -> None:
        self._device, self._recorded, self._arena = device, recorded, arena

    def launch(self) -> None:
        self._device.replay(self._recorded)

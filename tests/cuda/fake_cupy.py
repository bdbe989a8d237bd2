"""A CuPy without a GPU that is as lazy as a real one: a launch runs when the host waits for it.

Owns: streams as queues, captures, and memory that is used again when it was given back. A copy from host memory that
has been given back meanwhile is an error.
"""

from __future__ import annotations

import ctypes
import sys
import threading
import weakref
from collections import deque
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from types import ModuleType, SimpleNamespace
from typing import Any

import numpy as np
import pytest

from ferrum.backends.cuda.gpu import GpuDevice
from tests.cuda.fake_cublas import FakeCublas

Work = Callable[[], None]


class CUDARuntimeError(RuntimeError):
    """As CuPy's."""


class OutOfMemoryError(MemoryError):
    """As CuPy's."""


class FakeArray(np.ndarray):
    """A device array: its address is `.data.ptr`, as CuPy has it."""

    @property
    def data(self) -> Any:  # type: ignore[override]
        return SimpleNamespace(ptr=self.ctypes.data)


class Graph:
    def __init__(self, machine: Machine, work: list[Work]) -> None:
        self._machine, self._work = machine, work

    def launch(self, stream: Any) -> None:
        self._machine.enqueue(lambda: [run() for run in self._work], stream.ptr)


class Event:
    """Done when the work before it on its stream is."""

    def __init__(self, machine: Machine) -> None:
        self.done, self._machine, self._stream = True, machine, 0

    def record(self, stream: int) -> None:
        self.done, self._stream = False, stream
        self._machine.queues[stream].append(lambda: setattr(self, "done", True))

    def synchronize(self) -> None:
        while not self.done:
            self._machine.queues[self._stream].popleft()()


class Stream:
    """`null` is made by the machine."""

    def __init__(self, machine: Machine, ptr: int) -> None:
        self.ptr, self._machine = ptr, machine

    def __enter__(self) -> Stream:
        self._machine.current.append(self.ptr)
        return self

    def __exit__(self, *_: Any) -> None:
        self._machine.current.pop()

    def record(self, event: Event) -> Event:
        event.record(self.ptr)
        return event

    def synchronize(self) -> None:
        self._machine.wait(self.ptr)

    def wait_event(self, event: Event) -> None:
        self._machine.enqueue(event.synchronize, self.ptr)

    def begin_capture(self, mode: int) -> None:
        assert self.ptr and mode == 2, "only a stream of its own is captured, in relaxed mode"
        assert self._machine.captured is None
        self._machine.captured, self._machine.capturing = [], self.ptr
        self._machine.invalid = False

    def end_capture(self) -> Graph:
        work, self._machine.captured, self._machine.capturing = self._machine.captured, None, 0
        if self._machine.invalid:
            raise CUDARuntimeError("cudaErrorStreamCaptureInvalidated: operation failed due to a previous error")
        assert work is not None
        return Graph(self._machine, work)


class Machine:
    """The device. `kernels`: by name, called with the arguments of a launch."""

    def __init__(self, devices: int = 1) -> None:
        self.devices = devices
        self.kernels: dict[str, Callable[..., None]] = {}
        self.queues: dict[int, deque[Work]] = {0: deque()}
        self.held: list[np.ndarray] = []  # memory stays: what CuPy frees is used again, by later work
        self.captured: list[Work] | None = None
        self.capturing = 0
        self.invalid = False
        self.current = [0]
        self.is_prompt = False  # do other streams than the null stream run as soon as they may?
        self.given_back = 0
        self.pinned: dict[int, int] = {}
        self.memory_left = 1 << 32
        self.compiled: list[tuple[str, tuple[str, ...]]] = []
        self.waits = 0
        self.fail_next: Exception | None = None
        self.local = threading.local()
        self.used_by: list[tuple[int, int]] = []
        self.blas = FakeCublas(self)

    # ---- streams
    def enqueue(self, run: Work, stream: int | None = None, kernel: bool = False) -> None:
        self.used_by.append((threading.get_ident(), self.device()))
        if self.fail_next is not None:
            error, self.fail_next = self.fail_next, None
            raise error
        stream = self.current[-1] if stream is None else stream
        if stream and stream == self.capturing:
            assert self.captured is not None
            self.captured.append(run)
        else:
            assert stream == 0 or kernel is False, "all eager kernels belong to the null stream"
            self.queues[stream].append(run)
            while stream and self.is_prompt and self.queues[stream]:
                self.queues[stream].popleft()()

    def forbid_in_capture(self) -> None:
        if self.capturing and self.current[-1] == self.capturing:
            self.invalid = True
            raise CUDARuntimeError(
                "cudaErrorStreamCaptureUnsupported: operation not permitted when stream is capturing"
            )

    def wait(self, stream: int = 0) -> None:
        self.forbid_in_capture()
        self.waits += 1
        while self.queues[stream]:
            self.queues[stream].popleft()()

    # ---- memory
    def device(self) -> int:
        return getattr(self.local, "device", 0)

    def empty(self, shape: Any, dtype: Any) -> FakeArray:
        self.forbid_in_capture()
        array = np.empty(shape, dtype)
        if array.nbytes > self.memory_left:
            raise OutOfMemoryError(f"Out of memory allocating {array.nbytes:,} bytes")
        if array.nbytes <= 1 << 20:
            array.reshape(-1).view(np.uint8).fill(0xFF)
        self.held.append(array)
        made = array.view(FakeArray)
        weakref.finalize(made, self._use_again, array)
        return made

    def _use_again(self, memory: np.ndarray) -> None:
        self.given_back += 1
        if memory.nbytes <= 1 << 20:
            self.queues[0].append(lambda: memory.reshape(-1).view(np.uint8).fill(0xAA))

    def alloc_pinned_memory(self, size: int) -> Any:
        memory = (ctypes.c_char * (-(-size // 512) * 512))()
        place = ctypes.addressof(memory)
        self.pinned[place] = size
        weakref.finalize(memory, self.pinned.pop, place)
        return memory

    def memcpy(self, to: int, source: int, size: int, kind: int) -> None:
        self.wait()
        ctypes.memmove(to, source, size)

    def memcpy_async(self, to: int, source: int, size: int, kind: int, stream: int) -> None:
        self.forbid_in_capture()
        if kind == 3:
            self.enqueue(lambda: ctypes.memmove(to, source, size) and None, stream, kernel=True)
            return
        host = {1: source, 2: to}[kind]
        if self._is_pinned(host, size):
            self.enqueue(lambda: self._copy_pinned(host, to, source, size), stream)
        elif stream == 0:  # CUDA waits, too, where the host memory is not pinned
            self.wait()
            ctypes.memmove(to, source, size)

    def _is_pinned(self, place: int, size: int) -> bool:
        return any(start <= place and place + size <= start + length for start, length in self.pinned.items())

    def _copy_pinned(self, host: int, to: int, source: int, size: int) -> None:
        assert self._is_pinned(host, size), "the host memory of a copy was given back before the copy was made"
        ctypes.memmove(to, source, size)

    # ---- the modules
    def cupy(self) -> ModuleType:
        cupy = ModuleType("cupy")
        function = SimpleNamespace(Module=lambda: FakeModule(self))
        cuda = SimpleNamespace(
            runtime=self._runtime(), nvrtc=self._nvrtc(), function=function, Stream=self._streams(),
            Event=lambda disable_timing: Event(self),
            Device=lambda number: SimpleNamespace(compute_capability="90"),
            alloc_pinned_memory=self.alloc_pinned_memory, PinnedMemoryPointer=lambda memory, offset: memory,
            pinned_memory=SimpleNamespace(PinnedMemory=self.alloc_pinned_memory),
        )  # fmt: skip
        vars(cupy).update(
            __version__="14.2.0", cuda=cuda, empty=self.empty, __spec__=SimpleNamespace(),
            ascontiguousarray=lambda x: self._contiguous(x),
            get_default_memory_pool=lambda: SimpleNamespace(free_bytes=lambda: 1000),
        )  # fmt: skip
        return cupy

    def _contiguous(self, x: FakeArray) -> FakeArray:
        out = self.empty(x.shape, x.dtype)

        def copy() -> None:
            out[...] = x

        self.enqueue(copy, kernel=True)
        return out

    def _streams(self) -> Any:
        def make(non_blocking: bool) -> Stream:
            assert non_blocking
            made = Stream(self, 70 + len(self.queues))
            self.queues[made.ptr] = deque()
            return made

        make.null = Stream(self, 0)  # type: ignore[attr-defined]
        return make

    def _runtime(self) -> Any:
        def set_device(number: int) -> None:
            self.local.device = number

        return SimpleNamespace(
            driverGetVersion=lambda: 13000, runtimeGetVersion=lambda: 13000, is_hip=False,
            getDeviceCount=lambda: self.devices, getDevice=self.device, setDevice=set_device,
            deviceGetAttribute=lambda attribute, _: {16: 132}[attribute], cudaDevAttrMultiProcessorCount=16,
            CUDARuntimeError=CUDARuntimeError, memcpyHostToDevice=1, memcpyDeviceToHost=2, memcpyDeviceToDevice=3,
            streamCaptureModeRelaxed=2,
            memcpy=self.memcpy, memcpyAsync=self.memcpy_async, streamSynchronize=self.wait,
            memGetInfo=lambda: (5000, 9000),
        )  # fmt: skip

    def _nvrtc(self) -> Any:
        def compile_program(program: list[Any], options: tuple[str, ...]) -> None:
            program[1] = options
            self.compiled.append((program[0], options))

        return SimpleNamespace(
            getVersion=lambda: (13, 0), createProgram=lambda text, *_: [text, ()], compileProgram=compile_program,
            getCUBIN=lambda program: program[0].encode(), getProgramLog=lambda _: "", destroyProgram=lambda _: None,
            NVRTCError=type("NVRTCError", (RuntimeError,), {}),
        )  # fmt: skip


class FakeModule:
    def __init__(self, machine: Machine) -> None:
        self._machine = machine

    def load(self, code: bytes) -> None:
        assert isinstance(code, bytes)

    def get_function(self, name: str) -> Callable[..., None]:
        def launch(grid: Any, block: Any, arguments: tuple[Any, ...], shared_mem: int) -> None:
            assert len(grid) == len(block) == 3
            self._machine.enqueue(lambda: self._machine.kernels[name](*arguments), kernel=True)

        return launch


@contextmanager
def installed(machine: Machine) -> Iterator[Machine]:
    """`import cupy` gives this machine's."""
    with pytest.MonkeyPatch.context() as patch:
        cupy = machine.cupy()
        patch.setitem(sys.modules, "cupy", cupy)
        patch.setitem(sys.modules, "cupy_backends.cuda.libs.cublas", ModuleType("cublas"))
        patch.setitem(sys.modules, "cupy_backends.cuda.libs.nvrtc", cupy.cuda.nvrtc)
        patch.setattr("ferrum.backends.cuda.matrices.load_cublas", lambda: _prepared(machine))
        yield machine


def _prepared(machine: Machine) -> Any:
    from ferrum.backends.cuda.cublas import prepared

    return prepared(machine.blas)


BLOCK = (32, 1, 1)


def device_of(machine: Machine, number: int = 0) -> GpuDevice:
    """A device with two kernels: `double` x in place, and `copy` x to y."""

    def double(x: np.ndarray) -> None:
        x *= 2

    def copy(x: np.ndarray, y: np.ndarray) -> None:
        y[...] = x

    machine.kernels = {"double": double, "copy": copy}
    return GpuDevice(number)


def launch(device: GpuDevice, name: str, *arguments: Any) -> None:
    device._load(f"the text of {name}", ()).get_function(name)((1, 1, 1), BLOCK, arguments, shared_mem=0)

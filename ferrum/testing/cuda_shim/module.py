"""CUDA kernels compiled for the CPU, which fibers run; launched like kernels on a GPU.

Owns: the functions added to a CUDA source so that Python can call its kernels, the limits of a launch, the messages of
errors in a launch, and the order of threads: each launch has its own seed, which follows from that of the device.
Refuses to know: what a kernel computes.
Specs: CUDA-10 to CUDA-13. Next: `ferrum.testing.cuda_shim.memory`.
"""

from __future__ import annotations

import ctypes
import math
import os
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np

from ferrum.backends.cuda.source import Parameter, signatures
from ferrum.errors import DeviceError
from ferrum.testing.cuda_shim.compiler import compiled

FAULTS = (
    "",
    "there is no memory for its threads",
    "a lane waits for one that waits elsewhere",
    "some threads ended without coming to the barrier at which others wait",
    "threads wait at different barriers",
    "a lane waits for one that has ended",
    "lanes that wait for each other stand at different lines or name different lanes",
    "a lane takes part in a shuffle that is not for it, or reads from one that takes no part",
    "it wrote beyond the end of its dynamic shared memory",
    "a thread needs more stack than there is",
    "a thread reads or writes where no memory is",
    "an address is not aligned for what is read or written there",
    "an index lies outside its array",
    "an integer overflowed",
    "a shift by more bits than there are",
    "an integer was divided by zero",
)
"""Messages, by the numbers in `fibers.h`."""
LARGEST_GRID = (2**31 - 1, 2**16 - 1, 2**16 - 1)
LARGEST_BLOCK = (1024, 1024, 64)
MOST_THREADS = 1024
MOST_SHARED = 48 << 10
"""Limits of a launch that every GPU supports."""


class ShimModule:
    """The kernels of a source. `without`: the line of a barrier that does nothing, for tests of the barrier."""

    def __init__(self, text: str, options: tuple[str, ...] = (), seed: int = 1, without: int = 0) -> None:
        self._lines = text.splitlines()
        self._library = _loaded(text, options)
        self._seed, self._without = seed, without

    def get_function(self, name: str) -> Callable[..., None]:
        entry = ctypes.cast(getattr(self._library, f"{name}_entry"), ctypes.c_void_p)

        def run(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            _check(name, grid, block, shared_mem)
            values = [_value(each) for each in arguments]
            places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            self._seed += 1
            sizes = ((ctypes.c_uint * 3)(*size) for size in (grid, block))
            seed, shared = ctypes.c_uint64(self._seed), ctypes.c_uint(shared_mem)
            status = self._library.shim_launch(entry, places, *sizes, shared, seed, ctypes.c_int(self._without))
            if status:
                raise DeviceError(self._sentence(name, status & 255, status >> 8))

        return run

    def _sentence(self, name: str, fault: int, line: int) -> str:
        place = f", at `{self._lines[line - 1].strip()}`" if 0 < line <= len(self._lines) else ""
        return f"kernel {name}: {FAULTS[fault]}{place}"


def _check(name: str, grid: tuple[int, ...], block: tuple[int, ...], shared: int) -> None:
    """Raises DeviceError for a launch that a GPU cannot run, or whose blocks do not consist of whole warps (our own
    rule)."""
    threads = math.prod(block)
    if threads % 32 or not 0 < threads <= MOST_THREADS or any(map(int.__gt__, block, LARGEST_BLOCK)):
        raise DeviceError(f"kernel {name}: a block of {block} threads")
    if any(size < 1 or size > limit for size, limit in zip(grid, LARGEST_GRID, strict=True)):
        raise DeviceError(f"kernel {name}: a grid of {grid} blocks")
    if not 0 <= shared <= MOST_SHARED:
        raise DeviceError(f"kernel {name}: {shared} bytes of dynamic shared memory")


@cache
def _loaded(text: str, options: tuple[str, ...]) -> ctypes.CDLL:
    """Loads the library from memory and not from a file that another process could replace."""
    entries = "".join(_entry(name, parameters) for name, parameters in signatures(text).items())
    library = compiled(f'#include "shim.h"\n#line 1\n{text}\n{entries}', options)
    number = os.memfd_create("ferrum-shim", os.MFD_CLOEXEC)
    try:
        with open(number, "wb", closefd=False) as file:
            file.write(library)
        with tempfile.TemporaryDirectory() as place:  # a unique name: the loader identifies libraries by their names
            link = Path(place) / "kernels.so"
            link.symlink_to(f"/proc/self/fd/{number}")
            return ctypes.CDLL(str(link))
    finally:
        os.close(number)


def _entry(name: str, parameters: tuple[Parameter, ...]) -> str:
    types = (f"{each.type}{'*' if each.is_pointer else ''}" for each in parameters)
    passed = ", ".join(f"*({kind}*)a[{index}]" for index, kind in enumerate(types))
    return f'extern "C" void {name}_entry(void** a) {{ {name}({passed}); }}\n'


def _value(argument: Any) -> Any:
    """The value of a parameter in memory: the address of an array, or a number."""
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return (ctypes.c_char * argument.nbytes).from_buffer_copy(argument.tobytes())

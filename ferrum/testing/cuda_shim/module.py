"""Kernels compiled for the CPU: the call shape of `cupy.RawModule`, with fibers instead of a GPU.

Owns: adding to a CUDA source what lets Python call its kernels, the C++ compiler, and the order of threads: each launch
has a seed of its own, which follows from the first. Refuses to know: what a kernel computes.
Specs: CUDA-10 to CUDA-13. Next: `ferrum.testing.cuda_shim.device`.
"""

from __future__ import annotations

import ctypes
import hashlib
import shutil
import subprocess
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np

from ferrum.backends.cuda.source import Parameter, signatures
from ferrum.errors import DeviceError

HEADER = Path(__file__).with_name("shim.h")
FLAGS = ("-std=c++17", "-O2", "-fPIC", "-shared", "-fno-strict-aliasing", "-ffp-contract=off", "-w")
FAULTS = {
    1: "every thread waits, and none can go on",
    2: "some threads ended without coming to the barrier at which the others wait",
    3: "a shuffle waits for a lane that has ended",
}


def compiler() -> str | None:
    """The C++ compiler that is there, if one is."""
    return shutil.which("g++") or shutil.which("clang++")


class ShimModule:
    """The kernels of a text. Object files are kept for later processes: a text is compiled once."""

    def __init__(self, text: str, options: tuple[str, ...] = (), seed: int = 1) -> None:
        self.seed = seed
        defines = dict(option[2:].split("=", 1) for option in options if option.startswith("-D"))
        self._signatures = signatures(text, defines)
        whole = f'#include "{HEADER}"\n{text}\n' + "".join(
            _entry(name, parameters) for name, parameters in signatures(text).items()
        )
        self._library = ctypes.CDLL(str(_compiled(whole, options)))

    def get_function(self, name: str) -> Callable[..., None]:
        entry = ctypes.cast(getattr(self._library, f"{name}_entry"), ctypes.c_void_p)

        def run(grid: tuple[int, ...], block: tuple[int, ...], arguments: tuple[Any, ...], shared_mem: int = 0) -> None:
            values = [_value(each) for each in arguments]
            places = (ctypes.c_void_p * len(values))(*map(ctypes.addressof, values))
            self.seed += 1
            sizes = ((ctypes.c_uint * 3)(*size) for size in (grid, block))
            fault = self._library.shim_launch(
                entry, places, *sizes, ctypes.c_uint(shared_mem), ctypes.c_uint64(self.seed)
            )
            if fault:
                raise DeviceError(f"kernel {name}: {FAULTS[fault]}")

        return run


def _entry(name: str, parameters: tuple[Parameter, ...]) -> str:
    types = (f"{each.type}{'*' if each.is_pointer else ''}" for each in parameters)
    passed = ", ".join(f"*({kind}*)a[{index}]" for index, kind in enumerate(types))
    return f'extern "C" void {name}_entry(void** a) {{ {name}({passed}); }}\n'


def _value(argument: Any) -> Any:
    """What a parameter holds, in memory: the address of an array, or a number."""
    if isinstance(argument, np.ndarray):
        return ctypes.c_void_p(argument.ctypes.data)
    return (ctypes.c_char * argument.nbytes).from_buffer_copy(argument.tobytes())


def _compiled(text: str, options: tuple[str, ...]) -> Path:
    """The shared library of a text, made at most once for all processes of a user."""
    program = compiler()
    if program is None:
        raise DeviceError("kernels run on the CPU only where there is a C++ compiler: install g++")
    folder = Path(tempfile.gettempdir()) / f"ferrum-shim-{_user()}"
    folder.mkdir(mode=0o700, exist_ok=True)
    whole = "\0".join((program, HEADER.read_text(encoding="utf-8"), text, *FLAGS, *options))
    library = folder / f"{hashlib.sha256(whole.encode()).hexdigest()[:24]}.so"
    if not library.exists():
        with tempfile.TemporaryDirectory(dir=folder) as scratch:
            code, made = Path(scratch) / "kernels.cpp", Path(scratch) / "kernels.so"
            code.write_text(text, encoding="utf-8")
            command = [program, *FLAGS, *options, str(code), "-o", str(made)]
            done = subprocess.run(command, capture_output=True, text=True, check=False)
            if done.returncode:
                raise DeviceError(f"a kernel does not compile: {done.stderr.strip()[:2000]}")
            made.replace(library)
    return library


def _user() -> int:
    import os

    return os.getuid()

"""The compiler of CUDA, which needs no GPU: what it says of a source, and what a kernel then takes of a multiprocessor.

Owns: finding the library that the package nvidia-cuda-nvrtc brings, and reading the compiler's log.
Refuses to know: which sources there are, and what they may take. Next: `tests.cuda.make_budgets`.
"""

from __future__ import annotations

import ctypes
import re
from dataclasses import dataclass
from functools import cache
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path
from typing import Any

from ferrum.backends.cuda.cubins import OPTIONS

PACKAGES = ("nvidia-cuda-nvrtc", "nvidia-cuda-nvrtc-cu13", "nvidia-cuda-nvrtc-cu12")
REASON = "CUDA sources are compiled only where the package nvidia-cuda-nvrtc is installed"
REGISTERS = 65536
"""Of a multiprocessor; a warp gets them in pieces of 256."""

_KERNEL = re.compile(r"Compiling entry function '(\w+)' for '(sm_\w+)'(.*?)(?=Compiling entry function|\Z)", re.DOTALL)
_FACT = re.compile(r"ptxas info|(ptxas)?[ .]*\d+ bytes stack frame")
_SPILLS = re.compile(r"(\d+) bytes stack frame, (\d+) bytes spill stores, (\d+) bytes spill loads")


@dataclass(frozen=True)
class Needs:
    """What a kernel takes. `stack` and `spills`: bytes of memory of its own, which is as far away as any other."""

    registers: int
    shared: int
    stack: int
    spills: int

    def blocks(self, threads: int) -> int:
        """How many blocks of so many threads have registers on a multiprocessor at the same time."""
        warps = -(-threads // 32)
        return REGISTERS // (-(-self.registers * 32 // 256) * 256 * warps)


@cache
def find_library() -> Path | None:
    """Where libnvrtc is, if it is installed."""
    for package in PACKAGES:
        try:
            found = [Path(str(each.locate())) for each in files(package) or ()]
        except PackageNotFoundError:
            continue
        named = [path for path in found if re.fullmatch(r"libnvrtc\.so\.\d+", path.name)]
        if named:
            return named[0]
    return None


@cache
def _library() -> Any:
    path = find_library()
    assert path is not None, REASON
    for builtins in path.parent.glob("libnvrtc-builtins.so.*"):  # looked for by name, and not where the library is
        ctypes.CDLL(str(builtins))
    return ctypes.CDLL(str(path))


def version() -> str:
    """Of the compiler: another one may need other registers."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor))
    return f"{major.value}.{minor.value}"


def compiled(text: str, defines: tuple[tuple[str, str], ...], architecture: str) -> tuple[dict[str, Needs], str]:
    """-> what each kernel takes, and all that the compiler had to say besides. Raises ValueError with what it said
    where it refuses the text."""
    library, program = _library(), ctypes.c_void_p()
    options = [f"--gpu-architecture={architecture}", *OPTIONS, "--ptxas-options=-v"]
    options += [f"-D{name}={value}" for name, value in defines]
    encoded = (ctypes.c_char_p * len(options))(*(each.encode() for each in options))
    status = library.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"kernels.cu", 0, None, None)
    if status:
        raise ValueError(f"NVRTC fails with {status}")
    try:
        status = library.nvrtcCompileProgram(program, len(options), encoded)
        size = ctypes.c_size_t()
        library.nvrtcGetProgramLogSize(program, ctypes.byref(size))
        log = ctypes.create_string_buffer(size.value)
        library.nvrtcGetProgramLog(program, log)
    finally:
        library.nvrtcDestroyProgram(ctypes.byref(program))
    said = log.value.decode()
    if status:
        raise ValueError(said)
    return read(said)


def read(log: str) -> tuple[dict[str, Needs], str]:
    """What a log says of each kernel, and its other lines."""
    needs = {}
    for name, _, about in _KERNEL.findall(log):
        stack, stores, loads = (int(each) for each in _SPILLS.search(about).groups())  # type: ignore[union-attr]
        registers, shared = (_number(about, rf"(\d+) {what}") for what in ("registers", "bytes smem"))
        needs[name] = Needs(registers, shared, stack, stores + loads)
    return needs, "\n".join(line for line in log.splitlines() if line.strip() and not _FACT.match(line))


def _number(text: str, pattern: str) -> int:
    found = re.search(pattern, text)
    return int(found[1]) if found else 0

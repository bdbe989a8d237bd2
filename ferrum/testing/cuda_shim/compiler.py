"""Compilation of CUDA sources by a C++ compiler for the CPU, and the libraries that it has made.

Owns: making a shared library of a source that includes `shim.h`, once for all processes of a user. The library is code
that will be run, so it is kept and checked like CPU kernels: in the cache folder, private, with a digest. Refuses to
know: what is in the source.
Specs: CUDA-17. Next: `ferrum.testing.cuda_shim.module`.
"""

from __future__ import annotations

import hashlib
import shutil
import subprocess
import tempfile
from pathlib import Path

from ferrum.backends.numba_kernels.loading.cache import KernelFiles
from ferrum.errors import ConfigError, DeviceError
from ferrum.paths import cache_folder

FOLDER = Path(__file__).parent
HEADERS = ("fibers.h", "shim.h")
SEEN = "alignment,bounds,signed-integer-overflow,shift-exponent,integer-divide-by-zero"
"""Errors for which the compiler adds checks. `shim.h` defines the functions that the checks call."""
COMPILING = (
    "-std=c++17", "-O2", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-ftrivial-auto-var-init=pattern", "-w",
    f"-fsanitize={SEEN}", f"-I{FOLDER}", "-c", "-x", "c++", "-",
)  # fmt: skip
LINKING = ("-shared", "-Wl,-Bsymbolic")


def compiler() -> str | None:
    """The path of a C++ compiler; None if there is none."""
    return shutil.which("g++") or shutil.which("clang++")


def compiled(text: str, options: tuple[str, ...]) -> bytes:
    """The shared library of a source. Raises DeviceError if there is no compiler, or if the source does not compile."""
    program = compiler()
    if program is None:
        raise DeviceError("CUDA kernels run on the CPU only with a C++ compiler: install g++")
    made_with = _digest(program, *COMPILING, *LINKING, *map(_header, HEADERS))
    name = f"{_digest(text, *options)}.o"
    try:
        files = KernelFiles(cache_folder() / "shim" / made_with[:16])
    except ConfigError as error:
        files = KernelFiles(None, str(error))
    library = files.read(name)
    if library is None:
        library = _compile(program, text, options)
        files.write(name, library)
    return library


def _header(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _compile(program: str, text: str, options: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ferrum-shim-") as scratch:
        object_file, library = str(Path(scratch) / "kernels.o"), Path(scratch) / "kernels.so"
        _run((program, *COMPILING, *options, "-o", object_file), text)
        _run((program, *LINKING, object_file, "-o", str(library)))
        return library.read_bytes()


def _run(command: tuple[str, ...], text: str = "") -> None:
    process = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if process.returncode:
        raise DeviceError(f"a kernel does not compile: {process.stderr.strip()[:2000]}")

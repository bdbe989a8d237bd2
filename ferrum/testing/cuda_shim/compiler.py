"""The C++ compiler, and what it has made before.

Owns: making a shared library of a text that includes `shim.h`, once for all processes of a user. What is kept is code
that will be run, so it is kept and trusted by the rules for the CPU's kernels: in the cache folder, private, with a
digest. Refuses to know: what is in the text.
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
"""What the compiler adds checks for; `shim.h` has what they call."""
COMPILING = (
    "-std=c++17", "-O2", "-fPIC", "-fno-strict-aliasing", "-ffp-contract=off", "-ftrivial-auto-var-init=pattern", "-w",
    f"-fsanitize={SEEN}", f"-I{FOLDER}", "-c", "-x", "c++", "-",
)  # fmt: skip
LINKING = ("-shared", "-Wl,-Bsymbolic")


def compiler() -> str | None:
    """The C++ compiler that is there, if one is."""
    return shutil.which("g++") or shutil.which("clang++")


def compiled(text: str, options: tuple[str, ...]) -> bytes:
    """The shared library of a text. Raises DeviceError where there is no compiler, or one that refuses the text."""
    program = compiler()
    if program is None:
        raise DeviceError("kernels run on the CPU only where there is a C++ compiler: install g++")
    made_with = _digest(program, *COMPILING, *LINKING, *map(_header, HEADERS))
    name = f"{_digest(text, *options)}.o"
    try:
        files = KernelFiles(cache_folder() / "shim" / made_with[:16])
    except ConfigError as error:
        files = KernelFiles(None, str(error))
    library = files.read(name)
    if library is None:
        library = _made(program, text, options)
        files.write(name, library)
    return library


def _header(name: str) -> str:
    return (FOLDER / name).read_text(encoding="utf-8")


def _digest(*texts: str) -> str:
    return hashlib.sha256("\0".join(texts).encode()).hexdigest()


def _made(program: str, text: str, options: tuple[str, ...]) -> bytes:
    with tempfile.TemporaryDirectory(prefix="ferrum-shim-") as scratch:
        object_file, library = str(Path(scratch) / "kernels.o"), Path(scratch) / "kernels.so"
        _run((program, *COMPILING, *options, "-o", object_file), text)
        _run((program, *LINKING, object_file, "-o", str(library)))
        return library.read_bytes()


def _run(command: tuple[str, ...], text: str = "") -> None:
    done = subprocess.run(command, input=text, capture_output=True, text=True, check=False)
    if done.returncode:
        raise DeviceError(f"a kernel does not compile: {done.stderr.strip()[:2000]}")

"""CUDA sources compiled for this GPU, and kept for later runs.

Owns: how the compiler is called. CuPy's own loader adds -ftz=true, with which a GPU treats float32 numbers below 1e-38
as zero. The definitions and the CPU do not, so the compiler is called here without this option. Machine code is kept
beside that of CPU kernels, with the same checks of its owner: it is code that will be run.
Refuses to know: launches.
Specs: CUDA-05. Next: `ferrum.backends.cuda.failures`.
"""

from __future__ import annotations

import hashlib
from typing import Any

from ferrum.backends.numba_kernels.loading.cache import KernelFiles
from ferrum.errors import ConfigError, DeviceError
from ferrum.paths import cache_folder

OPTIONS = ("--std=c++17", "--fmad=false")
"""The compiler combines a multiplication and an addition only where a kernel calls fmaf. So decoded weights have the
bits of their definition, and all results except those of exp, tanh and similar functions have the bits of the shim."""


class Cubins:
    """Machine code by its source and options. compiler: `cupy.cuda.nvrtc`."""

    def __init__(self, compiler: Any, capability: str) -> None:
        """capability: for example "90" for sm_90."""
        self._compiler = compiler
        self._options = (f"--gpu-architecture=sm_{capability}", *OPTIONS)
        major, minor = compiler.getVersion()
        made_by = hashlib.sha256(f"NVRTC {major}.{minor} {' '.join(self._options)}".encode()).hexdigest()[:16]
        try:
            self._files = KernelFiles(cache_folder() / "cuda" / made_by)
        except ConfigError as error:
            self._files = KernelFiles(None, str(error))

    def get(self, text: str, options: tuple[str, ...]) -> bytes:
        """The machine code of a source text. Raises DeviceError with the compiler's message if it does not compile."""
        name = hashlib.sha256("\0".join((text, *options)).encode()).hexdigest() + ".o"
        code = self._files.read(name)
        if code is None:
            code = self._compiled(text, options)
            self._files.write(name, code)
        return code

    def _compiled(self, text: str, options: tuple[str, ...]) -> bytes:
        program = self._compiler.createProgram(text, "kernels.cu", (), ())
        try:
            self._compiler.compileProgram(program, (*self._options, *options))
            return bytes(self._compiler.getCUBIN(program))
        except self._compiler.NVRTCError as error:
            said = self._compiler.getProgramLog(program).strip() or str(error)
            raise DeviceError(f"a kernel does not compile: {said[:2000]}") from error
        finally:
            self._compiler.destroyProgram(program)

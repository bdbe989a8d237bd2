"""CUDA sources compiled for the GPU at hand, and kept for later runs.

Owns: how the compiler is called. CuPy's own loader of sources appends -ftz=true, with which a GPU takes float32 numbers
below 1e-38 for zero, as neither the definitions nor the CPU do; so the compiler is called here, without that. What was
compiled is kept beside the compiled functions for CPUs, under the same precautions: it is code that will be run.
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
"""A product and a sum are one operation only where a kernel says fmaf: so decoded weights have the bits of their
definition, and everything but exp, tanh and their like the bits that the shim finds."""


class Cubins:
    """Machine code by its source and options. `compiler`: `cupy.cuda.nvrtc`."""

    def __init__(self, compiler: Any, capability: str) -> None:
        """capability: "90" for sm_90."""
        self._compiler = compiler
        self._options = (f"--gpu-architecture=sm_{capability}", *OPTIONS)
        major, minor = compiler.getVersion()
        made_by = hashlib.sha256(f"NVRTC {major}.{minor} {' '.join(self._options)}".encode()).hexdigest()[:16]
        try:
            self._files = KernelFiles(cache_folder() / "cuda" / made_by)
        except ConfigError as error:
            self._files = KernelFiles(None, str(error))

    def get(self, text: str, options: tuple[str, ...]) -> bytes:
        """Raises DeviceError with what the compiler said where the text does not compile."""
        name = hashlib.sha256("\0".join((text, *options)).encode()).hexdigest() + ".o"
        kept = self._files.read(name)
        if kept is None:
            kept = self._compiled(text, options)
            self._files.write(name, kept)
        return kept

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

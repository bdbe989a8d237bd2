"""Addresses of compiled functions by name. A function is loaded, or compiled, at its first use.

Owns: the mapping from the name of a Python function of `compiled` to the address of its machine code. The machine code
comes from the kernel cache. If it is missing there, Numba is imported and compiles the function, and `progress` is
told.
Specs: OPS-44, OPS-48. Next: `ferrum.backends.numba_kernels.launching.memory`.
"""

from __future__ import annotations

import ctypes
import os
import threading
from collections.abc import Callable, Sequence
from contextlib import suppress
from typing import TYPE_CHECKING

from ferrum.backends.numba_kernels.loading.cache import KernelFiles, kernel_files
from ferrum.backends.numba_kernels.loading.objects import ObjectCode, link
from ferrum.errors import NotFound

if TYPE_CHECKING:
    from ferrum.backends.numba_kernels.loading.compiling_process import CompilingProcess

Progress = Callable[[str], None]
"""Called before a function is compiled, with its name and whether it will be kept. It is not called for functions that
come from the cache."""


class Library:
    """Addresses of compiled functions. Each is a C function of int64 arguments without a result. A process has one
    library, because code has no state."""

    def __init__(self, files: KernelFiles) -> None:
        self._files = files
        self._addresses: dict[str, int] = {}
        self._kernels: dict[str, Callable[[int, int, int], None]] = {}
        self._lock = threading.Lock()
        self._ahead: CompilingProcess | None = None
        self.progress: Progress | None = None

    def address(self, name: str) -> int:
        """The address of the C function of this name. Its first use loads it from the cache, or compiles it."""
        known = self._addresses.get(name)
        if known is not None:
            return known
        with self._lock:
            if name not in self._addresses:
                self._addresses[name] = self._linked(name)
            return self._addresses[name]

    def function(self, name: str, arguments: int) -> Callable[..., None]:
        """The function with this number of arguments, callable from Python. The call releases the GIL."""
        return ctypes.CFUNCTYPE(None, *[ctypes.c_int64] * arguments)(self.address(name))

    def kernel(self, name: str) -> Callable[[int, int, int], None]:
        """The kernel (address of a row of words, chunk, chunks), callable from Python. Word 0 of the row is the
        address of the kernel itself."""
        if name not in self._kernels:
            self._kernels[name] = self.function(name, 3)
        return self._kernels[name]

    def compile_ahead(self, names: Sequence[str]) -> None:
        """Starts a process that compiles those of these functions that are missing in the cache, if there are two
        processors. Only the first call has an effect."""
        if self._ahead is not None or not self._files.kept or (os.cpu_count() or 1) == 1:
            return
        missing = [name for name in names if name not in self._addresses and not self._files.has(f"{name}.o")]
        if not missing:
            return
        from ferrum.backends.numba_kernels.loading.compiling_process import CompilingProcess

        # if no process can be started, the functions are compiled in this one
        with suppress(OSError, NotFound):
            self._ahead = CompilingProcess(missing)

    def _linked(self, name: str) -> int:
        kept = self._kept(name)
        return (kept is not None and link(kept)) or link(self._compiled(name))

    def _kept(self, name: str) -> ObjectCode | None:
        """The object code from the cache, where the second process may still have to write it; None if it is
        missing."""
        content = self._files.read(f"{name}.o")
        if content is None:
            self._announce(name)
            if self._ahead is not None and name in self._ahead.names:
                content = self._ahead.wait_for(f"{name}.o", self._files)
        return None if content is None else ObjectCode.from_bytes(content)

    def _announce(self, name: str) -> None:
        if self.progress is not None:
            _, function, *kinds = name.split(".")
            refusal = self._files.refusal
            kept = "kept for the next start" if refusal is None else f"not kept: {refusal}"
            self.progress(f"{' '.join([*function.split('_'), *kinds])}, {kept}")

    def _compiled(self, name: str) -> ObjectCode:
        # importing Numba takes a quarter of a second, and its first compilation more: only a cold start pays for it
        from ferrum.backends.numba_kernels.compiled.compiler import compiled

        made = compiled(name)
        self._files.write(f"{name}.o", made.to_bytes())
        return made


LIBRARY = Library(kernel_files())

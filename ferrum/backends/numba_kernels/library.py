"""Compiled code by name, made on first use.

Owns: the mapping from a plain Python function to the address of its machine code. Nothing is compiled before it is
needed, results are cached on disk, and whoever wants to show progress is told what is being compiled.
Next: `ferrum.backends.numba_kernels.launch`.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import cache
from typing import Any

from numba import cfunc, types

from ferrum.backends.numba_kernels import CACHE_DIRECTORY
from ferrum.backends.numba_kernels.cache import with_cache

Progress = Callable[[str], None]
"""Called with the name of each function just before it is compiled; what comes from the cache is not worth a word."""

KERNEL = types.void(types.int64, types.int64, types.int64)
"""void kernel(address of a row of int64 words, this chunk, chunks): word 0 of the row is the kernel's own address."""


@cache
def function_type(count: int) -> Any:
    """void function of `count` int64 arguments."""
    return types.void(*[types.int64] * count)


class Library:
    """Addresses of compiled functions. One per process is enough: code has no state."""

    def __init__(self) -> None:
        self._addresses: dict[Callable[..., None], int] = {}
        self._compiled: list[Any] = []  # code lives as long as its object
        self.progress: Progress | None = None

    def address(self, body: Callable[..., None], signature: Any = KERNEL) -> int:
        """The address of `body` as a C function; compiles it, or loads it from the cache, the first time."""
        known = self._addresses.get(body)
        if known is not None:
            return known
        if self.progress is not None and not _is_cached(body):
            self.progress(body.__name__.strip("_").replace("_", " "))
        compiled: Any = with_cache(lambda: cfunc(signature, cache=True, error_model="numpy")(body))
        self._compiled.append(compiled)
        place: int = compiled.address
        self._addresses[body] = place
        return place


def _is_cached(body: Callable[..., None]) -> bool:
    """Has Numba an index file for this function? If that file is stale the compilation merely goes unannounced."""
    name = f"{body.__module__.rpartition('.')[2]}.{body.__qualname__}"
    return any(CACHE_DIRECTORY.glob(f"*/{name}-*.nbi"))


LIBRARY = Library()

"""Compiled kernels of the Numba backend, as C function pointers.

Importing this package points Numba's cache at a directory of its own; the kernel modules compile nothing until a
kernel is first used. Reading order: cache, features, ir, simd, blocks, k_blocks, tiles, panels, elementwise, products,
linear, pages, moves, writing, splits, attention, library, memory, operands, bind, team, launch.
Next: `ferrum.backends.numba_kernels.cache`.
"""

from __future__ import annotations

from ferrum.backends.numba_kernels.cache import use_kernel_cache

CACHE_DIRECTORY = use_kernel_cache()

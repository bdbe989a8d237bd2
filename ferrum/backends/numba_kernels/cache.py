"""Where compiled kernels are kept between runs.

Owns: one directory per content of the kernel sources. Numba's own cache does not see that a function called from
another file has changed, so its directory is named by a hash of every source here and of the compilers' versions.
Numba separates CPUs within the directory itself. Next: `ferrum.backends.numba_kernels.features`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from pathlib import Path

import llvmlite
import numba
import numpy as np

KEPT = 3
"""Directories of earlier versions that stay, newest first."""


def user_cache() -> Path:
    """FERRUM_CACHE, or `ferrum` in the user's cache directory."""
    explicit = os.environ.get("FERRUM_CACHE")
    if explicit:
        return Path(explicit)
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "ferrum"


def kernel_cache() -> Path:
    """The directory for exactly these sources and compilers."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    return user_cache() / "kernels" / digest.hexdigest()[:16]


def use_kernel_cache() -> Path:
    """Point Numba at the directory, before the kernel modules are imported; NUMBA_CACHE_DIR, if set, wins."""
    if os.environ.get("NUMBA_CACHE_DIR"):
        return Path(os.environ["NUMBA_CACHE_DIR"])
    directory = kernel_cache()
    directory.mkdir(parents=True, exist_ok=True)
    os.utime(directory)
    for old in sorted(directory.parent.iterdir(), key=lambda path: path.stat().st_mtime, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)
    numba.config.CACHE_DIR = str(directory)  # type: ignore[attr-defined]
    return directory

"""Where compiled kernels are kept between runs.

Owns: one directory per content of the kernel sources. Numba's own cache does not see that a function called from
another file has changed, so its directory is named by a hash of every source here and of the compilers' versions.
Numba separates CPUs within the directory itself. Next: `ferrum.backends.numba_kernels.features`.
"""

from __future__ import annotations

import atexit
import hashlib
import os
import shutil
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import llvmlite
import numba
import numpy as np

from ferrum.errors import BackendError
from ferrum.paths import cache_folder

Result = TypeVar("Result")

KEPT = 3
"""Directories of earlier versions that stay, newest first."""


def kernel_cache() -> Path:
    """The directory for exactly these sources and compilers, below NUMBA_CACHE_DIR if that is set."""
    digest = hashlib.sha256(f"{numba.__version__} {llvmlite.__version__} {np.__version__}".encode())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(chosen) if chosen else cache_folder()) / "kernels" / digest.hexdigest()[:16]


def use_kernel_cache() -> Path:
    """Point Numba at the directory, before the kernel modules are imported. Where it cannot be written, kernels are
    compiled for this process alone."""
    directory = kernel_cache()
    try:
        directory.mkdir(parents=True, exist_ok=True)
        os.utime(directory)  # newest
        _forget_old(directory.parent)
    except OSError:
        directory = Path(tempfile.mkdtemp(prefix="ferrum-kernels-"))
        atexit.register(shutil.rmtree, directory, ignore_errors=True)
    numba.config.CACHE_DIR = str(directory)  # type: ignore[attr-defined]
    return directory


def _forget_old(parent: Path) -> None:
    """Remove all but the newest directories. Another process may do the same at the same time."""

    def age(path: Path) -> float:
        return path.stat().st_mtime if path.exists() else 0.0

    for old in sorted(parent.iterdir(), key=age, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)


def with_cache(compile_or_load: Callable[[], Result]) -> Result:
    """The result of something that compiles through the cache. A damaged file (a full disk, a lost power supply) must
    not stop every later start: where it fails, all cached files are forgotten and it is tried once more. Raises
    BackendError that names the directory."""
    try:
        return compile_or_load()
    except Exception:
        for path in Path(_directory()).rglob("*.nb?"):
            path.unlink(missing_ok=True)
    try:
        return compile_or_load()
    except OSError as error:
        reason = f"{error.strerror}; make room, or set FERRUM_CACHE to another folder"
        raise BackendError(f"compiled kernels cannot be kept in {_directory()}: {reason}") from error


def _directory() -> str:
    return str(numba.config.CACHE_DIR)  # type: ignore[attr-defined]

"""Where compiled functions are kept between runs.

Owns: one directory of object files for each content of the kernel sources, of the compilers and of the processor: what
a file was made from is in its directory's name, and a file never goes out of date. A file that is damaged (a full disk,
a lost power supply) is as good as none; where the directory cannot be written, nothing is kept.
Refuses to know: how object files are made or used.
Specs: OPS-44, OPS-48. Next: `ferrum.backends.numba_kernels.ahead`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
from importlib.util import find_spec
from pathlib import Path

import llvmlite
import llvmlite.binding as llvm
import numpy as np

from ferrum.backends.numba_kernels.features import FEATURES
from ferrum.paths import cache_folder

KEPT = 3
"""Directories of earlier versions that stay, newest first."""
DIGEST_BYTES = hashlib.sha256().digest_size


def kernel_cache() -> Path:
    """The directory for exactly these sources, compilers and processor, below NUMBA_CACHE_DIR if that is set."""
    processor = os.environ.get("NUMBA_CPU_NAME") or llvm.get_host_cpu_name()
    versions = f"{llvmlite.__version__} {np.__version__} {processor} {' '.join(sorted(FEATURES))}"
    digest = hashlib.sha256(versions.encode() + _numba_version())
    for source in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(source.name.encode() + source.read_bytes())
    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return (Path(chosen) if chosen else cache_folder()) / "kernels" / digest.hexdigest()[:16]


def _numba_version() -> bytes:
    """Of the Numba that would compile, without importing it."""
    found = find_spec("numba")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'numba'")
    return Path(found.origin).with_name("_version.py").read_bytes()


class KernelFiles:
    """Named files in one directory, each preceded by a digest of its content."""

    def __init__(self, directory: Path) -> None:
        self.directory = directory
        self.kept = self._open()

    def _open(self) -> bool:
        """Can files be kept here?"""
        try:
            self.directory.mkdir(parents=True, exist_ok=True)
            os.utime(self.directory)  # newest
            _forget_old(self.directory.parent)
        except OSError:
            return False
        return os.access(self.directory, os.W_OK)

    def read(self, name: str) -> bytes | None:
        """What was written under this name; None where nothing was, or not all of it arrived."""
        try:
            kept = (self.directory / name).read_bytes()
        except OSError:
            return None
        content = kept[DIGEST_BYTES:]
        return content if hashlib.sha256(content).digest() == kept[:DIGEST_BYTES] else None

    def has(self, name: str) -> bool:
        """Was anything written under this name? It may be damaged."""
        return (self.directory / name).exists()

    def write(self, name: str, content: bytes) -> None:
        """Keep this for later runs if possible. Others see the whole file or none."""
        if not self.kept:
            return
        unfinished = self.directory / f"{name}.{os.getpid()}"
        try:
            unfinished.write_bytes(hashlib.sha256(content).digest() + content)
            os.replace(unfinished, self.directory / name)
        except OSError:
            self.kept = False
            _remove(unfinished)


def _remove(path: Path) -> None:
    try:
        path.unlink(missing_ok=True)
    except OSError:
        return


def _forget_old(parent: Path) -> None:
    """Remove all but the newest directories. Another process may do the same at the same time."""

    def age(path: Path) -> float:
        return path.stat().st_mtime if path.exists() else 0.0

    for old in sorted(parent.iterdir(), key=age, reverse=True)[KEPT:]:
        shutil.rmtree(old, ignore_errors=True)

"""Where compiled functions are kept between runs.

Owns: one directory of object files for each content of the kernel sources, of the compilers and of the processor: what
a file was made from is in its directory's name, and a file never goes out of date. Object files are code that will be
run, so only directories and files count that belong to the user and that nobody else can write to. A file that is
damaged (a full disk, a lost power supply) or has another file's name is as good as none; where nothing can be kept,
there is a reason to tell.
Refuses to know: how object files are made or used.
Specs: OPS-44, OPS-48, OPS-53, OPS-54. Next: `ferrum.backends.numba_kernels.loading.compiling_process`.
"""

from __future__ import annotations

import hashlib
import os
import re
import weakref
from contextlib import suppress
from importlib.util import find_spec
from pathlib import Path

import llvmlite
import numpy as np

from ferrum.backends.numba_kernels.loading.features import FEATURES
from ferrum.backends.numba_kernels.loading.target import kernels_folder, this_processor
from ferrum.errors import ConfigError
from ferrum.files import UNFINISHED, make_private, open_private, read_private, reason, remove_unfinished, write_private

KEPT = 3
"""Directories that stay: this version's, and the newest of earlier ones."""
DIGEST_BYTES = hashlib.sha256().digest_size
MARK = "made-by-ferrum"
"""A file in every directory of ours: a directory without it is somebody else's, whatever its name."""
DEFINITIONS = ("int8.py", "kv_q8.py")
"""Files of `ferrum.tensor` whose numbers are compiled into kernels."""
SHARED = ("sizes.py", "layouts.py", "loading/features.py", "loading/objects.py")
"""Files of `numba_kernels` outside of `compiled` that its modules import."""
_OURS = re.compile(r"[0-9a-f]{16}")


def kernel_cache() -> Path:
    """The directory for exactly these sources, compilers and processor. Raises ConfigError where there is no cache
    folder."""
    processor = os.environ.get("NUMBA_CPU_NAME") or this_processor().name
    versions = f"{llvmlite.__version__} {np.__version__} {processor} {' '.join(sorted(FEATURES))}"
    digest = hashlib.sha256(versions.encode() + _numba_version())
    for source in kernel_sources():
        digest.update(source.name.encode() + source.read_bytes())
    return kernels_folder() / digest.hexdigest()[:16]


def kernel_sources() -> list[Path]:
    """The files that decide what a compiled function does: those of `compiled`, and the files that these import."""
    kernels = Path(__file__).parents[1]
    imported = (*(kernels / name for name in SHARED), *(kernels.parents[1] / "tensor" / name for name in DEFINITIONS))
    return [*sorted((kernels / "compiled").glob("*.py")), *imported]


def _numba_version() -> bytes:
    """Of the Numba that would compile, without importing it."""
    found = find_spec("numba")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'numba'")
    return Path(found.origin).with_name("_version.py").read_bytes()


def kernel_files() -> KernelFiles:
    """Those of this machine."""
    try:
        return KernelFiles(kernel_cache())
    except ConfigError as error:
        return KernelFiles(None, str(error))


class KernelFiles:
    """Named files in one directory, each preceded by a digest of its name and content. `refusal`: why nothing is kept,
    None where it is."""

    def __init__(self, directory: Path | None, refusal: str | None = None) -> None:
        self.refusal = refusal
        self._folder = -1  # a descriptor: what was checked is what is used, whatever happens to names
        if directory is not None:
            try:
                self._folder = _open(directory)
                weakref.finalize(self, os.close, self._folder)
                _tidy(self._folder, directory)
            except OSError as error:  # what can be read is read all the same
                self.refusal = f"{directory}: {reason(error)}"

    @property
    def kept(self) -> bool:
        """Can files be kept here?"""
        return self.refusal is None

    def read(self, name: str) -> bytes | None:
        """What was written under this name; None where nothing was, not all of it arrived, or somebody else could have
        written it."""
        if self._folder < 0:
            return None
        try:
            kept = read_private(name, self._folder)
        except OSError:
            return None
        content = kept[DIGEST_BYTES:]
        return content if _digest(name, content) == kept[:DIGEST_BYTES] else None

    def has(self, name: str) -> bool:
        """Was anything written under this name? It may be damaged."""
        return self._folder >= 0 and name in os.listdir(self._folder)

    def write(self, name: str, content: bytes) -> None:
        """Keep this for later runs if possible. Others see the whole file or none."""
        if not self.kept:
            return
        try:
            write_private(name, self._folder, _digest(name, content) + content)
        except OSError as error:
            self.refusal = reason(error)


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _open(directory: Path) -> int:
    """The descriptor of a directory for object files, made if need be. Raises OSError where it cannot be made, or where
    somebody else may have made it."""
    parent = _open_parent(directory)
    try:
        return open_private(directory.name, parent, make=True)
    finally:
        os.close(parent)


def _open_parent(directory: Path) -> int:
    place = directory.parent.parent
    make_private(place)
    above = os.open(place, os.O_RDONLY | os.O_DIRECTORY | os.O_CLOEXEC)
    try:
        return open_private(directory.parent.name, above, make=True)
    finally:
        os.close(above)


def _tidy(folder: int, directory: Path) -> None:
    """Makes an open directory the newest, and removes what is left over. Raises OSError where it cannot be written."""
    os.utime(folder)
    os.close(os.open(MARK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))
    remove_unfinished(folder)
    parent = _open_parent(directory)
    try:
        _forget_old(parent, directory.name)
    finally:
        os.close(parent)


def _forget_old(parent: int, current: str) -> None:
    """Remove all directories of ours but the current and the newest others: a clock may have been wrong. Another
    process may do the same at the same time."""

    def age(name: str) -> float:
        try:
            return os.stat(name, dir_fd=parent, follow_symlinks=False).st_mtime
        except OSError:
            return 0.0

    others = [name for name in os.listdir(parent) if _OURS.fullmatch(name) and name != current]
    for old in sorted(others, key=age, reverse=True)[KEPT - 1 :]:
        with suppress(OSError):
            _remove(old, parent)


def _remove(name: str, parent: int) -> None:
    """Removes a directory that was made here and holds nothing but object files. Raises OSError."""
    folder = open_private(name, parent)
    try:
        held = os.listdir(folder)
        if MARK not in held or not all(
            file == MARK or file.endswith(".o") or UNFINISHED.fullmatch(file) for file in held
        ):
            return
        for file in held:
            os.unlink(file, dir_fd=folder)
    finally:
        os.close(folder)
    os.rmdir(name, dir_fd=parent)

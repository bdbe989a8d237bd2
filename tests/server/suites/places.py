"""Where other people's suites lie: a folder that `set_up.sh` filled, and that FERRUM_SUITES names."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

HERE = Path(__file__).parent
HOW = f"sh {HERE.relative_to(Path(__file__).parents[3])}/set_up.sh FOLDER, then FERRUM_SUITES=FOLDER"


def folder() -> Path:
    """The folder. Without one the test is skipped, and the reason says how to get it."""
    named = os.environ.get("FERRUM_SUITES")
    if not named:
        pytest.skip(f"no suites: {HOW}")
    return Path(named).absolute()


def python(name: str) -> str:
    """The interpreter that has the packages of one suite."""
    path = folder() / "envs" / name / "bin" / "python"
    if not path.exists():
        pytest.skip(f"{path} is not there: {HOW}")
    return str(path)


def source(name: str) -> Path:
    """The unpacked source distribution of one package, of whatever version."""
    found = sorted((folder() / "sources").glob(f"{name}-*/"))
    if not found:
        pytest.skip(f"no source of {name} in {folder() / 'sources'}: {HOW}")
    return found[-1]

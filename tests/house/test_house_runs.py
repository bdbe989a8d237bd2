"""HOUSE-16 to HOUSE-18: how the tests are run by a person, by continuous integration and at night."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import tomllib
from pathlib import Path

import pytest
from hypothesis import settings

from ferrum.testing.profiles import load_profile
from tests.house.source import ROOT

COMMANDS = {
    "pip install .[dev] ./examples/ferrum-array-api[torch]": "examples/ferrum-array-api/pyproject.toml",
    "pytest": "tests/conftest.py",
    "python -m meta_tests": "meta_tests/__main__.py",
    "python -m meta_tests.mutants": "meta_tests/mutants/__main__.py",
    "python benchmarks/others.py": "benchmarks/others.py",
}
"""The commands of the night, and the file that each needs."""
STUB = """#!/bin/sh
echo "$(basename "$0")${*:+ $*}${HYPOTHESIS_PROFILE:+ ($HYPOTHESIS_PROFILE)}" >> "$LOG"
case "$(basename "$0") $*" in "$BROKEN") exit 3;; esac
"""
PYTHON = """#!/bin/sh
mkdir -p "$3/bin"
for name in pip pytest python; do cp "$STUB" "$3/bin/$name"; done
"""


def night(folder: Path, broken: str) -> tuple[int, list[str], str]:
    """Runs the nightly script with programs that only record their arguments; the call named `broken` fails. Returns
    the exit code, the calls, and stderr."""
    files = {"stub": STUB, "python": PYTHON}
    for name, text in files.items():
        (folder / name).write_text(text)
        (folder / name).chmod(0o755)
    log = folder / "log"
    environment = {**os.environ, "PYTHON": str(folder / "python"), "STUB": str(folder / "stub"), "LOG": str(log),
                   "BROKEN": broken}  # fmt: skip
    environment.pop("HYPOTHESIS_PROFILE", None)
    ran = subprocess.run([ROOT / ".ci" / "nightly"], env=environment, capture_output=True, text=True, check=False)
    return ran.returncode, log.read_text().splitlines(), ran.stderr


@pytest.mark.clause("HOUSE-16")
@pytest.mark.skipif(shutil.which("bash") is None, reason="needs bash")
@pytest.mark.parametrize("broken", ["nothing", "pytest ", "python -m meta_tests", "python benchmarks/others.py"])
def test_the_night_runs_everything_whatever_fails(tmp_path: Path, broken: str) -> None:
    code, calls, told = night(tmp_path, broken)
    assert calls == [f"{command} (nightly)" if command == "pytest" else command for command in COMMANDS]
    assert (code, f"failed: {broken.strip()}" in told) == ((0, False) if broken == "nothing" else (1, True))


@pytest.mark.clause("HOUSE-16")
def test_what_runs_at_night_is_there() -> None:
    assert [file for file in COMMANDS.values() if not (ROOT / file).is_file()] == []


@pytest.mark.clause("HOUSE-17")
@pytest.mark.parametrize(
    ("environment", "name", "examples", "same"),
    [
        ({}, "dev", 25, False),
        ({"CI": "true"}, "ci", 50, True),
        ({"HYPOTHESIS_PROFILE": "few", "CI": "true"}, "few", 5, True),
        ({"HYPOTHESIS_PROFILE": "nightly", "CI": "true"}, "nightly", 2000, False),
    ],
)
def test_the_profile_follows_the_environment(
    monkeypatch: pytest.MonkeyPatch, environment: dict[str, str], name: str, examples: int, same: bool
) -> None:
    for variable in ("CI", "HYPOTHESIS_PROFILE"):
        monkeypatch.delenv(variable, raising=False)
    for variable, value in environment.items():
        monkeypatch.setenv(variable, value)
    try:
        assert load_profile() == name
        assert (settings.default.max_examples, settings.default.derandomize) == (examples, same)
    finally:
        monkeypatch.undo()
        load_profile()


@pytest.mark.clause("HOUSE-17")
def test_contributors_are_told_the_profiles() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| (\d+) \|", (ROOT / "CONTRIBUTING.md").read_text("utf-8"), re.MULTILINE))
    assert told == {"few": "5", "dev": "25", "ci": "50", "nightly": "2000"}


@pytest.mark.clause("HOUSE-18")
def test_slow_tests_are_named() -> None:
    options = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["tool"]["pytest"]["ini_options"]["addopts"]
    assert "--durations=10 --durations-min=1 " in options

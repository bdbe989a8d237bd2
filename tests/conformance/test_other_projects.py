"""The plugin in the tests of a project that knows nothing of ferrum's backends."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferrum.conformance import plugin
from tests.house.source import ROOT

OPTIONS = "def pytest_addoption(parser):\n" + "\n".join(
    f"    parser.addoption({name!r}, default='theirs')"
    for name in ("--backend", "--level", "--xfails-file", "--report", "--report-file")
)
TEST = """
def test_it_is_theirs(pytestconfig):
    assert pytestconfig.getoption("--backend") == "ours"
    assert pytestconfig.getoption("--level") == "theirs"
"""


@pytest.mark.clause("CONFORM-13")
def test_options_of_the_same_names_are_theirs(tmp_path: Path) -> None:
    (tmp_path / "conftest.py").write_text(OPTIONS)
    (tmp_path / "test_it.py").write_text(TEST)
    command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--backend", "ours"]
    environment = {**os.environ, "PYTHONPATH": str(ROOT), "PYTEST_ADDOPTS": "", "PYTEST_PLUGINS": plugin.NAME}
    ran = subprocess.run(command, cwd=tmp_path, env=environment, capture_output=True, text=True)
    assert ran.returncode == 0, ran.stdout + ran.stderr

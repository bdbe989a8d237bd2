"""The suite as the author of a backend runs it: by package name, from another folder, on a class of their own."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferrum.conformance import plugin

ROOT = Path(__file__).resolve().parents[2]

BACKENDS = """
from ferrum.backends.numpy_backend import NumpyOps

class Right(NumpyOps):
    name = "right"

class Wrong(NumpyOps):
    name = "wrong"

    def relu(self, x):
        return -x
"""


@pytest.mark.clause("OPS-11")
@pytest.mark.parametrize(("backend", "code"), [("Right", 0), ("Right@float64", 0), ("Wrong", 1)])
def test_the_suite_judges_a_backend_of_another_package(tmp_path: Path, backend: str, code: int) -> None:
    (tmp_path / "elsewhere.py").write_text(BACKENDS)
    # -p stands in for the plugin's registration, which a source tree that is not installed does not have
    command = ["-m", "pytest", "-q", "--pyargs", "ferrum.conformance", "-p", plugin.NAME, "-p", "no:cacheprovider"]
    ran = subprocess.run(
        [sys.executable, *command, "--backend", f"elsewhere:{backend}", "-k", "test_activations and relu"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{tmp_path}"},
        capture_output=True,
        text=True,
    )
    assert ran.returncode == code, ran.stdout + ran.stderr
    assert ("1 passed" if code == 0 else "1 failed") in ran.stdout

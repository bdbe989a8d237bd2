"""The suite as the author of a backend runs it: by package name, from another folder, on a class of their own."""

from __future__ import annotations

import json
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


def run(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """The suite on backends of `elsewhere`, started in `folder`."""
    (folder / "elsewhere.py").write_text(BACKENDS)
    # -p stands in for the plugin's registration, which a source tree that is not installed does not have
    command = ["-m", "pytest", "--pyargs", "ferrum.conformance", "-p", plugin.NAME, "-p", "no:cacheprovider"]
    return subprocess.run(
        [sys.executable, *command, *arguments],
        cwd=folder,
        env={**os.environ, "PYTHONPATH": f"{ROOT}{os.pathsep}{folder}"},
        capture_output=True,
        text=True,
    )


@pytest.mark.clause("OPS-11")
def test_the_suite_judges_backends_of_another_package(tmp_path: Path) -> None:
    named = [part for each in ("Right", "Right@float64", "Wrong") for part in ("--backend", f"elsewhere:{each}")]
    ran = run(tmp_path, "-q", *named, "-k", "test_activations and relu")
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "1 failed, 2 passed" in ran.stdout
    assert "FAILED" in ran.stdout and "[elsewhere:Wrong-relu]" in ran.stdout


@pytest.mark.clause("CONFORM-02")
@pytest.mark.clause("CONFORM-04")
@pytest.mark.clause("CONFORM-06")
def test_a_run_in_all_its_parts(tmp_path: Path) -> None:
    """Two backends, one of them known to be wrong; in the order of what is made of what; with a report."""
    (tmp_path / "known").write_text("test_activations[relu]  # a sign\n")
    chosen = "(test_activations and relu) or test_matmul or test_query_heads or test_elementary_functions[numpy-exp"
    given = ["--backend", "elsewhere:Wrong", "--level", "smoke", "--xfails-file", "known", "-k", chosen, "-v"]
    ran = run(tmp_path, *given, "--report", "json", "--report-file", "report.json")
    assert ran.returncode == 0, ran.stdout + ran.stderr
    report = json.loads((tmp_path / "report.json").read_text("utf-8"))
    (backend,) = report["backends"]
    assert [finding["name"] for finding in backend["findings"]] == [
        "test_matmul", "test_activations[relu]", "test_query_heads_share_key_heads_in_consecutive_groups",
    ]  # fmt: skip
    assert backend["outcomes"] == {"passed": 2, "failed": 0, "skipped": 0, "xfailed": 1}
    assert (backend["name"], backend["made_by"], backend["own"]) == ("wrong", "elsewhere:Wrong", ["relu"])
    operations = {operation["name"]: operation for operation in backend["operations"]}
    assert operations["matmul"]["examples"] == 5
    assert 0 < operations["matmul"]["worst"] <= 1
    assert operations["exp"]["properties"] == 0
    assert operations["paged_attention"]["outcomes"]["passed"] == 1


@pytest.mark.clause("CONFORM-06")
def test_what_is_listed_and_passes_fails_the_run(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("test_activations[relu]  # a sign\n")
    given = ["--backend", "elsewhere:Right", "--xfails-file", "known", "-k", "test_activations and relu"]
    ran = run(tmp_path, *given)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "[XPASS(strict)] a sign" in ran.stdout

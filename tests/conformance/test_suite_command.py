"""The suite as the author of a backend runs it: by package name, from another folder, on a class of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner

from ferrum.cli import conformance as command
from ferrum.cli.main import program
from ferrum.conformance import plugin
from ferrum.errors import ConfigError

ROOT = Path(__file__).resolve().parents[2]

BACKENDS = """
import sys

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.tensor.compositions import Compositions
from ferrum.tensor.ops import PRIMITIVES

class Right(NumpyOps):
    name = "right"

class Wrong(NumpyOps):
    name = "wrong"

    def __init__(self):
        super().__init__()
        print("made", file=sys.stderr)

    def relu(self, x):
        return 1 - x

class Half(Compositions):
    name, float_dtype = "half", "float32"

for name in PRIMITIVES:
    if name != "less":
        setattr(Half, name, getattr(NumpyOps, name))
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
    """What is made of what decides the order; one is known to be wrong; the report is of what another process did."""
    (tmp_path / "known").write_text("test_activations[relu]  # a sign\n")
    chosen = "(test_activations and relu) or test_matmul or test_query_heads"
    given = ["--backend", "elsewhere:Wrong", "--level", "smoke", "--xfails-file", "known", "-k", chosen, "-n", "1"]
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


def conformance(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`ferrum-ref conformance`, started in the folder where `elsewhere` lies."""
    (folder / "elsewhere.py").write_text(BACKENDS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ferrum", "conformance", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.clause("CONFORM-05")
@pytest.mark.clause("CONFORM-07")
@pytest.mark.clause("CONFORM-08")
def test_the_command_reports_on_a_class_of_the_current_folder(tmp_path: Path) -> None:
    """What the folder says of pytest is not for this run; the backend is made once."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    given = ["--level", "smoke", "-k", "test_activations and relu", "--report", "md"]
    ran = conformance(tmp_path, "elsewhere:Wrong", *given)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert ran.stdout.startswith("# Conformance\n")
    assert "| compositions of its own | `relu` |" in ran.stdout
    assert "| `relu` | composition | 1 | 1 | – | 0 | 1 | 0 | 0 |" in ran.stdout
    assert "AssertionError: an element is too far off: at [] " in ran.stdout  # the smallest of all shapes
    assert "1 failed" in ran.stderr
    assert ran.stderr.count("made") == 1


@pytest.mark.clause("CONFORM-08")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["numpyy"], "there is no backend 'numpyy'"),
        (["elsewhere:Nothing"], "no backend class 'Nothing'"),
        (["numpy", "--level", "deep"], "'deep' is not one of"),
        (["numpy", "--xfails-file", "nowhere"], "'nowhere' does not exist"),
        (["numpy", "-o", "file"], "--report says which"),
        (["elsewhere:Half"], "lacks primitives: less. The first is to be: def less(self, x: Tensor, y: Tensor)"),
    ],
)
@pytest.mark.clause("CONFORM-02")
def test_bad_usage_is_one_line(arguments: list[str], said: str, tmp_path: Path, monkeypatch: Any) -> None:
    (tmp_path / "elsewhere.py").write_text(BACKENDS)
    monkeypatch.chdir(tmp_path)
    monkeypatch.syspath_prepend(tmp_path)
    ran = CliRunner().invoke(program, ["conformance", *arguments])
    assert ran.exit_code == 2
    assert said in ran.stderr
    assert ran.stderr.startswith("error: ") and ran.stderr.count("\n") == 1


@pytest.mark.clause("CONFORM-09")
def test_what_is_not_installed_is_named(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(command, "find_spec", lambda name: None if name == "hypothesis" else name)
    with pytest.raises(ConfigError, match=r"the suite needs hypothesis: pip install 'ferrum-ref\[conformance\]'"):
        command.check_installed()


@pytest.mark.clause("CONFORM-08")
@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (2, 130), (3, 1), (4, 2), (5, 2)])
def test_exit_codes_are_those_of_every_command(code: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest, "main", lambda arguments: code)
    assert command.run([], aside=False) == expected

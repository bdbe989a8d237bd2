"""The suite as the author of a backend runs it: by package name, from another folder, on a class of their own."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from click.testing import CliRunner

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.cli.main import program
from ferrum.conformance import admission, plugin

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

class Leaves(NumpyOps):
    def __init__(self):
        raise SystemExit(0)

class Stopped(NumpyOps):
    name = "stopped"

    def relu(self, x):
        raise KeyboardInterrupt

class Nameless(NumpyOps):
    def __init__(self):
        super().__init__()
        self.name = None

class Foreign:
    def __init__(self, dtype, shape):
        self.dtype, self.shape = dtype, shape

class OtherTypes(NumpyOps):
    def full(self, shape, value, dtype):
        return Foreign("torch." + dtype, shape)

class OtherShapes(NumpyOps):
    def full(self, shape, value, dtype):
        return Foreign(dtype, list(shape))

class Untyped(NumpyOps):
    def __init__(self):
        super().__init__()
        del self.float_dtype

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
    assert (report["level"], report["seed"], report["repeatable"], report["complete"]) == ("smoke", None, True, False)
    assert report["selection"].endswith(f"by -k {chosen!r}")
    assert report["interrupted"] is None
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
    assert "known:1 lists test_activations[relu], which passes now" in ran.stdout


@pytest.mark.clause("CONFORM-11")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["--backend", "elsewhere:Half"], "lacks primitives: less"),
        (["--level", "smoke", "--report", "md", "--report-file", "nowhere/report"], "there is no folder "),
    ],
)
def test_bad_usage_of_pytest_is_one_sentence(arguments: list[str], said: str, tmp_path: Path) -> None:
    ran = run(tmp_path, *arguments)
    assert ran.returncode == 4, ran.stdout + ran.stderr
    assert ran.stderr.startswith("ERROR: ") and said in ran.stderr
    assert ran.stdout == ""


def conformance(folder: Path, *arguments: str) -> subprocess.CompletedProcess[str]:
    """`ferrum-ref conformance`, started in the folder where `elsewhere` lies."""
    (folder / "elsewhere.py").write_text(BACKENDS)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    command = [sys.executable, "-m", "ferrum", "conformance", *arguments]
    return subprocess.run(command, cwd=folder, env=environment, capture_output=True, text=True)


@pytest.mark.clause("CONFORM-05")
@pytest.mark.clause("CONFORM-07")
@pytest.mark.clause("CONFORM-08")
@pytest.mark.clause("CONFORM-10")
@pytest.mark.clause("CONFORM-12")
def test_the_command_reports_on_a_class_of_the_current_folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Nothing else of the folder or the environment is for this run; the backend is made once."""
    (tmp_path / "pytest.ini").write_text("[pytest]\naddopts = --no-such-option\n")
    (tmp_path / "conftest.py").write_text("raise OSError('read')")
    monkeypatch.setenv("PYTEST_ADDOPTS", "--collect-only")
    monkeypatch.setenv("PYTEST_PLUGINS", "no_such_plugin")
    given = ["elsewhere:Wrong", "--level", "smoke", "-k", "test_activations and relu", "--report", "md"]
    ran = conformance(tmp_path, "elsewhere:Wrong", *given)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert ran.stdout.startswith("# Conformance\n\n**This is not the whole suite: ")
    assert "left out by -k 'test_activations and relu'.**" in ran.stdout
    assert "Compositions of its own: `relu`." in ran.stdout
    assert "| `relu` | composition | 1 | 1 | " in ran.stdout
    assert "AssertionError: an element is too far off: at [] " in ran.stdout  # the smallest of all shapes
    assert "1 failed" in ran.stderr
    assert "elsewhere:Wrong: no property passed" in ran.stderr
    assert ran.stderr.count("made") == 1
    assert not (tmp_path / ".hypothesis").exists()


@pytest.mark.clause("CONFORM-08")
def test_words_are_of_properties_and_not_of_backends(tmp_path: Path) -> None:
    ran = conformance(
        tmp_path, "elsewhere:Right", "--level", "smoke", "-k", "elsewhere", "--report", "md", "-o", "report"
    )
    assert ran.returncode == 2, ran.stdout + ran.stderr
    assert ran.stderr == "error: -k 'elsewhere' matches no property\n"
    assert not (tmp_path / "report").exists()


@pytest.mark.clause("CONFORM-08")
@pytest.mark.clause("CONFORM-10")
def test_a_run_that_is_stopped_says_so(tmp_path: Path) -> None:
    given = ["--level", "smoke", "-k", "test_matmul or test_activations", "--report", "json"]
    ran = conformance(tmp_path, "elsewhere:Stopped", *given)
    assert ran.returncode == 130, ran.stdout + ran.stderr
    report = json.loads(ran.stdout)
    assert not report["complete"]
    assert report["interrupted"].endswith("properties did not run (Ctrl-C)")
    assert report["backends"][0]["outcomes"]["passed"] == 1
    assert "Interrupted: Ctrl-C" in ran.stderr
    assert ".py:" not in ran.stderr


@pytest.mark.clause("CONFORM-06")
@pytest.mark.clause("CONFORM-10")
def test_where_nothing_passed_there_is_no_success(tmp_path: Path) -> None:
    (tmp_path / "known").write_text("test_compositions.py::test_activations[elsewhere:Wrong-relu]\n")
    given = ["--level", "smoke", "--xfails-file", "known", "-k", "test_activations and relu"]
    ran = conformance(tmp_path, "elsewhere:Wrong", "elsewhere:Right", *given)
    assert ran.returncode == 1, ran.stdout + ran.stderr
    assert "elsewhere:Wrong: no property passed" in ran.stdout
    assert "elsewhere:Right: no property passed" not in ran.stdout


@pytest.mark.clause("CONFORM-08")
@pytest.mark.parametrize(
    ("arguments", "said"),
    [
        (["numpyy"], "there is no backend 'numpyy'"),
        (["elsewhere:Nothing"], "no backend class 'Nothing'"),
        (["numpy", "--level", "deep"], "'deep' is not one of"),
        (["numpy", "--xfails-file", "nowhere"], "'nowhere' does not exist"),
        (["numpy", "-o", "file"], "--report says which"),
        (["elsewhere:Leaves"], "'elsewhere:Leaves' cannot run: it ends the process with 0"),
        (["./elsewhere:Right"], "name a module, not a file"),
        (["elsewhere:Nameless"], "has no name"),
        (["elsewhere:Untyped"], "has the float_dtype None; it must be one of float64, float32, "),
        (["elsewhere:OtherTypes"], "is 'torch.float32'; it must be 'float32'"),
        (["elsewhere:OtherShapes"], "is [2, 3]; it must be a tuple of int"),
        (["numpy", "--report", "md", "-o", "nowhere/report"], "there is no folder "),
        (["elsewhere:Half"], "lacks primitives: less. Define the first like: def less(self, x: Tensor, y: Tensor)"),
    ],
)
@pytest.mark.clause("CONFORM-02")
@pytest.mark.clause("CONFORM-11")
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
    monkeypatch.setattr(admission, "find_spec", lambda name: None if name == "hypothesis" else name)
    ran = CliRunner().invoke(program, ["conformance", "numpy"])
    assert ran.exit_code == 2
    assert ran.stderr == "error: the suite needs hypothesis: pip install 'ferrum-ref[conformance]'\n"
    given = SimpleNamespace(args=["ferrum.conformance"], dir=ROOT)
    config: Any = SimpleNamespace(args=given.args, invocation_params=given, getoption=lambda *name: None)
    with pytest.raises(pytest.UsageError, match="the suite needs hypothesis"):
        plugin.pytest_configure(config)


class NoFull(NumpyOps):
    def full(self, *arguments: Any) -> Any:
        raise SystemExit(0)


@pytest.mark.clause("CONFORM-11")
def test_a_primitive_that_fails_is_left_to_its_properties() -> None:
    admission.look_at("x:NoFull", NoFull())


@pytest.mark.clause("CONFORM-08")
@pytest.mark.parametrize(("code", "expected"), [(0, 0), (1, 1), (2, 130), (3, 1), (4, 2), (5, 2), (77, 1)])
def test_exit_codes_are_those_of_every_command(code: int, expected: int, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(pytest, "main", lambda arguments: code)
    assert CliRunner().invoke(program, ["conformance", "numpy"]).exit_code == expected

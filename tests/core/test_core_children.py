"""Other Python processes: started so that nothing of the working directory becomes part of them."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from ferrum import errors
from ferrum.children import clean_environment, own_environment, python_command
from ferrum.errors import NotFound

PLANTED = ["pip", "runpy", "numpy", "ferrum", "sitecustomize", "usercustomize", "json", "encodings", "planted"]


@pytest.fixture
def downloaded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The working directory, with programs that must not run."""
    folder = tmp_path / "downloaded"
    folder.mkdir()
    for name in PLANTED:
        (folder / f"{name}.py").write_text(f"open({str(tmp_path / 'ran')!r}, 'a').write({name!r} + ' ')")
    monkeypatch.chdir(folder)
    return folder


@pytest.mark.clause("LOAD-68")
@pytest.mark.parametrize(
    "python_path",
    [None, "", ":", ".", "./", "../downloaded", "HERE", "HERE/", "HERE/../downloaded", "LINK", "/nowhere::HERE:./"],
)
@pytest.mark.parametrize("arguments", [["-m", "pip", "--version"], ["-c", "import planted"], ["-c", "import numpy"]])
def test_nothing_of_the_working_directory_is_imported(
    downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, python_path: str | None, arguments: list[str]
) -> None:
    (tmp_path / "link").symlink_to(downloaded)
    if python_path is None:
        monkeypatch.delenv("PYTHONPATH", raising=False)
    else:
        places = python_path.replace("HERE", str(downloaded)).replace("LINK", str(tmp_path / "link"))
        monkeypatch.setenv("PYTHONPATH", places)
    subprocess.run(python_command(*arguments), env=clean_environment(), capture_output=True, timeout=60)
    assert not (tmp_path / "ran").exists(), (tmp_path / "ran").read_text()


@pytest.mark.clause("LOAD-68")
def test_what_the_process_starts_does_not_import_it_either(downloaded: Path, tmp_path: Path) -> None:
    inner = "import subprocess, sys; subprocess.run([sys.executable, '-m', 'planted'])"
    subprocess.run(python_command("-c", inner), env=clean_environment(), capture_output=True, timeout=60)
    assert not (tmp_path / "ran").exists()


@pytest.mark.clause("LOAD-68")
def test_the_command_alone_keeps_the_working_directory_out(downloaded: Path, tmp_path: Path) -> None:
    environment = {name: value for name, value in os.environ.items() if not name.startswith("PYTHON")}
    subprocess.run(python_command("-m", "planted"), env=environment, capture_output=True, timeout=60)
    assert not (tmp_path / "ran").exists()


@pytest.mark.clause("LOAD-68")
def test_other_places_are_searched_as_before(downloaded: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("first", "second"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "wanted.py").write_text(f"print({name!r})")
    monkeypatch.setenv("PYTHONPATH", os.pathsep.join([str(downloaded), str(tmp_path / "first"), "", "/no/such/folder"]))
    assert clean_environment()["PYTHONPATH"] == os.pathsep.join([str(tmp_path / "first"), "/no/such/folder"])
    for environment, found in (
        (clean_environment(), "first"),
        (clean_environment(["", str(tmp_path / "second"), str(tmp_path / "first")]), "second"),
    ):
        ran = subprocess.run(
            python_command("-m", "wanted"), env=environment, capture_output=True, text=True, timeout=60
        )
        assert ran.stdout == f"{found}\n"


@pytest.mark.clause("LOAD-68")
@pytest.mark.parametrize("search", [[], [""], ["."], ["lib", "x/../y"], ["\0", "/\0", "/\ud800"], [f"/a{os.pathsep}b"]])
def test_an_environment_without_places_has_no_python_path(
    downloaded: Path, monkeypatch: pytest.MonkeyPatch, search: list[str]
) -> None:
    monkeypatch.setenv("PYTHONPATH", "/somewhere/else")
    assert "PYTHONPATH" not in clean_environment(search)
    assert clean_environment(search)["PYTHONSAFEPATH"] == "1"


@pytest.mark.clause("LOAD-68")
def test_a_working_directory_that_is_gone_is_no_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    assert clean_environment(["", str(tmp_path)])["PYTHONPATH"] == str(tmp_path)
    monkeypatch.chdir(tmp_path)


@pytest.mark.clause("LOAD-68")
@pytest.mark.parametrize("executable", [None, ""])
def test_a_python_that_does_not_know_its_program_starts_no_other(
    monkeypatch: pytest.MonkeyPatch, executable: str | None
) -> None:
    monkeypatch.setattr(sys, "executable", executable)
    with pytest.raises(NotFound, match="does not know where its program is"):
        python_command("-m", "pip")


@pytest.mark.clause("LOAD-68", "OPS-55")
def test_a_process_of_our_own_finds_ferrum_even_here_and_nothing_else(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A tree that was downloaded and not installed, say."""
    own = Path(errors.__file__).parents[1]
    (tmp_path / "json.py").write_text("raise SystemExit('planted')")
    for here in (own, tmp_path):
        monkeypatch.chdir(here)
        monkeypatch.setattr(sys, "path", ["", str(here), *sys.path[1:]])
        found = own_environment()["PYTHONPATH"].split(os.pathsep)
        assert found[-1] == str(own) and str(tmp_path) not in found and "" not in found
        command = python_command("-c", "import json, ferrum; print(ferrum.__file__)")
        ran = subprocess.run(command, env=own_environment(), capture_output=True, text=True, check=True)
        assert ran.stdout.endswith("ferrum/__init__.py\n") and not ran.stdout.startswith(str(tmp_path))


@pytest.mark.clause("LOAD-68")
def test_what_is_no_text_in_the_search_path_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "path", [*sys.path, Path("/usr"), b"/usr", None, 5])
    assert all(isinstance(place, str) for place in own_environment()["PYTHONPATH"].split(os.pathsep))

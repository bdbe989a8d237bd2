"""PROOF-06: the messages of the command of planted faults for wrong options, full disks, and signals."""

from __future__ import annotations

import os
import shutil
import signal
import time
from collections.abc import Iterator
from contextlib import nullcontext
from pathlib import Path

import pytest

from meta_tests import __main__, options, results, tree
from meta_tests.__main__ import main
from meta_tests.fault import ROOT, all_faults
from meta_tests.mutants.__main__ import main as mutants_main
from meta_tests.run import Outcome

FAULTS = all_faults()
ONE = next(each for each in FAULTS if each.room == "sched")
OTHER = next(each for each in FAULTS if each.room == "kv")


@pytest.mark.clause("PROOF-06")
@pytest.mark.parametrize(
    ("given", "told"),
    [
        (["--room", "kv", "--name", ONE.name], f"no fault of --room kv is called {ONE.name}"),
        (["--name", ONE.name + "x"], f"the nearest names are {ONE.name}"),
        (["--jobs", "0"], "0 is less than 1"),
        (["--report", "no/such/folder/report.md"], "there is no folder"),
        (["--report", str(ROOT)], "is a folder"),
    ],
)
def test_wrong_options_are_one_sentence(given: list[str], told: str, capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        main(given)
    said = capsys.readouterr().err
    assert ended.value.code == 2 and told in said and OTHER.name not in said


@pytest.mark.clause("PROOF-06")
@pytest.mark.parametrize("given", [["--sample", "0"], ["--jobs", "-1"], ["--report", "no/such/folder/report.md"]])
def test_options_of_mutants_are_checked_as_well(given: list[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        mutants_main(given)
    assert ended.value.code == 2


@pytest.mark.clause("PROOF-06")
def test_a_full_disk_is_one_sentence(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    def full(source: Path, *_: object, **__: object) -> None:
        raise shutil.Error([(str(source), "there", "No space left on device")] * 2)

    monkeypatch.setattr(tree.shutil, "copytree", full)
    assert main(["--name", ONE.name]) == 2
    assert capsys.readouterr().err == f"{ROOT / 'benchmarks'} cannot be copied: No space left on device\n"


@pytest.mark.clause("PROOF-06")
def test_two_runs_may_write_one_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "report.md"

    def outcomes(*_: object) -> Iterator[Outcome]:
        yield Outcome(ONE, "a.py::test_a", 1.0)
        rows = results.read(path) | {of_another_run.name: results.Row("b.py::test_b", 2.0)}
        path.write_text(results.written(FAULTS, rows), encoding="utf-8")
        yield Outcome(OTHER, "c.py::test_c", 3.0)

    of_another_run = next(each for each in FAULTS if each not in (ONE, OTHER))
    monkeypatch.setattr(__main__, "judge_all", outcomes)
    assert main(["--name", ONE.name, "--name", OTHER.name, "--report", str(path)]) == 0
    assert set(results.read(path)) == {ONE.name, OTHER.name, of_another_run.name}


@pytest.mark.clause("PROOF-06")
def test_being_stopped_tells_what_was_found(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    closed = []

    def outcomes(*_: object) -> Iterator[Outcome]:
        try:
            yield Outcome(ONE, "a.py::test_a", 1.0)
            os.kill(os.getpid(), signal.SIGTERM)
            time.sleep(60)
        finally:
            closed.append(True)

    monkeypatch.setattr(__main__, "judge_all", outcomes)
    handler = signal.getsignal(signal.SIGTERM)
    assert main(["--name", ONE.name, "--name", OTHER.name]) == options.STOPPED
    assert capsys.readouterr().out.splitlines()[-1] == "caught 1 of 2 so far"
    assert closed and signal.getsignal(signal.SIGTERM) is handler


@pytest.mark.clause("PROOF-04")
@pytest.mark.parametrize(
    ("other", "code", "told"),
    [
        (Outcome(OTHER, "b.py::test_b", 1.0), 0, "b.py::test_b"),
        (Outcome(OTHER, None, 1.0), 1, "SURVIVES"),
        (Outcome(OTHER, None, 1.0, "the source has changed"), 1, "the source has changed"),
    ],
)
def test_a_fault_that_is_not_caught_fails_the_command(
    other: Outcome, code: int, told: str, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(__main__, "judge_all", lambda *_: iter([Outcome(ONE, "a.py::test_a", 1.0), other]))
    monkeypatch.setattr(__main__, "closing", nullcontext)  # a list has nothing to close
    assert main(["--name", ONE.name, "--name", OTHER.name]) == code
    said = capsys.readouterr().out.splitlines()
    assert said[-2].endswith(f"{OTHER.name}: {told} (1 s)")
    assert said[-1] == f"caught: {2 - code} of 2"

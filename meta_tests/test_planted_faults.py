"""PROOF-01 to PROOF-05: the faults fit today's source, and the runner reports the right result for each."""

from __future__ import annotations

import os
import select
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import pytest

from meta_tests import backends, results
from meta_tests.__main__ import main
from meta_tests.fault import ROOT, Fault, Plant, source_faults
from meta_tests.judge import CannotJudge, Judge
from meta_tests.planted import FOLDER
from meta_tests.run import judge_all
from meta_tests.tree import TreeCopy

FAULTS = source_faults()
TABLE = ROOT / "meta_tests" / "RESULTS.md"


FILE = "tests/core/test_errors.py"


def fault(name: str, was: str, becomes: str) -> Fault:
    tests = (FILE, "-k", "shown")
    return Fault(name, "core", "Toys break.", tests, tests, Plant("ferrum/errors.py", was, becomes))


SEEN = fault("seen", "text if len(text) <= SHOWN else", "text if len(text) else")
UNSEEN = fault("unseen", "Base class: one clear sentence", "Base class: a clear sentence")


@pytest.mark.clause("PROOF-01")
@pytest.mark.parametrize("one", FAULTS, ids=lambda one: f"{one.room}-{one.name}")
def test_a_fault_has_its_place_in_the_source_which_still_compiles(one: Fault) -> None:
    assert one.plant is not None and one.plant.was != one.plant.becomes
    path = ROOT / one.plant.file
    changed = one.plant.applied_to(path.read_text(encoding="utf-8"))
    if path.suffix == ".py":
        compile(changed, one.plant.file, "exec")


@pytest.mark.clause("PROOF-02")
def test_faults_have_names_and_say_what_goes_wrong() -> None:
    assert [name for name, count in Counter(one.name for one in FAULTS).items() if count > 1] == []
    assert [one.name for one in FAULTS if not one.harm.endswith((".", ")")) or "\n" in one.harm] == []
    for one in FAULTS:
        assert one.tests and all((ROOT / path).exists() for path in one.tests if path.startswith(("tests/", "ferrum/")))


@pytest.mark.clause("PROOF-01")
def test_a_text_that_stands_twice_or_nowhere_is_no_place() -> None:
    for was in ("x", "y"):
        with pytest.raises(ValueError, match="not once"):
            Plant("a.py", was, "z").applied_to("x x")
    assert Plant("a.py", "x", "z").applied_to("x y") == "z y"


@pytest.fixture(scope="module")
def copy(tmp_path_factory: pytest.TempPathFactory) -> TreeCopy:
    return TreeCopy(tmp_path_factory.mktemp("copy"))


@pytest.mark.clause("PROOF-03")
def test_a_fault_is_planted_in_the_copy_and_taken_out_again(copy: TreeCopy) -> None:
    path = Path("ferrum/errors.py")
    sound = (ROOT / path).read_bytes()
    with pytest.raises(RuntimeError), copy.planted(SEEN.plant):
        assert (copy.folder / path).read_bytes() != sound
        raise RuntimeError
    assert (copy.folder / path).read_bytes() == sound == (ROOT / path).read_bytes()


@pytest.mark.clause("PROOF-03")
def test_tests_of_another_package_judge_nothing(copy: TreeCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("meta_tests.judge.FOLDER", "NOT_" + FOLDER)
    monkeypatch.setenv(FOLDER, str(ROOT / "specs"))
    with Judge(copy.folder) as judge, pytest.raises(CannotJudge, match="not from the copy"):
        judge.judge(SEEN.tests, "few", 300)


@pytest.mark.clause("PROOF-04")
def test_tests_without_an_end_have_failed_and_those_that_are_not_there_judge_nothing(copy: TreeCopy) -> None:
    with Judge(copy.folder) as judge:
        assert judge.judge(SEEN.tests, "few", 0.01).caught_by == "no end within 0 s"
        assert judge.judge(SEEN.tests, "few", 300).caught_by is None
        with pytest.raises(CannotJudge, match="ended with 4"):
            judge.judge(("tests/core/no_such_file.py",), "few", 300)


LEAVES = """
import os, subprocess

def test_leaves_a_program_behind():
    with open("pipe", "w") as pipe:
        subprocess.Popen(["sleep", "600"], stdout=pipe)
"""


@pytest.mark.clause("PROOF-04")
def test_what_tests_have_started_ends_with_them(copy: TreeCopy) -> None:
    """Without this, servers of a run that takes too long would run for ever."""
    (copy.folder / "tests/core/test_leaves.py").write_text(LEAVES, encoding="utf-8")
    os.mkfifo(copy.folder / "pipe")
    reader = os.open(copy.folder / "pipe", os.O_RDONLY | os.O_NONBLOCK)
    with Judge(copy.folder) as judge:
        assert judge.judge(("tests/core/test_leaves.py",), "few", 300).caught_by is None
    readable, _, _ = select.select([reader], [], [], 60)
    os.set_blocking(reader, True)
    assert readable and os.read(reader, 1) == b""  # no writer is left
    os.close(reader)


WAITS = """
import os, time

def test_waits():
    with open("held", "w"):
        time.sleep(600)
"""


@pytest.mark.clause("PROOF-06")
def test_a_judge_that_is_closed_ends_the_tests_that_it_runs(copy: TreeCopy) -> None:
    (copy.folder / "tests/core/test_waits.py").write_text(WAITS, encoding="utf-8")
    os.mkfifo(copy.folder / "held")
    with ThreadPoolExecutor() as worker:
        with Judge(copy.folder) as judge:
            running = worker.submit(judge.judge, ("tests/core/test_waits.py",), "few", 300)
            reader = os.open(copy.folder / "held", os.O_RDONLY)  # opens where the test does
            closing = time.monotonic()
        assert time.monotonic() - closing < 60
        assert select.select([reader], [], [], 30)[0] and os.read(reader, 1) == b""  # no writer is left
        os.close(reader)
        with pytest.raises(CannotJudge, match="has ended"):
            running.result()


@pytest.mark.clause("PROOF-04")
def test_options_of_the_environment_choose_no_tests(copy: TreeCopy, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-p no_such_plugin")
    with Judge(copy.folder) as judge:
        assert judge.judge(SEEN.tests, "few", 300).caught_by is None


@pytest.mark.clause("PROOF-04")
def test_a_package_that_is_missing_is_named(copy: TreeCopy) -> None:
    (copy.folder / "tests/core/test_needs.py").write_text("import no_such_package", encoding="utf-8")
    with Judge(copy.folder) as judge:
        verdict = judge.judge(("tests/core/test_needs.py",), "few", 300)
    assert verdict.why == "ModuleNotFoundError: No module named 'no_such_package'"


@pytest.mark.clause("PROOF-04")
def test_the_runner_tells_which_test_finds_a_fault_and_which_fault_none_finds() -> None:
    told: list[str] = []
    nowhere = fault("nowhere", "no such text", "another")
    found = {each.fault.name: each for each in judge_all([SEEN, UNSEEN, nowhere], 2, told.append)}
    assert found["seen"].caught_by is not None and found["seen"].caught_by.startswith(FILE + "::")
    assert (found["unseen"].caught_by, found["unseen"].problem) == (None, None)
    assert found["nowhere"].problem is not None
    assert len(told) == 2, "the tests were not seen to pass without a fault, once for each look"


@pytest.mark.clause("PROOF-04")
def test_tests_that_fail_without_a_fault_judge_nothing() -> None:
    sick = replace(SEEN, control=(FILE, "-k", "nothing_has_this_name"))
    with pytest.raises(CannotJudge):
        list(judge_all([sick], 1, lambda _: None))


@pytest.mark.clause("PROOF-04")
def test_the_table_is_read_as_it_was_written(tmp_path: Path) -> None:
    rows = {"seen": results.row_of("a.py::test_b[x | y]", 1.23), "unseen": results.row_of(None, 20.0)}
    path = tmp_path / "table.md"
    path.write_text(results.written([SEEN, UNSEEN, replace(SEEN, name="other")], rows), encoding="utf-8")
    assert results.read(path) == rows == {"seen": results.Row("a.py::test_b", 1.2), "unseen": results.Row(None, 20.0)}
    assert "Caught: 1 of 2." in path.read_text(encoding="utf-8")
    assert results.read(tmp_path / "nothing.md") == {}


@pytest.mark.clause("PROOF-05")
def test_the_table_names_every_fault_and_none_survives() -> None:
    rows = results.read(TABLE)
    assert [one.name for one in FAULTS if one.name not in rows] == [], "judge these: python -m meta_tests --report …"
    assert [name for name, row in rows.items() if row.by is None] == []
    assert [name for name, row in rows.items() if not is_there(row.by or "")] == [], "judge these again"


def is_there(test: str) -> bool:
    """True if the test that a row names is in its file. A row may say instead that the run did not end."""
    path, _, name = test.partition("::")
    if not path.endswith(".py"):
        return True
    file = ROOT / path
    return file.is_file() and name.partition("::")[0] in file.read_text(encoding="utf-8")


@pytest.mark.clause("PROOF-05")
def test_the_table_names_every_faulty_backend() -> None:
    text = TABLE.read_text(encoding="utf-8")
    missing = [each.name for each in backends.faults() if f"| {each.name} |" not in text]
    assert missing == [], "python -m meta_tests --rewrite --report meta_tests/RESULTS.md"


def test_a_report_is_written_from_its_own_rows(tmp_path: Path) -> None:
    path = tmp_path / "report.md"
    path.write_text(TABLE.read_text(encoding="utf-8"), encoding="utf-8")
    assert main(["--rewrite", "--report", str(path)]) == 0
    assert results.read(path) == results.read(TABLE)

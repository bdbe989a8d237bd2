"""The command that judges mutants, on a room of two functions; and its list of survivors."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from meta_tests.fault import ROOT
from meta_tests.mutants import __main__ as command
from meta_tests.mutants import review, table
from meta_tests.mutants.review import Entry
from meta_tests.mutants.rooms import ROOMS, Room
from meta_tests.mutants.tool import CannotRun, Judged, Mutant, Mutmut, place_of

SOURCE = """
def larger(a: int, b: int) -> int:
    return a if a > b else b


def doubled(a: int) -> int:
    return a * 2
"""
TESTS = """
from toy.numbers import doubled, larger


def test_larger():
    assert larger(1, 2) == larger(2, 1) == larger(2, 2) == 2


def test_doubled():
    assert doubled(0) == 0
"""


@pytest.fixture
def toy(tmp_path: Path) -> Mutmut:
    pytest.importorskip("mutmut")
    (tmp_path / "toy").mkdir()
    (tmp_path / "toy/__init__.py").touch()
    (tmp_path / "toy/numbers.py").write_text(SOURCE)
    (tmp_path / "tests/toy").mkdir(parents=True)
    (tmp_path / "tests/toy/test_toy.py").write_text(TESTS)
    (tmp_path / "pyproject.toml").write_text('[tool.pytest.ini_options]\npythonpath = ["."]\n')
    return Mutmut(tmp_path, Room("toy", ("tests/toy",)), 1)


@pytest.mark.clause("PROOF-30")
def test_the_command_tells_mutants_that_die_from_those_that_live(toy: Mutmut, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("PYTEST_ADDOPTS", "-k nothing_has_this_name")  # the user's shell may set some
    judged = toy.judge(sample=1_000, seed=7)
    assert judged.tried == judged.total and judged.seed == 7
    assert Mutant("toy.numbers.doubled", "return a * 2", "return a * 3") in judged.survivors
    assert Mutant("toy.numbers.larger", "return a if a > b else b", "return a if a >= b else b") in judged.survivors
    assert judged.killed >= 2  # each branch of `larger`


@pytest.mark.clause("PROOF-30")
def test_tests_that_fail_without_a_mutant_judge_nothing(toy: Mutmut) -> None:
    (toy.folder / "tests/toy/test_toy.py").write_text(TESTS + "    assert doubled(1) == 3\n")
    with pytest.raises(CannotRun):
        toy.judge(sample=None, seed=0)


@pytest.mark.clause("PROOF-30")
def test_where_nothing_is_judged_nothing_is_well(toy: Mutmut) -> None:
    with pytest.raises(CannotRun, match="nothing was judged"):
        toy.judge(sample=0, seed=0)
    shutil.rmtree(toy.folder / "mutants")
    (toy.folder / "toy/numbers.py").write_text("larger, doubled = max, (2).__mul__\n")
    for sample in (None, 5):
        with pytest.raises(CannotRun):
            toy.judge(sample, seed=0)


@pytest.mark.clause("PROOF-30")
def test_names_of_functions_are_read_from_those_of_mutants() -> None:
    assert place_of("ferrum.kv.pool.xǁBlockPoolǁshare__mutmut_3") == "ferrum.kv.pool.BlockPool.share"
    assert place_of("ferrum.kv.prefix.x_array_digest__mutmut_12") == "ferrum.kv.prefix.array_digest"
    assert place_of("ferrum.kv.prefix.x__private__mutmut_1") == "ferrum.kv.prefix._private"


@pytest.mark.clause("PROOF-31")
def test_every_entry_of_the_review_is_about_code_that_is_there() -> None:
    sources = {path: path.read_text() for room in ROOMS.values() for path in (ROOT / room.source).rglob("*.py")}
    for entry in review.read():
        module = re.match(r"ferrum(\.[a-z_0-9]+)+(?=\.)", entry.place)
        about = [text for path, text in sources.items()
                 if module is None or module[0] == ".".join(path.relative_to(ROOT).with_suffix("").parts)]  # fmt: skip
        assert any(re.search(entry.was, line) for text in about for line in text.splitlines()), entry


@pytest.mark.clause("PROOF-31")
def test_equivalent_mutants_do_not_count_and_accepted_ones_do() -> None:
    entries = [
        Entry("ferrum.kv.*", "a", "b", "equivalent", "the same"),
        Entry("ferrum.kv.pool.BlockPool.share", "c", "", "accepted", "a wording"),
    ]
    survivors = [
        Mutant("ferrum.kv.pool.f", "a", "b"),
        Mutant("ferrum.kv.pool.BlockPool.share", "c", "d"),
        Mutant("ferrum.kv.pool.BlockPool.shared", "c", "d"),
    ]
    result = table.Reviewed(Judged("kv", 100, 6, 1, tuple(survivors)), entries)
    assert [result.count(kind) for kind in ("equivalent", "accepted", None)] == [1, 1, 1]
    assert result.counted == (7, 9)


@pytest.mark.clause("PROOF-30")
@given(st.integers(1, 10_000), st.data())
def test_the_interval_holds_the_share_and_narrows(could: int, data: st.DataObject) -> None:
    died = data.draw(st.integers(0, could))
    low, high = table.interval(died, could)
    assert -1e-9 <= low <= died / could + 1e-9 and died / could - 1e-9 <= high <= 1 + 1e-9
    wide = table.interval(10 * died, 10 * could)
    assert wide[1] - wide[0] < high - low
    # scipy.stats.binomtest(92, 100).proportion_ci(method="wilson") says so
    assert table.interval(92, 100) == pytest.approx((0.8501, 0.9589), abs=1e-4)


@pytest.mark.clause("PROOF-30")
def test_the_rows_of_rooms_that_were_not_judged_stay(tmp_path: Path) -> None:
    path = tmp_path / "RESULTS.md"
    mutant = Mutant("ferrum.kv.pool.f", "a | b", "c")
    first, second = (table.Reviewed(Judged(name, 10, 8, 0, (mutant,), 7), []) for name in ("kv", "text"))
    assert "| 10 | 9, seed 7 | 8 |" in table.row(first)
    table.update(path, [first, second])
    written = path.read_text()
    assert written.count("not reviewed\n") == 2 and table.row(first) in written and table.row(second) in written
    table.update(path, [second])
    assert path.read_text() == written


@pytest.mark.clause("PROOF-30")
@pytest.mark.parametrize(("killed", "code"), [(92, 0), (91, 1)])
def test_too_few_killed_fail_the_command(
    killed: int, code: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    alive = (Mutant("ferrum.kv.toy.f", "a", "b"),) * (100 - killed)
    monkeypatch.setattr(command, "_judged", lambda name, given: Judged(name, 100, killed, 0, alive))
    assert command.main(["--room", "kv", "--report", str(tmp_path / "report.md")]) == code

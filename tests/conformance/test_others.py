"""The scoreboard of other people's tests: its reasons, its files, its table."""

from __future__ import annotations

import importlib
import io
import sys
import tarfile
import types
from dataclasses import replace
from pathlib import Path
from typing import Any

import pytest

from benchmarks.suites import SUITES, array_api, explained, fetch, table
from benchmarks.suites.verdict import Verdict

ROOT = Path(__file__).resolve().parents[2]
REASONS = """
[[explained]]
reason = "They round down."
cases = ["div_*", "[odd]"]

[[explained]]
reason = "There are no strings."
kinds = ["strings*"]
"""


def judged(tmp_path: Path, *verdicts: Verdict) -> tuple[list[str], list[str]]:
    """Cases without a reason, reasons without a case."""
    (tmp_path / "some.toml").write_text(REASONS)
    said = explained.reasons("some", tmp_path)
    return [each.case for each in explained.unexplained(verdicts, said)], explained.unneeded(verdicts, said)


@pytest.mark.clause("SUITE-10")
def test_a_difference_needs_a_reason_and_a_reason_needs_a_case(tmp_path: Path) -> None:
    div, odd = Verdict("div_int", "different", "-1, expected -2"), Verdict("[odd]", "different")
    text = Verdict("text", "refused", "strings of bytes")
    assert judged(tmp_path, div, odd, text) == ([], [])
    assert judged(tmp_path, replace(div, outcome="equal"), odd, text) == ([], ["div_*"])
    assert judged(tmp_path, div, Verdict("o", "different"), text) == (["o"], ["[odd]"])
    # kinds are those of refusals
    assert judged(tmp_path, div, odd, Verdict("x", "different", "strings")) == (["x"], ["strings*"])
    # a refusal says what it refuses
    assert judged(tmp_path, div, odd, text, Verdict("mute", "refused")) == (["mute"], [])
    assert judged(tmp_path, div, odd, text, Verdict("fp4", "refused", "4 bits")) == ([], [])
    assert explained.reasons("another", tmp_path) == []


def archive(path: Path, *names: str) -> Path:
    with tarfile.open(path, "w:gz") as opened:
        for name in names:
            entry = tarfile.TarInfo(name)
            entry.size = 2
            opened.addfile(entry, io.BytesIO(b"hi"))
    return path


@pytest.mark.clause("SUITE-11")
def test_an_archive_becomes_a_folder_whole_or_not_at_all(tmp_path: Path) -> None:
    fetch.unpack(archive(tmp_path / "good.tgz", "package/a/b.txt"), tmp_path / "data" / "good")
    assert (tmp_path / "data" / "good" / "a" / "b.txt").read_text() == "hi"
    with pytest.raises(tarfile.OutsideDestinationError):
        fetch.unpack(archive(tmp_path / "bad.tgz", "package/a.txt", "../../b.txt"), tmp_path / "data" / "bad")
    with pytest.raises(fetch.Missing, match="2 entries"):
        fetch.unpack(archive(tmp_path / "two.tgz", "a/a.txt", "b/b.txt"), tmp_path / "data" / "two")
    assert [path.name for path in (tmp_path / "data").iterdir()] == ["good"]


@pytest.mark.clause("SUITE-11")
def test_only_the_bytes_that_are_known_are_unpacked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    made = archive(tmp_path / "some.tgz", "package/a.txt")
    monkeypatch.setattr(fetch, "_download", lambda package, folder: made)
    package = fetch.Package("some", "1.0", "sdist", "0" * 64)
    with pytest.raises(fetch.Missing, match="is not the file that was published"):
        fetch.fetch(package, tmp_path / "data")
    with pytest.raises(fetch.Missing, match="it needs no-such-package 1, which is missing here"):
        fetch.fetch(fetch.Package("no-such-package", "1", "installed"), tmp_path)
    any_version = fetch.Package("pytest", "", "installed")
    fetch.fetch(any_version, tmp_path)
    assert fetch.version(any_version) == pytest.__version__
    with pytest.raises(fetch.Missing, match="it needs no-such-package, which is missing here"):
        fetch.fetch(replace(any_version, name="no-such-package"), tmp_path)


@pytest.mark.clause("SUITE-11")
def test_pip_knows_the_hash_before_it_runs_anything_of_a_package(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def pip(command: list[str], cwd: Path, **options: Any) -> None:
        asked.append((cwd / command[command.index("-r") + 1]).read_text())
        archive(cwd / "some-1.0.tar.gz", "package/a.txt")

    asked: list[str] = []
    monkeypatch.setattr(fetch.subprocess, "run", pip)
    with pytest.raises(fetch.Missing, match="is not the file"):
        fetch.fetch(fetch.Package("some", "1.0", "sdist", "0" * 64), tmp_path / "data")
    assert asked == [f"some==1.0 --hash=sha256:{'0' * 64}\n"]


@pytest.mark.clause("SUITE-12")
def test_rows_are_counted_merged_and_put_between_two_comments(tmp_path: Path) -> None:
    verdicts = [Verdict("a", "equal"), Verdict("b", "equal"), Verdict("c", "different"), Verdict("d", "refused", "why")]
    new = table.count("second on x", "theirs", verdicts, "2026-01-02")
    assert (new.tried, new.equal, new.different, new.refused) == (3, 2, 1, 1)
    old = [replace(new, suite=name, equal=7) for name in ("second on x", "second on y", "first", "server")]
    rows = table.merged(old, [new], ["first", "second"])
    assert [(row.suite, row.equal) for row in rows] == [
        ("first", 7),
        ("second on x", 2),
        ("second on y", 7),
        ("server", 7),
    ]
    table.write(rows, tmp_path / "others.json")
    assert table.read(tmp_path / "others.json") == rows
    readme = tmp_path / "README.md"
    readme.write_text(f"a\n{table.OPENS}\nold\n{table.CLOSES}\nb\n")
    table.put_into(readme, [new])
    assert table.block(readme.read_text())[1].splitlines()[2] == "| theirs | 3 | 2 | 1 | 1 |"
    assert readme.read_text().startswith("a\n") and readme.read_text().endswith(f"{table.CLOSES}\nb\n")
    with pytest.raises(ValueError, match="there is no"):
        table.block("no table")


@pytest.mark.clause("SUITE-12")
def test_the_table_in_the_readme_is_that_of_the_last_results() -> None:
    rows = table.read()
    assert {row.suite.split()[0] for row in rows} >= set(SUITES)
    assert table.block((ROOT / "README.md").read_text(encoding="utf-8"))[1] == table.rendered(rows), (
        "python benchmarks/others.py --readme"
    )


REPORT = """<testsuites><testsuite>
<testcase classname="a" name="passes"/>
<testcase classname="a" name="skips"><skipped message="takes no threads"/></testcase>
<testcase classname="a" name="fails"><failure message="too far off">long</failure></testcase>
<testcase classname="a" name="breaks"><error message="no backend">long</error></testcase>
</testsuite></testsuites>"""


@pytest.mark.clause("SUITE-10")
def test_the_command_keeps_results_where_all_is_explained(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    others, suite = importlib.import_module("others"), types.ModuleType("suites.made_up")
    suite.SOURCE = fetch.Source(fetch.Package("pytest", pytest.__version__, "installed"), "made up")  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "suites.made_up", suite)
    monkeypatch.setattr(others, "SUITES", ("made_up",))
    monkeypatch.setattr(sys, "argv", ["others.py", "made_up", "--json", str(tmp_path / "results.json")])
    for outcome, code in (("different", 1), ("equal", 0)):
        suite.run = lambda data, outcome=outcome: iter([Verdict("one", outcome)])  # type: ignore[attr-defined]
        assert others.main() == code
        assert (tmp_path / "results.json").exists() == (code == 0)
    (row,) = table.read(tmp_path / "results.json")
    assert (row.suite, row.equal, row.whose) == ("made_up", 1, f"pytest {pytest.__version__}, made up")
    suite.run = lambda data: iter([])  # type: ignore[attr-defined]
    assert others.main() == 1  # a suite that finds no cases is not well
    suite.SOURCE = fetch.Source(fetch.Package("pytest", "0.1", "installed"), "made up")  # type: ignore[attr-defined]
    assert others.main() == 2


@pytest.fixture
def command(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Any:
    """The command with two suites, `first` and `second`, and files of its own."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    others = importlib.import_module("others")
    monkeypatch.setattr(others, "SUITES", ("first", "second"))
    for name in others.SUITES:
        suite: Any = types.ModuleType(f"suites.{name}")
        suite.SOURCE = fetch.Source(fetch.Package("pytest", pytest.__version__, "installed"), name)
        suite.run = lambda data: iter([Verdict("one", "equal"), Verdict("two", "equal")])
        monkeypatch.setitem(sys.modules, f"suites.{name}", suite)
    monkeypatch.setattr(sys, "argv", ["others.py", "--json", str(tmp_path / "results.json")])
    return others


@pytest.mark.clause("SUITE-16")
def test_a_suite_that_has_lost_cases_fails_and_keeps_nothing(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    row = table.Row("second", f"pytest {pytest.__version__}, second", 2, 1, 0, "2026-01-01")
    monkeypatch.setattr(command.table, "read", lambda: [row])
    assert command.main() == 1 and not (tmp_path / "results.json").exists()
    assert "second: 2 cases were tried, and the last results of the same version have 3" in capsys.readouterr().out
    for same in (replace(row, different=0), replace(row, whose="pytest 0.1, second"), replace(row, suite="third")):
        monkeypatch.setattr(command.table, "read", lambda same=same: [same])
        assert command.main() == 0 and (tmp_path / "results.json").exists()


@pytest.mark.clause("SUITE-16")
def test_a_suite_that_breaks_is_one_line_and_the_others_run(
    command: Any, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    sys.modules["suites.first"].run = lambda data: iter({}["no such\n case"])  # type: ignore[attr-defined]
    assert command.main() == 1
    (line,) = capsys.readouterr().err.splitlines()
    assert line.startswith("first: KeyError: 'no such\\n case' (test_others.py, line ")
    assert [row.suite for row in table.read(tmp_path / "results.json")] == ["second"]


@pytest.mark.clause("SUITE-16")
def test_files_are_looked_at_before_anything_runs(
    command: Any, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def runs_nothing(*options: str) -> str:
        monkeypatch.setattr(sys, "argv", ["others.py", *options])
        assert command.main() == 2
        out, err = capsys.readouterr()
        assert out == "" and err.count("\n") == 1
        return err

    (tmp_path / "README.md").write_text("no table")
    monkeypatch.setattr(command, "README", tmp_path / "README.md")
    assert "there is no folder" in runs_nothing("--json", str(tmp_path / "none" / "results.json"))
    assert "is a folder" in runs_nothing("--json", str(tmp_path))
    assert "<!-- others -->" in runs_nothing("--readme")
    (tmp_path / "damaged.json").write_text('[{"suite": 1}]')
    monkeypatch.setattr(command.table, "read", lambda: table.read(tmp_path / "damaged.json"))
    assert "damaged.json does not hold results" in runs_nothing()


@pytest.mark.clause("SUITE-15")
def test_a_report_of_the_suite_becomes_verdicts() -> None:
    assert list(array_api.ended(REPORT)) == [
        Verdict("a::passes", "equal"),
        Verdict("a::skips", "refused", "takes no threads"),
        Verdict("a::fails", "different", "too far off"),
        Verdict("a::breaks", "different", "no backend"),
    ]

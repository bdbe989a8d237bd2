"""CLI-93 to CLI-96: clauses on the command line."""

from __future__ import annotations

import configparser
import json
import re
from importlib import metadata
from pathlib import Path, PurePosixPath
from types import SimpleNamespace

import pytest
from click import UsageError
from hypothesis import given
from hypothesis import strategies as st

from ferrum.cli import clauses
from ferrum.cli.clauses import INDEX, INSTALLED, Clause, line_of, read_index, read_subjects, specs_folder
from ferrum.cli.spec import as_object, choose, full, listing
from ferrum.errors import NotFound
from tests.cli.conftest import Invoke
from tests.house.source import ROOT

SUBJECTS = read_subjects(ROOT / "specs")
CLAUSES = {clause.id: clause for subject in SUBJECTS for clause in subject.clauses}
TESTS = read_index((ROOT / "specs" / INDEX).read_text(encoding="utf-8"))


@pytest.mark.clause("CLI-93")
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_every_clause_is_found_and_told_in_full(subject: clauses.Subject) -> None:
    assert choose(SUBJECTS, subject.name.lower()) is subject
    assert [line.split(maxsplit=1) for line in listing(subject).splitlines()[2:]] == [
        [clause.id, clause.title] for clause in subject.clauses
    ]
    for clause in subject.clauses:
        assert choose(SUBJECTS, clause.id.lower()) is clause
        told = full(clause, TESTS.get(clause.id, ()))
        parts = (
            clause.id,
            clause.title,
            clause.why,
            *(place.path for place in clause.places),
            *TESTS.get(clause.id, ()),
        )
        assert [part for part in parts if part not in told] == []


@pytest.mark.clause("CLI-93")
def test_a_clause_comes_with_its_code_and_its_tests(invoke: Invoke) -> None:
    result = invoke("spec", "kv-23")
    assert result.exit_code == 0
    line = line_of(ROOT / "ferrum/kv/pool.py", "BlockPool._evict")
    assert line is not None
    assert "def _evict(" in (ROOT / "ferrum/kv/pool.py").read_text(encoding="utf-8").splitlines()[line - 1]
    told = result.stdout.splitlines()
    assert told[0] == f"KV-23 {CLAUSES['KV-23'].title}"
    assert told[told.index("kept by") + 1] == f"  ferrum/kv/pool.py:{line}  BlockPool._evict"
    for test in told[told.index("proved by") + 1 :]:
        path, _, name = test.strip().partition("::")
        assert re.search(rf"(?:def|class) {name}\(|^{name} = ", (ROOT / path).read_text(encoding="utf-8"), re.MULTILINE)


@pytest.mark.clause("CLI-93")
def test_without_an_id_the_files_are_listed(invoke: Invoke) -> None:
    result = invoke("spec")
    assert [line.split()[:2] for line in result.stdout.splitlines()] == [
        [subject.name, str(len(subject.clauses))] for subject in SUBJECTS
    ]


@pytest.mark.clause("CLI-93")
@pytest.mark.parametrize(
    ("kept_by", "lines"),
    [
        ("everything", ["  everything"]),
        ("`ferrum/a/` and `ferrum/b/`", ["  ferrum/a/", "  ferrum/b/"]),
        ("every module of `ferrum/a/`", ["  every module of `ferrum/a/`", "  ferrum/a/"]),
    ],
)
def test_words_beside_the_names_of_files_are_told(kept_by: str, lines: list[str]) -> None:
    told = full(Clause("A-01", "It holds.", "", kept_by), ["tests/a.py"])
    assert told.splitlines() == ["A-01 It holds.", "", "kept by", *lines, "", "proved by", "  tests/a.py"]


@pytest.mark.clause("CLI-94")
@given(st.text().filter(lambda text: text.upper() not in {*CLAUSES, *(subject.name for subject in SUBJECTS)}))
def test_an_unknown_id_is_wrong_usage(wanted: str) -> None:
    with pytest.raises(UsageError, match=r"the nearest are [A-Z]+|lists the files of clauses"):
        choose(SUBJECTS, wanted)


@pytest.mark.clause("CLI-94")
def test_the_nearest_ids_are_named(invoke: Invoke) -> None:
    result = invoke("spec", "kv-7")
    assert (result.exit_code, result.stdout) == (2, "")
    assert result.stderr.startswith("error: there is no clause 'kv-7'; the nearest are KV-07")
    assert result.stderr.count("\n") == 1


@pytest.mark.clause("CLI-94")
@pytest.mark.parametrize("wanted", ["nonsense", "../../etc/passwd", "x" * 100_000])
def test_nothing_is_offered_that_is_not_like_it(wanted: str) -> None:
    with pytest.raises(UsageError, match="lists the files of clauses"):
        choose(SUBJECTS, wanted)


@pytest.mark.clause("CLI-96")
def test_the_same_for_programs(invoke: Invoke) -> None:
    assert [entry["id"] for entry in json.loads(invoke("spec", "--json").stdout)] == [s.name for s in SUBJECTS]
    of_file = json.loads(invoke("spec", "KV", "--json").stdout)
    assert of_file == [{"id": i, "title": c.title} for i, c in CLAUSES.items() if i.startswith("KV-")]
    told = json.loads(invoke("spec", "KV-23", "--json").stdout)
    assert told == as_object(CLAUSES["KV-23"], TESTS["KV-23"])
    assert list(told) == ["id", "title", "why", "kept_by", "places", "tests"]
    assert told["places"][0]["path"] == "ferrum/kv/pool.py" and told["tests"] == list(TESTS["KV-23"])


@pytest.mark.clause("CLI-96")
def test_what_is_no_source_file_has_no_line() -> None:
    clause = Clause("A-01", "", "", "`x` in `tests/nowhere.py`, `ferrum/kv/`")
    assert as_object(clause, ())["places"] == [
        {"path": "tests/nowhere.py", "name": "x", "line": None},
        {"path": "ferrum/kv/", "name": None, "line": None},
    ]


@pytest.mark.clause("CLI-95")
def test_every_file_of_clauses_goes_into_the_wheel() -> None:
    setup = configparser.RawConfigParser()
    setup.read(ROOT / "setup.cfg", encoding="utf-8")
    pattern = setup["options.data_files"][INSTALLED]
    assert set(ROOT.glob(pattern)) == set((ROOT / "specs").rglob("*.md"))


@pytest.mark.clause("CLI-95")
@pytest.mark.parametrize("recorded", [True, False], ids=["where the installer says", "beside the package"])
def test_installed_clauses_are_found(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, recorded: bool) -> None:
    packages = tmp_path / "lib" / "site-packages"
    folder = (tmp_path if recorded else packages) / INSTALLED
    packages.mkdir(parents=True)
    folder.mkdir(parents=True)
    (folder / INDEX).touch()
    files = [recorded_file("ferrum/cli/spec.py", packages), recorded_file(f"../../{INSTALLED}/{INDEX}", packages)]
    monkeypatch.setattr(clauses, "ROOT", packages)
    monkeypatch.setattr(metadata, "files", lambda name: files if recorded else None)
    assert specs_folder().resolve() == folder


@pytest.mark.clause("CLI-95")
@pytest.mark.parametrize("distribution", [True, False])
def test_clauses_that_are_missing_are_told_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, distribution: bool
) -> None:
    def files(name: str) -> list[object]:
        if not distribution:
            raise metadata.PackageNotFoundError(name)
        return [recorded_file(f"../../{INSTALLED}/{INDEX}", tmp_path)]

    monkeypatch.setattr(clauses, "ROOT", tmp_path)
    monkeypatch.setattr(metadata, "files", files)
    with pytest.raises(NotFound, match="lacks share/ferrum-ref/specs"):
        specs_folder()


def recorded_file(path: str, packages: Path) -> object:
    """One line of an installer's record."""
    return SimpleNamespace(as_posix=lambda: str(PurePosixPath(path)), locate=lambda: packages / path)

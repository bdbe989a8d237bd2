"""HOUSE-04: clauses and tests know each other."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.house.source import ROOT, parse

HEADING = re.compile(r"^### (\S+) (.+)$", re.MULTILINE)
ID = re.compile(r"[A-Z]+[A-Z0-9]*-\d{2,}")


def headings() -> list[tuple[Path, str]]:
    """(file, id) of every clause, in file order; specs/README.md only explains what clauses are."""
    files = sorted(path for path in (ROOT / "specs").glob("*.md") if path.name != "README.md")
    return [(path, found[1]) for path in files for found in HEADING.finditer(path.read_text(encoding="utf-8"))]


def marks(tree: ast.Module) -> Iterator[str]:
    """Every id in a call `….mark.clause("A-01", …)` whose arguments are literal."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "clause":
            yield from (a.value for a in node.args if isinstance(a, ast.Constant) and isinstance(a.value, str))


def marked() -> dict[str, Path]:
    """Each id that a test names, with one file that names it."""
    folders = [ROOT / "tests", ROOT / "ferrum" / "conformance"]
    files = sorted(path for folder in folders for path in folder.rglob("*.py"))
    return {identifier: path for path in files for identifier in marks(parse(path))}


@pytest.mark.clause("HOUSE-04")
def test_every_clause_has_a_test() -> None:
    named = marked()
    untested = [identifier for _, identifier in headings() if identifier not in named]
    assert untested == []


@pytest.mark.clause("HOUSE-04")
def test_every_mark_names_a_clause() -> None:
    known = {identifier for _, identifier in headings()}
    unknown = {name: str(path.relative_to(ROOT)) for name, path in marked().items() if name not in known}
    assert unknown == {}


@pytest.mark.clause("HOUSE-04")
def test_ids_are_unique_and_belong_to_their_file() -> None:
    found = headings()
    assert [identifier for identifier, count in Counter(i for _, i in found).items() if count > 1] == []
    for path, identifier in found:
        assert ID.fullmatch(identifier), f"{path.name}: {identifier} is not a clause id"
        assert identifier.rpartition("-")[0] == path.stem, f"{identifier} stands in {path.name}"


@pytest.mark.clause("HOUSE-04")
def test_the_collector_sees_marks() -> None:
    source = '@pytest.mark.clause("A-01")\n@pytest.mark.clause("A-02", "A-03")\ndef test(): ...\nclause = "A-04"'
    assert sorted(marks(ast.parse(source))) == ["A-01", "A-02", "A-03"]
    assert HEADING.findall("# A\n### A-01 Something holds.\n#### not one\n") == [("A-01", "Something holds.")]

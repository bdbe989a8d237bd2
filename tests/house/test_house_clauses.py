"""HOUSE-04: every clause has a test, and every mark names a clause."""

from __future__ import annotations

import ast
import re
from collections import Counter

import pytest

from ferrum.cli.clauses import Clause, Place, read_subject, read_subjects
from tests.house.index import SPECS, marks, proofs

ID = re.compile(r"[A-Z]+[A-Z0-9]*-\d{2,}")


@pytest.mark.clause("HOUSE-04")
def test_every_clause_has_a_test() -> None:
    proved = proofs()
    ids = [clause.id for subject in read_subjects(SPECS) for clause in subject.clauses]
    assert [identifier for identifier in ids if identifier not in proved] == []


@pytest.mark.clause("HOUSE-04")
def test_every_mark_names_a_clause() -> None:
    known = {clause.id for subject in read_subjects(SPECS) for clause in subject.clauses}
    assert {name: list(files) for name, files in proofs().items() if name not in known} == {}


@pytest.mark.clause("HOUSE-04")
def test_ids_are_unique_and_belong_to_their_file() -> None:
    found = [(subject.name, clause.id) for subject in read_subjects(SPECS) for clause in subject.clauses]
    assert [identifier for identifier, count in Counter(i for _, i in found).items() if count > 1] == []
    for name, identifier in found:
        assert ID.fullmatch(identifier), f"{name}.md: {identifier} is not a clause id"
        assert identifier.rpartition("-")[0] == name, f"{identifier} stands in {name}.md"


@pytest.mark.clause("HOUSE-04")
def test_the_collector_sees_marks() -> None:
    source = (
        'pytestmark = pytest.mark.clause("A-01")\n'
        'class TestPool:\n    @pytest.mark.clause("A-02", "A-03")\n    def test(self): ...\n'
        '@pytest.mark.parametrize("x", [pytest.param(1, marks=pytest.mark.clause("A-04"))])\nasync def test(x): ...\n'
        'clause = "A-05"'
    )
    assert list(marks(ast.parse(source))) == [
        ("A-01", ""), ("A-02", "TestPool::test"), ("A-03", "TestPool::test"), ("A-04", "test")
    ]  # fmt: skip


@pytest.mark.clause("HOUSE-04")
def test_the_reader_sees_clauses() -> None:
    text = (
        "# A: about it\nWords.\n## Part\n### A-01 Something holds.\nBecause 1.5 > 1. Kept by: `f`, `G.h` and `I` in\n"
        "`x/y.py`, `x/z.py`. Paper: 1.2.\n\n## Another part\n### A-02 More.\n#### not one\nKept by: everything.\n"
    )
    subject = read_subject("A", text)
    assert (subject.name, subject.title) == ("A", "about it")
    kept = "`f`, `G.h` and `I` in `x/y.py`, `x/z.py`"
    assert subject.clauses == (
        Clause("A-01", "Something holds.", "Because 1.5 > 1. Paper: 1.2.", kept),
        Clause("A-02", "More.", "#### not one", "everything"),
    )
    assert subject.clauses[0].places == (Place("x/y.py", ("f", "G.h", "I")), Place("x/z.py"))

"""HOUSE-13 to HOUSE-15: clauses name code that exists, and the index agrees with clauses and tests."""

from __future__ import annotations

import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from ferrum.cli.clauses import INDEX, PLACE, Clause, Subject, line_of, read_index, read_subjects
from tests.house.index import SPECS, anchor, proofs, render
from tests.house.source import EXEMPT, ROOT, Module, modules

SUBJECTS = read_subjects(SPECS)
MENTIONED = re.compile(r"\b([A-Z]{2,})-(\d{2,3})\b")


def amiss(clause: Clause) -> Iterator[str]:
    """The mistakes of a clause's "Kept by", one sentence each."""
    if not clause.kept_by:
        yield f"{clause.id} does not say what keeps it: 'Kept by: `FILE`.'"
    if "`" in PLACE.sub("", clause.kept_by):
        yield f"{clause.id} names something without its file: write 'Kept by: `NAME` in `FILE`.'"
    for place in clause.places:
        path = ROOT / place.path
        if not path.exists():
            yield f"{clause.id} names {place.path}, which does not exist"
        elif unknown := [name for name in place.names if line_of(path, name) is None]:
            yield f"{place.path} does not define {', '.join(unknown)}, which {clause.id} names"


@pytest.mark.clause("HOUSE-13")
@pytest.mark.parametrize("subject", SUBJECTS, ids=lambda subject: subject.name)
def test_what_keeps_a_clause_is_there(subject: Subject) -> None:
    assert [sentence for clause in subject.clauses for sentence in amiss(clause)] == []


@pytest.mark.clause("HOUSE-13")
@pytest.mark.parametrize(
    ("kept_by", "good"),
    [
        ("", False),
        ("everything", True),
        ("`BlockPool._evict` and `BlockPool` in `ferrum/kv/pool.py`", True),
        ("`BlockPool.nothing` in `ferrum/kv/pool.py`", False),
        ("`BlockPool`", False),
        ("`pool.py`", False),
        ("every module of `ferrum/kv/`", True),
        ("`ferrum/kv/puddle.py`", False),
        ("`TokenPanel` in `ferrum/server/page.html`", True),
        ("`PokenTanel` in `ferrum/server/page.html`", False),
    ],
)
def test_the_rule_of_places_itself(kept_by: str, good: bool) -> None:
    assert (not list(amiss(Clause("A-01", "", "", kept_by)))) == good


@pytest.mark.clause("HOUSE-13")
def test_names_are_found_where_they_are_defined(tmp_path: Path) -> None:
    script = (
        "// f(x) is\nconst y = f(1);\nfunction g(x) {\n}\nstruct H {\nf(2);\n  return i(3)\n#f { gap: 0; }\n"
        "  f(x, y) {\nasync function* i(j) {\nstatic __global__ void __bounds__(9) k(\n"
    )
    for name, text, lines in [
        ("a.py", "X: int = 1\nclass A:\n    y = 2\n    async def z(self): ...\ndef z(): ...\n",
         {"X": 1, "A": 2, "A.y": 3, "A.z": 4, "z": 5, "y": None, "B": None}),
        ("a.js", script, {"y": 2, "g": 3, "T.g": 3, "H": 5, "f": 9, "i": 10, "j": None, "k": 11, "h": None}),
    ]:  # fmt: skip
        path = tmp_path / name
        path.write_text(text)
        assert {name: line_of(path, name) for name in lines} == lines


@pytest.mark.clause("HOUSE-13")
@pytest.mark.parametrize("module", modules(), ids=str)
def test_ids_in_the_source_are_ids_of_clauses(module: Module) -> None:
    known = {clause.id for subject in SUBJECTS for clause in subject.clauses}
    rooms = {subject.name for subject in SUBJECTS}
    named = {f"{room}-{number}" for room, number in MENTIONED.findall(module.text) if room in rooms}
    assert named <= known


@pytest.mark.clause("HOUSE-14")
def test_every_module_keeps_a_clause() -> None:
    named = {place.path for subject in SUBJECTS for clause in subject.clauses for place in clause.places}
    judges = {"conftest.py", "__init__.py"}
    files = [module.path for module in modules() if module.room not in EXEMPT and module.path.name not in judges]
    assert [path for path in (file.relative_to(ROOT).as_posix() for file in files) if path not in named] == []


@pytest.mark.clause("HOUSE-15")
def test_the_index_is_fresh() -> None:
    fresh = render(SUBJECTS, proofs())
    assert (SPECS / INDEX).read_text(encoding="utf-8") == fresh, "write it anew with: python -m tests.house.index"


@pytest.mark.clause("HOUSE-15")
def test_the_index_is_read_as_it_was_written() -> None:
    tests = {"A-01": {"tests/a.py": ["test_x", "T::test_y"], "tests/b.py": []}}
    clauses = (Clause("A-01", "It holds: `x` > 0.", "", "`x` in `a/b.py`"), Clause("A-02", "More.", "", "everything"))
    text = render([Subject("A", "about it", clauses)], tests)
    assert "(A.md#a-01-it-holds-x--0)** It holds" in text
    assert read_index(text) == {"A-01": ("tests/a.py::test_x", "tests/a.py::T::test_y", "tests/b.py"), "A-02": ()}
    assert anchor("KV-07 All layers, one (id) space") == "kv-07-all-layers-one-id-space"

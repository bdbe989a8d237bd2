"""`specs/INDEX.md`: every clause with the code that keeps it and the tests that prove it.

`python -m tests.house.index` writes it anew.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator
from functools import cache
from pathlib import Path

from ferrum.cli.clauses import INDEX, Clause, Place, Subject, read_subjects
from tests.house.source import ROOT, parse

SPECS = ROOT / "specs"
HEAD = """\
# Index of clauses

Every clause, the code that keeps it, and the tests that prove it. `ferrum-ref spec ID` prints one in full.
`python -m tests.house.index` makes this file from the others here and from the marks of the tests.
"""


def marks(node: ast.AST, owner: str = "") -> Iterator[tuple[str, str]]:
    """(id, test) of every id in a call `….mark.clause("A-01", …)` with literal arguments. The test is the marked
    function or class, `TestPool::test_release` in a class; empty if the whole file is marked."""
    for child in ast.iter_child_nodes(node):
        if isinstance(child, ast.Call) and isinstance(child.func, ast.Attribute) and child.func.attr == "clause":
            values = [argument.value for argument in child.args if isinstance(argument, ast.Constant)]
            yield from ((value, owner) for value in values if isinstance(value, str))
        named = isinstance(child, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef))
        yield from marks(child, f"{owner}::{child.name}".lstrip(":") if named else owner)


def files_of_tests() -> list[Path]:
    """The files that may contain tests."""
    folders = [ROOT / "tests", ROOT / "ferrum" / "conformance", ROOT / "meta_tests"]
    return sorted(path for folder in folders for path in folder.rglob("*.py"))


@cache
def proofs() -> dict[str, dict[str, list[str]]]:
    """The tests that prove each clause, by file."""
    found: dict[str, dict[str, list[str]]] = {}
    for path in files_of_tests():
        for identifier, test in marks(parse(path)):
            of_file = found.setdefault(identifier, {}).setdefault(path.relative_to(ROOT).as_posix(), [])
            if test and test not in of_file:
                of_file.append(test)
    return found


def render(subjects: Iterable[Subject], tests: dict[str, dict[str, list[str]]]) -> str:
    """The text of the index."""
    lines = [HEAD]
    for subject in subjects:
        lines.append(f"## [{subject.name}]({subject.name}.md): {subject.title}\n")
        for clause in subject.clauses:
            lines += entry(subject, clause, tests.get(clause.id, {}))
        lines.append("")
    return "\n".join(lines)


def entry(subject: Subject, clause: Clause, tests: dict[str, list[str]]) -> Iterator[str]:
    """The lines of one clause."""
    yield f"- **[{clause.id}]({subject.name}.md#{anchor(f'{clause.id} {clause.title}')})** {clause.title}"
    yield f"  - kept by {', '.join(map(kept, clause.places)) or clause.kept_by}"
    for path, names in tests.items():
        yield f"  - proved by {link(path)}{': ' if names else ''}{', '.join(f'`{name}`' for name in names)}"


def kept(place: Place) -> str:
    return f"{link(place.path)}{' ' if place.names else ''}{', '.join(f'`{name}`' for name in place.names)}"


def link(path: str) -> str:
    return f"[{path.rstrip('/').rpartition('/')[2]}](../{path})"


def anchor(heading: str) -> str:
    """GitHub's name for a heading in links."""
    return re.sub(r"[^\w\- ]", "", heading.lower()).replace(" ", "-")


if __name__ == "__main__":
    (SPECS / INDEX).write_text(render(read_subjects(SPECS), proofs()), encoding="utf-8")

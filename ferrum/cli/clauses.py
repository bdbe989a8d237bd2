"""The clauses of `specs/`, read from Markdown, and the lines of code that they name.

Owns: the form of a clause (`specs/README.md`), where the files of clauses are in a checkout and beside an installed
package, and the tests that `specs/INDEX.md` names. Refuses to know: how a clause is shown, and whether it is true.
Specs: CLI-93, CLI-95, HOUSE-13. Next: `ferrum.cli.spec`.
"""

from __future__ import annotations

import ast
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from importlib import metadata
from pathlib import Path

from ferrum.errors import NotFound

ROOT = Path(__file__).resolve().parents[2]
"""The folder that `ferrum` lies in: a checkout, or the place of installed packages."""
INDEX = "INDEX.md"
NO_CLAUSES = {"README.md", INDEX}
"""Files of `specs/` that are about clauses and state none."""
INSTALLED = "share/ferrum-ref/specs"
"""Where setup.cfg puts the files, under the folder of an installation."""

HEADING = re.compile(r"^### (?P<id>\S+) (?P<title>.+)$", re.MULTILINE)
SECTION = re.compile(r"^##? ", re.MULTILINE)
KEPT_BY = re.compile(r"\s*\bKept by:\s+(?P<words>(?:`[^`]*`|[^.`]|\.(?!\s|$))+)\.")
PLACE = re.compile(r"(?:(?P<names>(?:`[^`/]+`(?:, | and )?)+) in )?`(?P<path>[^`]*/[^`]*)`")
INDEXED = re.compile(r"^- \*\*\[(?P<id>\S+)\]")
PROVED_BY = re.compile(r"^  - proved by \[[^\]]+\]\(\.\./(?P<path>[^)]+)\)(?:: (?P<names>.*))?$")


@dataclass(frozen=True)
class Place:
    """A file or folder that keeps a clause, and the names in it that do; no names if the whole file does."""

    path: str  # from the root of the project: "ferrum/kv/pool.py"
    names: tuple[str, ...] = ()  # "BlockPool._evict"


@dataclass(frozen=True)
class Clause:
    """One promise."""

    id: str  # "KV-07"
    title: str  # the promise in a sentence
    why: str
    kept_by: str  # the words after "Kept by:", on one line; empty where there are none

    @property
    def places(self) -> tuple[Place, ...]:
        """The code that `kept_by` names."""
        matches = PLACE.finditer(self.kept_by)
        return tuple(Place(place["path"], tuple(quotations(place["names"]))) for place in matches)

    @property
    def says_more(self) -> bool:
        """True if `kept_by` has words beside those that name code."""
        return bool(re.sub(r"\band\b|\W", "", PLACE.sub("", self.kept_by)))


@dataclass(frozen=True)
class Subject:
    """One file of clauses."""

    name: str  # "KV", with which the ids of its clauses begin
    title: str
    clauses: tuple[Clause, ...]


def quotations(text: str | None) -> list[str]:
    """The texts between backticks."""
    return re.findall(r"`([^`]+)`", text or "")


def read_subject(name: str, text: str) -> Subject:
    """The clauses of one file, in their order there."""
    parts = HEADING.split(text)  # what comes before the first clause, then id, title and body of each
    title = re.sub(rf"^# (?:{name}: )?(.*)[\s\S]*", r"\1", parts[0].lstrip())
    bodies = (SECTION.split(body)[0] for body in parts[3::3])
    return Subject(name, title, tuple(map(_clause, parts[1::3], parts[2::3], bodies)))


def _clause(identifier: str, title: str, body: str) -> Clause:
    keepers = KEPT_BY.search(body)
    why = body if keepers is None else body[: keepers.start()] + body[keepers.end() :]
    return Clause(identifier, title, why.strip(), "" if keepers is None else " ".join(keepers["words"].split()))


def read_subjects(folder: Path) -> list[Subject]:
    """All clauses, by file."""
    files = sorted(path for path in folder.glob("*.md") if path.name not in NO_CLAUSES)
    return [read_subject(path.stem, path.read_text(encoding="utf-8")) for path in files]


def read_index(text: str) -> Mapping[str, tuple[str, ...]]:
    """The tests that prove each clause, as pytest names them: `tests/kv/test_kv_pool.py::test_release`."""
    tests: dict[str, list[str]] = {}
    for line in text.splitlines():
        if entry := INDEXED.match(line):
            of_clause = tests.setdefault(entry["id"], [])
        elif proof := PROVED_BY.match(line):
            of_clause += [f"{proof['path']}::{name}" for name in quotations(proof["names"])] or [proof["path"]]
    return {identifier: tuple(names) for identifier, names in tests.items()}


def specs_folder() -> Path:
    """Where the files of clauses are, or NotFound."""
    checkout = ROOT / "specs"
    if (ROOT / "setup.cfg").is_file() and (checkout / INDEX).is_file():
        return checkout
    for folder in (ROOT / INSTALLED, *_recorded()):
        if (folder / INDEX).is_file():
            return folder
    raise NotFound(f"this installation lacks {INSTALLED}, which holds the clauses; install ferrum-ref again, with pip")


def _recorded() -> list[Path]:
    """The folder that the installer has recorded: it may be any folder."""
    try:
        files = metadata.files("ferrum-ref") or []
    except metadata.PackageNotFoundError:
        return []
    return [Path(str(file.locate())).parent for file in files if file.as_posix().endswith(f"{INSTALLED}/{INDEX}")]


def line_of(path: Path, name: str) -> int | None:
    """The line on which `name`, which may be a method (`BlockPool.release`), is defined; None where it is not."""
    text = path.read_text(encoding="utf-8")
    if path.suffix == ".py":
        return next((line for found, line in python_definitions(ast.parse(text)) if found == name), None)
    return _other(text, name.rpartition(".")[2])


def python_definitions(node: ast.Module | ast.ClassDef, within: str = "") -> Iterator[tuple[str, int]]:
    """(name, line) of functions, classes and variables of a module, and of those in its classes."""
    for child in node.body:
        if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            yield within + child.name, child.lineno
        if isinstance(child, ast.ClassDef):
            yield from python_definitions(child, f"{within}{child.name}.")
        targets = child.targets if isinstance(child, ast.Assign) else [getattr(child, "target", None)]
        yield from ((within + target.id, child.lineno) for target in targets if isinstance(target, ast.Name))


def _other(text: str, name: str) -> int | None:
    """In C++ and JavaScript: the first line that begins with words and the name, as `class A`, `static int f(`,
    `f(x) {` and `const y =` do. A call does not: it is a statement, or something else stands before it."""
    word = re.escape(name)
    declared = rf"(?:async +)?(?:function *\*?|class|struct|enum|const|let|var|#define) *\b{word}\b"
    made = rf"(?!return|await|throw|else)(?:[\w:<>\"]+(?:\(\d+\))?[ *&]+)*{word} *(?:=(?!=)|\((?!.*; *$))"
    found = re.search(rf"^[ \t]*(?:{declared}|{made})", text, re.MULTILINE)
    return None if found is None else text.count("\n", 0, found.start()) + 1

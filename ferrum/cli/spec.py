"""`ferrum-ref spec`: the promises of the project, the code that keeps them, the tests that prove them.

Owns: how clauses are chosen and shown. Refuses to know: how they are written down (`ferrum.cli.clauses`).
Specs: CLI-93 to CLI-96. Next: `ferrum.testing.profiles`.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from difflib import SequenceMatcher
from typing import Any

import click

from ferrum.cli.clauses import INDEX, ROOT, Clause, Place, Subject, line_of, read_index, read_subjects, specs_folder
from ferrum.cli.options import debug_option, json_option
from ferrum.cli.terminal import as_json as json_line
from ferrum.errors import listed

NEAREST, ALIKE = 5, 0.6
"""Number of ids that are suggested in place of an unknown id, and their least similarity, from 0 to 1."""
LONGEST = 40
"""Characters of an unknown id that are compared: no id is longer."""
ALL = "ferrum-ref spec lists the files of clauses, and ferrum-ref spec KV the clauses of KV.md"
"""The hint if no id is similar."""


@click.command()
@click.argument("id", required=False, metavar="[ID]")
@json_option
@debug_option
def spec(id: str | None, as_json: bool) -> None:
    """Print clause ID, why it holds, the code that keeps it and the tests that prove it.

    If ID is only the word before the number, such as KV, print all clauses of this word; without ID, print the words.
    """
    folder = specs_folder()
    subjects = read_subjects(folder)
    if id is None:
        click.echo(json_line([about(subject) for subject in subjects]) if as_json else contents(subjects))
        return
    chosen = choose(subjects, id)
    if isinstance(chosen, Subject):
        click.echo(json_line(as_list(chosen)) if as_json else listing(chosen))
        return
    tests = read_index((folder / INDEX).read_text(encoding="utf-8")).get(chosen.id, ())
    click.echo(json_line(as_object(chosen, tests)) if as_json else full(chosen, tests))


def choose(subjects: Sequence[Subject], subject_name: str) -> Subject | Clause:
    """The file or clause of this name, whatever its case."""
    by_name: dict[str, Subject | Clause] = {subject.name: subject for subject in subjects}
    by_name |= {clause.id: clause for subject in subjects for clause in subject.clauses}
    if match := by_name.get(subject_name.upper()):
        return match
    alike = {name: SequenceMatcher(None, subject_name.upper()[:LONGEST], name).ratio() for name in by_name}
    near = sorted((name for name in by_name if alike[name] >= ALIKE), key=lambda name: (-alike[name], name))[:NEAREST]
    hint = f"the nearest are {', '.join(near)}" if near else ALL
    raise click.UsageError(f"there is no clause {listed([subject_name])}; {hint}")


def located(places: Sequence[Place]) -> Iterator[tuple[str, str | None, int | None]]:
    """(path, name, line) of the code that keeps a clause; without a line if the source is not installed."""
    for place in places:
        path = ROOT / place.path
        for name in place.names:
            yield place.path, name, line_of(path, name) if path.is_file() else None
        if not place.names:
            yield place.path, None, None


def contents(subjects: Sequence[Subject]) -> str:
    """The files of clauses, one per line."""
    longest = max(len(subject.name) for subject in subjects)
    return "\n".join(f"{s.name:<{longest}}  {len(s.clauses):>3}  {s.title}" for s in subjects)


def listing(subject: Subject) -> str:
    """The clauses of one file, one per line."""
    longest = max(len(clause.id) for clause in subject.clauses)
    rows = [f"{clause.id:<{longest}}  {clause.title}" for clause in subject.clauses]
    return "\n".join([f"{subject.name}: {subject.title}", "", *rows])


def full(clause: Clause, tests: Sequence[str]) -> str:
    """Everything about one clause."""
    where = [
        path if name is None else f"{path}{'' if line is None else f':{line}'}  {name}"
        for path, name, line in located(clause.places)
    ]
    if clause.says_more:
        where.insert(0, clause.kept_by)
    parts = [f"{clause.id} {clause.title}", clause.why, block("kept by", where), block("proved by", tests)]
    return "\n\n".join(part for part in parts if part)


def block(title: str, lines: Sequence[str]) -> str:
    """A title, and lines below it."""
    return "\n  ".join([title, *lines])


def about(subject: Subject) -> dict[str, Any]:
    """The object that --json prints for a file in a list."""
    return {"id": subject.name, "title": subject.title, "clauses": len(subject.clauses)}


def as_list(subject: Subject) -> list[dict[str, Any]]:
    """The list that --json prints for one file."""
    return [{"id": clause.id, "title": clause.title} for clause in subject.clauses]


def as_object(clause: Clause, tests: Sequence[str]) -> dict[str, Any]:
    """The object that --json prints for one clause."""
    return {
        "id": clause.id,
        "title": clause.title,
        "why": clause.why,
        "kept_by": clause.kept_by,
        "places": [{"path": path, "name": name, "line": line} for path, name, line in located(clause.places)],
        "tests": list(tests),
    }

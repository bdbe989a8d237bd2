"""The table of faults and of the tests that found them, as Markdown.

Owns: its form, written and read again, so that one room can be judged anew. Refuses to know: how it came about.
Specs: PROOF-04. Next: `meta_tests.run`.
"""

from __future__ import annotations

import platform
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from datetime import date
from pathlib import Path

from meta_tests.fault import Fault

SURVIVED = "**none: it survives**"
_ROW = re.compile(r"^\| (?P<name>\S+) \| (?P<room>\S+) \| (?P<harm>.*) \| (?P<by>.*) \| (?P<seconds>[\d.]+) \|$")
_PARAMETERS = re.compile(r"\[.*", re.DOTALL)


@dataclass(frozen=True)
class Row:
    """`by`: the test that found the fault first, without parameters; None if no test did."""

    by: str | None
    seconds: float


def read(path: Path) -> dict[str, Row]:
    """The rows by the names of their faults; empty if there is no file."""
    if not path.is_file():
        return {}
    found = filter(None, map(_ROW.match, path.read_text(encoding="utf-8").splitlines()))
    return {
        row["name"]: Row(None if row["by"] == SURVIVED else row["by"].strip("`"), float(row["seconds"]))
        for row in found
    }


def row_of(caught_by: str | None, seconds: float) -> Row:
    """The row of a result. Parameters of the test are left out, since they can contain any character."""
    return Row(None if caught_by is None else _PARAMETERS.sub("", caught_by).replace("|", " "), round(seconds, 1))


def written(faults: Sequence[Fault], rows: Mapping[str, Row]) -> str:
    """The text of the whole file, without the faults that have no row."""
    judged = [fault for fault in faults if fault.name in rows]
    caught = [fault for fault in judged if rows[fault.name].by is not None]
    return "\n".join(
        [
            "# Planted faults, and the tests that found them",
            "",
            f"Caught: {len(caught)} of {len(judged)}. Judged room by room by the judge of `python -m meta_tests`, last "
            f"on {date.today()}, {platform.machine()}, Python {platform.python_version()}.",
            "Each fault was there alone, and the tests are those of its room or, where that takes long, of its file:",
            "the first that failed is named, and the seconds until then, on a machine that did other things as well.",
            "",
            "| room | faults | caught |",
            "|---|---|---|",
            *_totals(judged, rows),
            "",
            "| fault | room | what goes wrong | found first by | s |",
            "|---|---|---|---|---|",
            *(_line(fault, rows[fault.name]) for fault in judged),
            "",
            *_backends(),
            "",
        ]
    )


def _backends() -> Iterable[str]:
    """The part about the faulty backends, which is derived from their docstrings."""
    from meta_tests import backends

    every = backends.faults()
    yield from (
        "## Faulty backends",
        "",
        f"Caught: {len(every)} of {len(every)}. Every run of the tests (`meta_tests/backends/test_faults.py`) fails "
        "where one is not caught by each property that it names,",
        "and where that property does not pass without the fault. `python -m meta_tests --room backends` has the whole "
        "suite look at each.",
        "",
        "| fault | what a kernel does wrong | found by |",
        "|---|---|---|",
    )
    for fault in every:
        names = ", ".join(f"`{name}`" for name in dict.fromkeys(proof.property for proof in fault.proofs))
        yield f"| {fault.name} | {fault.sentence.replace('|', ' ')} | {names} |"


def _totals(judged: Iterable[Fault], rows: Mapping[str, Row]) -> Iterable[str]:
    by_room: dict[str, list[bool]] = {}
    for fault in judged:
        by_room.setdefault(fault.room, []).append(rows[fault.name].by is not None)
    return (f"| {room} | {len(found)} | {sum(found)} |" for room, found in by_room.items())


def _line(fault: Fault, row: Row) -> str:
    by = SURVIVED if row.by is None else f"`{row.by}`"
    return f"| {fault.name} | {fault.room} | {fault.harm.replace('|', ' ')} | {by} | {row.seconds:.1f} |"

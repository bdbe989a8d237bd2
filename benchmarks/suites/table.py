"""What became of a suite, as a row; rows as a file of results and as the table in README.md.

Owns: `benchmarks/results/others.json`, and what stands between the two comments in README.md.
Refuses to know: suites. Specs: SUITE-12. Next: `benchmarks/suites/onnx_nodes.py`.
"""

from __future__ import annotations

import json
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

from .verdict import Verdict

RESULTS = Path(__file__).parents[1] / "results" / "others.json"
OPENS, CLOSES = "<!-- others -->", "<!-- /others -->"
HEADINGS = ("whose tests", "tried", "equal", "different, explained", "refused")


@dataclass(frozen=True)
class Row:
    """How many cases of a suite ended how. `suite` names the module, and the backend where each has a row."""

    suite: str
    whose: str  # package, version, and what of it
    equal: int
    different: int
    refused: int
    date: str

    @property
    def tried(self) -> int:
        return self.equal + self.different


def count(suite: str, whose: str, verdicts: Iterable[Verdict], date: str) -> Row:
    counted = Counter(verdict.outcome for verdict in verdicts)
    numbers = (counted[outcome] for outcome in ("equal", "different", "refused"))
    return Row(suite, whose, *numbers, date=date)


def read(path: Path = RESULTS) -> list[Row]:
    """None where there is no file. Raises ValueError for a file of anything else."""
    try:
        return [Row(**row) for row in json.loads(path.read_text(encoding="utf-8"))] if path.exists() else []
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path} does not hold results of suites: {error}") from None


def fewer(old: Iterable[Row], new: Iterable[Row]) -> list[str]:
    """Sentences on suites that try fewer cases than last time of the same version: a reader has lost some."""
    tried = {(row.suite, row.whose): row.tried for row in old}
    return [
        f"{row.suite}: {row.tried} cases were tried, and the last results of the same version have {before}"
        for row in new
        if row.tried < (before := tried.get((row.suite, row.whose), 0))
    ]


def check_file(path: Path) -> None:
    """Checks that results can be written there. Raises ValueError."""
    if path.is_dir() or not path.parent.is_dir():
        raise ValueError(f"{path} is a folder" if path.is_dir() else f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ValueError(f"{path} cannot be written")


def write(rows: Iterable[Row], path: Path = RESULTS) -> None:
    path.write_text(json.dumps([asdict(row) for row in rows], indent=1, ensure_ascii=False) + "\n", encoding="utf-8")


def merged(old: Sequence[Row], new: Sequence[Row], order: Sequence[str]) -> list[Row]:
    """New rows in the place of old ones of the same name, in the order of the suites; others behind them."""
    rows = {row.suite: row for row in (*old, *new)}
    places = {name: place for place, name in enumerate(order)}
    return sorted(rows.values(), key=lambda row: places.get(row.suite.split()[0], len(places)))


def rendered(rows: Iterable[Row]) -> str:
    """A Markdown table."""
    lines = [HEADINGS, ("---", *["---:"] * 4)]
    lines += [(row.whose, *(f"{n:,}" for n in (row.tried, row.equal, row.different, row.refused))) for row in rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def block(text: str) -> tuple[str, str, str]:
    """A text in three parts: up to and with the first comment, the table, the second comment and the rest."""
    before, first, rest = text.partition(f"{OPENS}\n")
    inside, second, after = rest.partition(CLOSES)
    if not (first and second):
        raise ValueError(f"there is no {OPENS} … {CLOSES} in the text")
    return before + first, inside, second + after


def put_into(path: Path, rows: Iterable[Row]) -> None:
    """The table, in the place of the one that a file has."""
    before, _, after = block(path.read_text(encoding="utf-8"))
    path.write_text(before + rendered(rows) + after, encoding="utf-8")

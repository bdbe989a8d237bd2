"""RESULTS.md: one row a room, then the survivors of each with what the review says.

Owns: its form, and the share of mutants killed with its 95 % interval (Wilson 1927), which a sample needs.
Refuses to know: mutmut. Specs: PROOF-30, PROOF-31. Next: `meta_tests.mutants.rooms`.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from math import sqrt
from pathlib import Path

from meta_tests.mutants.review import Entry, entry_of
from meta_tests.mutants.tool import Judged

NORMAL_95 = 1.96
_HEAD = """# Mutants, and how many the tests kill

Written by `python -m meta_tests.mutants`. A mutant is the room with one small change. *Late*: a test took five times as
long as it should, which counts as killed. *Equivalent*: the change changes nothing that can be seen, so the mutant does
not count. *Killed*: the share of those that count, with the 95 % interval where not every mutant was judged.

| room | mutants | judged | killed | late | equivalent | accepted | not reviewed | share killed |
|---|---|---|---|---|---|---|---|---|
"""
_ROW = re.compile(r"^\| ([a-z]+) \| \d.*\|$", re.MULTILINE)
_SECTION = re.compile(r"^## ([a-z]+)\n(?:(?!^## ).*\n?)*", re.MULTILINE)


@dataclass(frozen=True)
class Reviewed:
    """The result of a room, with the entries of the review for its survivors."""

    judged: Judged
    entries: Sequence[Entry]

    def count(self, kind: str | None) -> int:
        found = (entry_of(mutant, self.entries) for mutant in self.judged.survivors)
        return sum((entry and entry.kind) == kind for entry in found)

    @property
    def counted(self) -> tuple[int, int]:
        """The number of killed mutants, and the number of mutants that tests could kill."""
        died = self.judged.killed + self.judged.late
        return died, died + len(self.judged.survivors) - self.count("equivalent")

    @property
    def share(self) -> float:
        died, could = self.counted
        return died / could if could else 1.0


def interval(died: int, could: int) -> tuple[float, float]:
    """Wilson's interval, which is right for shares near 1 too."""
    if not could:
        return 0.0, 1.0
    share, square = died / could, NORMAL_95**2
    middle = (share + square / (2 * could)) / (1 + square / could)
    half = NORMAL_95 / (1 + square / could) * sqrt(share * (1 - share) / could + square / (4 * could**2))
    return middle - half, middle + half


def update(path: Path, results: Sequence[Reviewed]) -> None:
    """Writes the rows of these rooms. Other rooms keep their rows."""
    old = path.read_text(encoding="utf-8") if path.is_file() else ""
    rows = {found[1]: found[0] for found in _ROW.finditer(old)} | {each.judged.room: row(each) for each in results}
    sections = {found[1]: found[0].rstrip() for found in _SECTION.finditer(old)}
    sections |= {each.judged.room: _section(each) for each in results}
    path.write_text(_HEAD + _joined(rows, "\n") + "\n\n" + _joined(sections, "\n\n") + "\n", encoding="utf-8")


def row(result: Reviewed) -> str:
    judged, (died, could) = result.judged, result.counted
    tried, share = str(judged.tried), f"{result.share:.1%}"
    if judged.tried < judged.total:
        low, high = interval(died, could)
        share += f" ({low:.1%} to {high:.1%})"
        tried += f", seed {judged.seed}"
    cells = (judged.room, judged.total, tried, judged.killed, judged.late, result.count("equivalent"),
             result.count("accepted"), result.count(None), share)  # fmt: skip
    return f"| {' | '.join(map(str, cells))} |"


def _section(result: Reviewed) -> str:
    lines = [f"## {result.judged.room}", ""]
    for mutant in result.judged.survivors:
        entry = entry_of(mutant, result.entries)
        verdict = "not reviewed" if entry is None else f"{entry.kind}: {entry.why}"
        lines += [f"- `{mutant.place}`: {verdict}", "  ```diff", f"  - {mutant.was}", f"  + {mutant.becomes}", "  ```"]
    return "\n".join(lines if result.judged.survivors else [*lines, "Nothing survives."])


def _joined(parts: Mapping[str, str], between: str) -> str:
    return between.join(parts[name] for name in sorted(parts))

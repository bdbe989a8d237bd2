"""Reasons for what is not equal, and what is wrong about them.

Owns: the files `differences/*.toml`, lists of `[[explained]]` tables: `reason`, and `cases` (names of cases) or `kinds`
(details of refusals), in which a * stands for anything. A difference needs a reason, a refusal has one in its detail
and may have a longer one here. A reason that nothing needs is as wrong as a difference without one.
Refuses to know: what the cases are. Specs: SUITE-10. Next: `benchmarks/suites/table.py`.
"""

from __future__ import annotations

import re
import tomllib
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path

from .verdict import Verdict

DIFFERENCES = Path(__file__).parent / "differences"


@dataclass(frozen=True)
class Reason:
    """One pattern of one table."""

    pattern: str
    of_kinds: bool  # it is compared with the details of refusals, not with names of cases
    reason: str

    def covers(self, verdict: Verdict) -> bool:
        if verdict.outcome == "equal" or (self.of_kinds and verdict.outcome != "refused"):
            return False
        return bool(
            re.fullmatch(_expression(self.pattern), verdict.detail if self.of_kinds else verdict.case, re.DOTALL)
        )


def _expression(pattern: str) -> str:
    return re.escape(pattern).replace(r"\*", ".*")


def reasons(suite: str, folder: Path = DIFFERENCES) -> list[Reason]:
    """Those of one suite; none where it has no file."""
    path = folder / f"{suite}.toml"
    if not path.exists():
        return []
    found = []
    for table in tomllib.loads(path.read_text(encoding="utf-8"))["explained"]:
        for key in ("cases", "kinds"):
            found += [Reason(pattern, key == "kinds", table["reason"]) for pattern in table.get(key, ())]
    return found


def unexplained(verdicts: Iterable[Verdict], said: Sequence[Reason]) -> list[Verdict]:
    """Differences without a reason, and refusals that do not say what they refuse."""
    return [
        verdict
        for verdict in verdicts
        if (verdict.outcome == "different" or (verdict.outcome == "refused" and not verdict.detail))
        and not any(reason.covers(verdict) for reason in said)
    ]


def unneeded(verdicts: Sequence[Verdict], said: Sequence[Reason]) -> list[str]:
    """Patterns that cover no case any more."""
    return [reason.pattern for reason in said if not any(reason.covers(verdict) for verdict in verdicts)]

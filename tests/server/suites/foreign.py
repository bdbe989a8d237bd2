"""Runs another project's pytest suite in its own environment, and compares how it ended with a file of explanations."""

from __future__ import annotations

import datetime
import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from benchmarks.suites import SUITES, table
from benchmarks.suites.verdict import Outcome, Verdict
from tests.server.suites.places import HERE


def run(
    python: str,
    folder: Path,
    arguments: Sequence[str],
    work: Path,
    more: Mapping[str, str],
    plugins: Sequence[str] = (),
) -> dict[str, str]:
    """The outcome of each test: passed, failed or skipped. The output stays in `work`."""
    told = work / "outcomes.jsonl"
    told.write_text("")
    keep = {name: value for name, value in os.environ.items() if not name.startswith(("PYTEST", "PYTHONPATH"))}
    plugged = [flag for name in ("outcomes", *plugins) for flag in ("-p", name)]
    with (work / "output.txt").open("w", encoding="utf-8") as output:
        subprocess.run(
            [python, "-m", "pytest", "-q", "-p", "no:cacheprovider", "--tb=short", *plugged, *arguments],
            cwd=folder,
            env={**keep, **more, "OUTCOMES": str(told), "PYTHONPATH": f"{HERE}{os.pathsep}{folder}"},
            stdout=output,
            stderr=subprocess.STDOUT,
            check=False,
        )
    outcomes: dict[str, str] = {}
    for line in told.read_text(encoding="utf-8").splitlines():
        name, outcome = json.loads(line)
        outcomes[name] = "failed" if "failed" in (outcome, outcomes.get(name)) else outcome
    return outcomes


@dataclass(frozen=True)
class Explained:
    """Why a test fails; in its name * stands for anything. Refused: it asks for what the server says it does not do."""

    test: str
    reason: str
    refused: bool

    def means(self, name: str) -> bool:
        return re.fullmatch(re.escape(self.test).replace(r"\*", ".*"), name) is not None


def explanations(path: Path) -> Iterator[Explained]:
    """From a file of `[[explained]]` tables."""
    for each in tomllib.loads(path.read_text(encoding="utf-8"))["explained"]:
        yield from (Explained(test, each["reason"], each.get("refused", False)) for test in each["tests"])


def unexplained(outcomes: Mapping[str, str], path: Path) -> list[str]:
    """The contradictions to the file: failures without a reason, reasons without a test, reasons for a success."""
    said = list(explanations(path))
    wrong = []
    for name, outcome in outcomes.items():
        explained = any(each.means(name) for each in said)
        if outcome == "failed" and not explained:
            wrong.append(f"fails without a reason: {name}")
        if outcome == "passed" and explained:
            wrong.append(f"passes in spite of a reason: {name}")
    idle = [each.test for each in said if not any(each.means(name) for name in outcomes)]
    return wrong + [f"there is no test {test}" for test in idle]


def keep(suite: str, whose: str, outcomes: Mapping[str, str], path: Path | None = None) -> None:
    """Put the counts into the file that README.md's table is made of, if FERRUM_KEEP_RESULTS is set. `path` has the
    explanations. A test that was skipped counts as refused."""
    if os.environ.get("FERRUM_KEEP_RESULTS"):
        refused = [each for each in explanations(path) if each.refused] if path else []
        verdicts = [
            Verdict(name, verdict(outcome, any(each.means(name) for each in refused)))
            for name, outcome in outcomes.items()
        ]
        row = table.count(suite, whose, verdicts, datetime.date.today().isoformat())
        table.write(table.merged(table.read(), [row], SUITES))


def verdict(outcome: str, refused: bool) -> Outcome:
    if outcome == "passed":
        return "equal"
    return "refused" if refused or outcome == "skipped" else "different"

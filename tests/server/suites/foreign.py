"""Runs another project's pytest suite in its own environment, and compares how it ended with a file of explanations."""

from __future__ import annotations

import json
import os
import re
import subprocess
import tomllib
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path

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


def explanations(path: Path) -> Iterator[tuple[str, str]]:
    """(test, reason) from a file of `[[explained]]` tables. In a test, * stands for anything."""
    for table in tomllib.loads(path.read_text(encoding="utf-8"))["explained"]:
        yield from ((test, table["reason"]) for test in table["tests"])


def unexplained(outcomes: Mapping[str, str], path: Path) -> list[str]:
    """What disagrees with the file: failures without a reason, reasons without a failure, and reasons for success."""
    said = [test for test, _ in explanations(path)]
    wrong = []
    for name, outcome in outcomes.items():
        explained = any(_means(test, name) for test in said)
        if outcome == "failed" and not explained:
            wrong.append(f"fails without a reason: {name}")
        if outcome == "passed" and explained:
            wrong.append(f"passes in spite of a reason: {name}")
    idle = [test for test in said if not any(_means(test, name) for name in outcomes)]
    return wrong + [f"there is no test {test}" for test in idle]


def _means(test: str, name: str) -> bool:
    return re.fullmatch(re.escape(test).replace(r"\*", ".*"), name) is not None

"""`python -m meta_tests`: plants every fault and runs the tests that ought to find it; exit code 1 where one survives.

Owns: the options and what is printed. Specs: PROOF-03, PROOF-04. Next: `meta_tests.run`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

from meta_tests import results
from meta_tests.fault import Fault, all_faults
from meta_tests.judge import CannotJudge
from meta_tests.run import judge_all


def main(arguments: Sequence[str] | None = None) -> int:
    faults = all_faults()
    parser = argparse.ArgumentParser(prog="python -m meta_tests", description=main.__doc__ or __doc__)
    parser.add_argument("--room", action="append", choices=sorted({fault.room for fault in faults}), help="repeatable")
    parser.add_argument("--name", action="append", choices=[fault.name for fault in faults], metavar="NAME",
                        help="one fault (repeatable)")  # fmt: skip
    parser.add_argument("--jobs", type=int, default=2, help="copies of the tree that are judged at a time")
    parser.add_argument("--report", type=Path, help="a Markdown file; its rows about other faults stay")
    parser.add_argument("--rewrite", action="store_true", help="judge nothing: only write the report from its own rows")
    given = parser.parse_args(arguments)
    if given.rewrite:
        if given.report is None:
            parser.error("--rewrite writes a report; --report says which")
        given.report.write_text(results.written(faults, results.read(given.report)), encoding="utf-8")
        return 0
    chosen = [fault for fault in faults if _wanted(fault, given.room, given.name)]
    try:
        bad = _run(faults, chosen, given.jobs, given.report)
    except CannotJudge as error:
        print(error, file=sys.stderr)
        return 2
    print(f"caught: {len(chosen) - bad} of {len(chosen)}")
    return 1 if bad else 0


def _wanted(fault: Fault, rooms: Sequence[str] | None, names: Sequence[str] | None) -> bool:
    return (rooms is None or fault.room in rooms) and (names is None or fault.name in names)


def _run(faults: Sequence[Fault], chosen: Sequence[Fault], jobs: int, report: Path | None) -> int:
    """-> faults that survive, or could not be judged."""
    rows = {} if report is None else results.read(report)
    bad = 0
    for outcome in judge_all(chosen, jobs, _tell):
        verdict = outcome.problem or results.row_of(outcome.caught_by, outcome.seconds).by or "SURVIVES"
        _tell(f"{outcome.fault.room} {outcome.fault.name}: {verdict} ({outcome.seconds:.0f} s)")
        bad += outcome.caught_by is None
        rows.pop(outcome.fault.name, None)
        if outcome.problem is None:
            rows[outcome.fault.name] = results.row_of(outcome.caught_by, outcome.seconds)
        if report is not None:
            report.write_text(results.written(faults, rows), encoding="utf-8")
    return bad


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

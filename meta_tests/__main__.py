"""`python -m meta_tests`: plants every fault and runs the tests that ought to find it; exit code 1 where one survives.

Owns: the options and what is printed. Specs: PROOF-03, PROOF-04, PROOF-06. Next: `meta_tests.options`.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from contextlib import closing
from difflib import get_close_matches
from pathlib import Path

from meta_tests import options, results
from meta_tests.fault import Fault, all_faults
from meta_tests.judge import CannotJudge
from meta_tests.run import Outcome, judge_all


def main(arguments: Sequence[str] | None = None) -> int:
    faults = all_faults()
    parser = _parser(faults)
    given = parser.parse_args(arguments)
    if given.rewrite:
        if given.report is None:
            parser.error("--rewrite writes a report; --report says which")
        given.report.write_text(results.written(faults, results.read(given.report)), encoding="utf-8")
        return 0
    chosen = [fault for fault in faults if _wanted(fault, given.room, given.name)]
    if not chosen:
        parser.error(f"no fault of --room {', '.join(given.room)} is called {' or '.join(given.name)}")
    try:
        with options.stoppable():
            return _run(faults, chosen, given.jobs, given.report)
    except (CannotJudge, OSError) as error:
        print(error, file=sys.stderr)
        return 2


def _parser(faults: Sequence[Fault]) -> argparse.ArgumentParser:
    names = [fault.name for fault in faults]

    def name(text: str) -> str:
        if text not in names:
            near = get_close_matches(text, names, n=5, cutoff=0.5)
            also = f"; the nearest names are {', '.join(near)}" if near else ""
            raise argparse.ArgumentTypeError(f"no fault is called {text}{also}")
        return text

    parser = argparse.ArgumentParser(prog="python -m meta_tests", description=main.__doc__ or __doc__)
    parser.add_argument("--room", action="append", choices=sorted({fault.room for fault in faults}), help="repeatable")
    parser.add_argument("--name", action="append", type=name, metavar="NAME", help="one fault (repeatable)")
    parser.add_argument("--jobs", type=options.at_least_one, default=2, help="copies of the tree judged at a time")
    parser.add_argument("--report", type=options.report_file, help="a Markdown file; its rows about other faults stay")
    parser.add_argument("--rewrite", action="store_true", help="judge nothing: only write the report from its own rows")
    return parser


def _wanted(fault: Fault, rooms: Sequence[str] | None, names: Sequence[str] | None) -> bool:
    return (rooms is None or fault.room in rooms) and (names is None or fault.name in names)


def _run(faults: Sequence[Fault], chosen: Sequence[Fault], jobs: int, report: Path | None) -> int:
    """Judges the faults and returns the exit code. Faults that could not be judged count as survivors."""
    caught = 0
    try:
        with closing(judge_all(chosen, jobs, _tell)) as outcomes:
            for outcome in outcomes:
                row = results.row_of(outcome.caught_by, outcome.seconds)
                verdict = outcome.problem or row.by or "SURVIVES"
                _tell(f"{outcome.fault.room} {outcome.fault.name}: {verdict} ({outcome.seconds:.0f} s)")
                caught += outcome.caught_by is not None
                if report is not None:
                    _report(faults, outcome, report)
    except KeyboardInterrupt:
        _tell(f"caught {caught} of {len(chosen)} so far")
        return options.STOPPED
    _tell(f"caught: {caught} of {len(chosen)}")
    return int(caught < len(chosen))


def _report(faults: Sequence[Fault], outcome: Outcome, path: Path) -> None:
    """Replaces one row. The other rows are read again each time, since another run may write the same report."""
    rows = results.read(path)
    rows.pop(outcome.fault.name, None)
    if outcome.problem is None:
        rows[outcome.fault.name] = results.row_of(outcome.caught_by, outcome.seconds)
    path.write_text(results.written(faults, rows), encoding="utf-8")


def _tell(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())

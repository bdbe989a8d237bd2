"""`python -m meta_tests.mutants`: mutates rooms and counts what their tests kill; exit code 1 where it is too little.

Owns: the options and what is printed. Specs: PROOF-30. Next: `meta_tests.mutants.rooms`.
"""

from __future__ import annotations

import argparse
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

from meta_tests import options
from meta_tests.mutants import review, table
from meta_tests.mutants.rooms import ROOMS
from meta_tests.mutants.tool import CannotRun, Judged, Mutmut
from meta_tests.tree import TreeCopy

ENOUGH = 0.92
RESULTS = Path(__file__).with_name("RESULTS.md")


def main(arguments: Sequence[str] | None = None) -> int:
    given = _parser().parse_args(arguments)
    entries, results = review.read(), []
    for name in given.room or ROOMS:
        try:
            judged = _judged(name, given)
        except (CannotRun, OSError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            return 2
        results.append(table.Reviewed(judged, entries))
        print(table.row(results[-1]), flush=True)
        if given.report is not None:
            table.update(given.report, results[-1:])
    return 1 if any(result.share < ENOUGH for result in results) else 0


def _judged(name: str, given: argparse.Namespace) -> Judged:
    with tempfile.TemporaryDirectory() as folder:
        tree = TreeCopy(Path(folder))
        return Mutmut(tree.folder, ROOMS[name], given.jobs).judge(given.sample, given.seed)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(prog="python -m meta_tests.mutants", description=main.__doc__ or __doc__)
    parser.add_argument("--room", action="append", choices=list(ROOMS), help="repeatable; without it, every room")
    parser.add_argument("--sample", type=options.at_least_one, metavar="N",
                        help="judge so many mutants of a room, drawn by the seed")  # fmt: skip
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--jobs", type=options.at_least_one, default=2, help="mutants that are judged at a time")
    parser.add_argument("--report", type=options.report_file, default=RESULTS,
                        help="rows of rooms that are not judged stay")  # fmt: skip
    return parser


if __name__ == "__main__":
    sys.exit(main())

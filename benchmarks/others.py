"""Other people's tests: fetches the test data that others publish in packages, runs it, and counts.

    pip install '.[test]' './examples/ferrum-array-api[torch]'
    python benchmarks/others.py                                       # every suite; --list tells which there are
    python benchmarks/others.py onnx_nodes --backend my_module:MyOps  # one of them, on a backend of yours

For each suite: how many cases were tried and equal, how many differ and whether each of them has its reason in
`suites/differences/`, how many were refused because the project does not do such things. The exit code is 1 for a
difference without a reason, for a reason that nothing needs any more, for a suite without cases or with fewer than the
last results of the same version, and for a suite that breaks, after the others; 2 for a suite that does not exist or
whose data cannot be had, after the others, and for files that cannot be read or written, before anything runs. Where
all that did run is well results go to `results/others.json`; --readme makes the table in README.md of that file.
Rows of the server's suites come from `pytest -m suites` (tests/server/suites/README.md).
"""

from __future__ import annotations

import argparse
import datetime
import importlib
import sys
import time
import traceback
from collections.abc import Iterator, Sequence
from functools import partial
from pathlib import Path
from typing import Any

from suites import SUITES, explained, table
from suites.fetch import Missing, fetch, version
from suites.verdict import Verdict

from ferrum.backends.registry import load_backend
from ferrum.errors import FerrumError

README = Path(__file__).parents[1] / "README.md"
BACKENDS = ("numpy", "numba")
MOST_SHOWN = 20
MOST_TOLD = 300  # characters of each


def arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("suites", nargs="*", metavar="SUITE", help="which; all without any")
    parser.add_argument("--list", action="store_true", help="which suites there are, and whose")
    parser.add_argument("--data", type=Path, default=Path.home() / ".cache" / "ferrum-others", metavar="FOLDER")
    parser.add_argument("--backend", action="append", metavar="NAME", help="for suites of operations, instead of ours")
    parser.add_argument("--json", type=Path, default=None, metavar="FILE", help="where results go")
    parser.add_argument(
        "--readme",
        action="store_true",
        help="put the table of the last results into README.md; runs nothing but what is named",
    )
    given = parser.parse_args()
    if unknown := set(given.suites) - set(SUITES):
        parser.error(f"no suite {', '.join(sorted(unknown))}; there are {', '.join(SUITES)}")
    return given


def runs(
    name: str, suite: Any, data: Path, backends: Sequence[str]
) -> Iterator[tuple[str, partial[Iterator[Verdict]]]]:
    """Each row that a suite will have, and what makes its verdicts."""
    if not suite.SOURCE.of_backends:
        yield name, partial(suite.run, data)
        return
    for backend in backends:
        yield f"{name} on {backend}", partial(suite.run_on, load_backend(backend), data)


def judge(name: str, data: Path, backends: Sequence[str], built_in: bool) -> tuple[list[table.Row], list[str]]:
    """One suite: its rows, and what is wrong."""
    suite = importlib.import_module(f"suites.{name}")
    fetch(suite.SOURCE.package, data)
    said = explained.reasons(name)
    rows, wrong, everything = [], [], []
    for label, run in runs(name, suite, data, backends):
        start = time.perf_counter()
        verdicts = list(run())
        seconds = time.perf_counter() - start
        row = table.count(label, whose(suite, label), verdicts, today())
        print(
            f"{label}: {row.tried} tried, {row.equal} equal, {row.different} different, {row.refused} refused, "
            f"{seconds:.1f} s"
        )
        rows.append(row)
        everything += verdicts
        wrong += [] if verdicts else [f"{label}: there are no cases"]
        wrong += [
            f"{label}: {each.case} {each.outcome}: {each.detail}" for each in explained.unexplained(verdicts, said)
        ]
    if built_in:  # another backend need not have our differences
        wrong += [f"{name}: nothing needs the reason for {pattern}" for pattern in explained.unneeded(everything, said)]
    return rows, wrong


def whose(suite: Any, label: str) -> str:
    """A heading of the table: "onnx 1.23.2, node tests, on numba"."""
    package = suite.SOURCE.package
    _, on, backend = label.partition(" on ")
    return f"{package.name} {version(package)}, {suite.SOURCE.holds}{f', on {backend}' if on else ''}"


def today() -> str:
    return datetime.date.today().isoformat()


def keep(rows: Sequence[table.Row], path: Path | None, readme: bool, built_in: bool) -> None:
    """Where results belong: the file of results and the table have no rows of other people's backends."""
    if rows and path is not None:
        table.write(rows, path)
    elif rows and built_in:
        table.write(table.merged(table.read(), rows, SUITES))
    if readme:
        table.put_into(README, table.read())


def last_results(given: argparse.Namespace) -> list[table.Row]:
    """They, when every file that is read or written at the end is as it should be. Raises ValueError, OSError."""
    if given.json is not None or not given.backend:
        table.check_file(given.json or table.RESULTS)
    if given.readme:
        table.check_file(README)
        table.block(README.read_text(encoding="utf-8"))
    return table.read()


def told(error: Exception) -> str:
    """What broke, and where, on one line."""
    frames = traceback.extract_tb(error.__traceback__)
    message = " ".join(str(error).split())
    return f"{type(error).__name__}: {message} ({Path(frames[-1].filename).name}, line {frames[-1].lineno})"


def main() -> int:
    given = arguments()
    if given.list:
        for name in SUITES:
            print(f"{name:16} {whose(importlib.import_module(f'suites.{name}'), '')}")
        return 0
    try:
        before = last_results(given)
    except (ValueError, OSError) as error:
        print(error, file=sys.stderr)
        return 2
    rows: list[table.Row] = []
    wrong: list[str] = []
    missing = broken = False
    for name in given.suites or ([] if given.readme else SUITES):
        try:
            found = judge(name, given.data, given.backend or BACKENDS, not given.backend)
        except (Missing, FerrumError) as error:
            print(f"{name}: {error}", file=sys.stderr)
            missing = True
            continue
        except Exception as error:
            print(f"{name}: {told(error)}"[:MOST_TOLD], file=sys.stderr)
            broken = True
            continue
        rows += found[0]
        wrong += found[1] + table.fewer(before, found[0])
    if not wrong:
        keep(rows, given.json, given.readme, not given.backend)
    for line in wrong[:MOST_SHOWN]:
        print(line[:MOST_TOLD])
    if len(wrong) > MOST_SHOWN:
        print(f"and {len(wrong) - MOST_SHOWN} more")
    return 2 if missing else int(broken or bool(wrong))


if __name__ == "__main__":
    sys.exit(main())

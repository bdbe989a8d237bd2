"""The process that runs cases, and may die of one.

Owns: limits on memory, and one line to the parent before and after each case, so that the parent knows which one it
was. Refuses to know: what is done about findings.
Next: `tests.fuzz.runner`.
"""

from __future__ import annotations

import faulthandler
import os
import resource
import sys
import time
import traceback
from collections.abc import Iterator
from itertools import count, islice
from pathlib import Path
from typing import TextIO

from ferrum.errors import FerrumError, InternalError
from tests.fuzz.target import Target, Wrong, decisions, find_target, read_seed, seed_text

MEMORY = 3 << 29
"""The number of bytes that a case may take beyond those that the process has at its start."""


def main(name: str, first: str, cases: str, folder: str, lines: str) -> None:
    """Runs `cases` cases of a target from the seed `first` on; the parent reads from the descriptor `lines`. With 0,
    the first is shown and not run."""
    faulthandler.enable()
    target = find_target(name)(Path(folder))
    start = read_seed(first)
    if cases == "0":
        sys.stderr.write(f"input: {target.show(target.make(decisions(name, start)))}\n")
        return
    seeds: Iterator[int | bytes] = iter([start]) if isinstance(start, bytes) else islice(count(start), int(cases))
    limit_memory()
    with open(int(lines), "w", encoding="utf-8", buffering=1) as parent:
        for seed in seeds:
            parent.write(f"start {seed_text(seed)} {written()}\n")
            parent.write(f"{one_case(target, name, seed)} {written()}\n")


def written() -> int:
    """Bytes of complaints in the log so far."""
    return os.fstat(sys.stderr.fileno()).st_size


def one_case(target: Target, name: str, seed: int | bytes) -> str:
    """Runs a case. Returns the line for the parent: the result, the time, the peak of memory so far."""
    started, case = time.perf_counter(), None
    try:
        case = target.make(decisions(name, seed))
        target.run(case)
        outcome = "accepted -"
    except BaseException as error:  # a panic of a native library is no Exception
        outcome = f"refused {type(error).__name__}" if is_refusal(error) else f"finding {signature(error)}"
        if not is_refusal(error):
            report(target, case, error)
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return f"{outcome} {time.perf_counter() - started:.4f} {peak}"


def is_refusal(error: BaseException) -> bool:
    """True if a user may see this error. An error that says that it is a defect of the project is a finding."""
    return isinstance(error, FerrumError) and not isinstance(error, InternalError)


def signature(error: BaseException) -> str:
    """Findings with equal signatures count as one: the type of the error, and the last line of this project in its
    traceback."""
    if isinstance(error, Wrong):
        return "_".join(["Wrong:", *str(error).split()[:8]])
    here = [frame for frame in traceback.extract_tb(error.__traceback__) if "/ferrum/" in frame.filename]
    place = f"{here[-1].filename.rpartition('/ferrum/')[2]}:{here[-1].name}" if here else "tests"
    return f"{type(error).__name__}@{place}".replace(" ", "_")


def report(target: Target, case: object, error: BaseException, to: TextIO | None = None) -> None:
    """Writes the input and the traceback to the place where the parent reads them."""
    to = to or sys.stderr
    try:
        shown = target.show(case)
    except BaseException as other:  # foreign objects may fail at anything
        shown = f"(cannot be shown: {type(other).__name__})"
    frames = traceback.format_tb(error.__traceback__)
    text = "".join(frames[-8:])
    try:
        said = f"{type(error).__name__}: {str(error)[:500]}"
    except BaseException:
        said = type(error).__name__
    to.write(f"input: {shown}\n{text}{said}\n")
    to.flush()


def limit_memory() -> None:
    """Limits memory to `MEMORY` more than is in use now. Beyond it allocations fail, as on a small machine."""
    pages = int(Path("/proc/self/statm").read_text().split()[0])
    used = pages * resource.getpagesize()
    for limit in (resource.RLIMIT_AS, resource.RLIMIT_DATA):
        resource.setrlimit(limit, (used + MEMORY, used + MEMORY))
    resource.setrlimit(resource.RLIMIT_CORE, (0, 0))


if __name__ == "__main__":
    os.environ.setdefault("TOKENIZERS_PARALLELISM", "false")
    main(*sys.argv[1:])

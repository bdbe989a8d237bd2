"""Every fault judged: the control first, then one fault after the other, several copies at a time.

Owns: who gets which copy, and how long a judgement may take. Refuses to know: how a fault is planted, how tests are
run. Specs: PROOF-03, PROOF-04. Next: `meta_tests.results`.
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Generator, Iterable, Iterator, Sequence
from concurrent.futures import Executor, ThreadPoolExecutor, as_completed
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from queue import SimpleQueue

from meta_tests.fault import Fault, close_tests
from meta_tests.judge import CannotJudge, Judge
from meta_tests.tree import TreeCopy

LOOKS = (("few", True), ("few", False), ("ci", False))
"""Profiles of Hypothesis, which take the same examples in every run, and whether only the tests close to the fault
run. Most faults are found by these tests with a few examples; the others are judged again with more."""
CONTROL_S = 3600.0
TIMES, MORE_S = 5, 120.0
"""The limit of a judgement: this many times the control's time, and this many seconds more."""


@dataclass(frozen=True)
class Outcome:
    """The result for a fault. `problem`: why it could not be judged."""

    fault: Fault
    caught_by: str | None
    seconds: float
    problem: str | None = None


Tell = Callable[[str], None]


def judge_all(faults: Sequence[Fault], jobs: int, tell: Tell) -> Generator[Outcome, None, None]:
    """Yields outcomes as soon as they are known. Closing the generator ends the running tests. Raises CannotJudge if
    the tests fail without a fault, and OSError if the disk is full."""
    left = dict.fromkeys(faults, 0.0)  # not found yet, and the seconds of the looks so far
    with (
        tempfile.TemporaryDirectory(prefix="ferrum-faults-") as folder,
        ThreadPoolExecutor(jobs) as workers,
        _copies(Path(folder), jobs) as copies,  # closed first: then workers that wait for tests have their answer
    ):
        limits: Limits = {}
        for profile, only_close in LOOKS:
            limits |= _controls(copies, workers, left, profile, limits, tell)
            for outcome in _looked_at(copies, workers, left, profile, only_close, limits):
                left[outcome.fault] += outcome.seconds
                if outcome.problem is not None or outcome.caught_by is not None:
                    yield replace(outcome, seconds=left.pop(outcome.fault))
    yield from (Outcome(fault, None, seconds) for fault, seconds in left.items())


Copies = SimpleQueue[tuple[TreeCopy, Judge]]
Limits = dict[tuple[tuple[str, ...], str], float]


def _controls(
    copies: Copies, workers: Executor, faults: Iterable[Fault], profile: str, known: Limits, tell: Tell
) -> Limits:
    """Runs each set of tests without a fault, which must pass, and returns how long a judgement by it may take."""
    sets = [key for key in dict.fromkeys((fault.control, profile) for fault in faults) if key not in known]

    def passes(key: tuple[tuple[str, ...], str]) -> float:
        arguments = key[0]
        with _one(copies) as (_, judge):
            verdict = judge.judge(arguments, profile, CONTROL_S)
        if verdict.caught_by is not None:
            why = f" ({verdict.why})" if verdict.why else ""
            raise CannotJudge(f"without a fault, pytest {' '.join(arguments)} fails: {verdict.caught_by}{why}")
        tell(f"without a fault, {profile}: {' '.join(arguments)} pass in {verdict.seconds:.0f} s")
        return TIMES * verdict.seconds + MORE_S

    return dict(zip(sets, workers.map(passes, sets), strict=True))


def _looked_at(
    copies: Copies, workers: Executor, faults: Iterable[Fault], profile: str, only_close: bool, limits: Limits
) -> Iterator[Outcome]:
    def look(fault: Fault) -> Outcome:
        tests = close_tests(fault) if only_close else fault.tests
        if not tests:
            return Outcome(fault, None, 0.0)
        with _one(copies) as (copy, judge):
            try:
                with copy.planted(fault.plant):
                    verdict = judge.judge(tests, profile, limits[fault.control, profile])
            except (ValueError, CannotJudge) as error:
                return Outcome(fault, None, 0.0, str(error))
        return Outcome(fault, verdict.caught_by, verdict.seconds)

    waiting = [workers.submit(look, fault) for fault in faults]
    try:
        yield from (done.result() for done in as_completed(waiting))
    finally:
        for each in waiting:
            each.cancel()


@contextmanager
def _copies(folder: Path, count: int) -> Iterator[Copies]:
    with ExitStack() as judges:
        free: Copies = SimpleQueue()
        for number in range(count):
            copy = TreeCopy(folder / str(number))
            free.put((copy, judges.enter_context(Judge(copy.folder))))
        yield free


@contextmanager
def _one(copies: Copies) -> Iterator[tuple[TreeCopy, Judge]]:
    copy = copies.get()
    try:
        yield copy
    finally:
        copies.put(copy)

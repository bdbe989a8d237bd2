"""The process that watches: it starts children, ends those that hang, and counts.

Owns: telling a signal, a hang, a lack of memory and a foreign exception apart, and the command that replays each.
Refuses to know: what the inputs are.
Specs: SEC. Next: `tests.fuzz.__main__`.
"""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

from tests.fuzz.target import read_seed, seed_text
from tests.processes import end_with_the_tests

ROOT = Path(__file__).resolve().parents[2]
HANGS = 10.0
"""The number of seconds that a case may take."""
STARTS = 120.0
"""Seconds until a child runs its first case; a compiler may have work to do."""
ENDED = "ended"
TAIL = 4000
"""The number of characters of a child's log that a finding shows."""


@dataclass
class Finding:
    """The first case with one signature, and the number of cases with it."""

    target: str
    seed: str
    what: str
    tail: str
    times: int = 1

    def __str__(self) -> str:
        return (
            f"{self.target}: {self.what} ({self.times} times)\n"
            f"  python -m tests.fuzz --replay {self.target}:{self.seed}\n" + indented(self.tail)
        )


@dataclass
class Tally:
    """The results of the cases of one target."""

    target: str
    cases: int = 0
    accepted: int = 0
    refused: Counter[str] = field(default_factory=Counter)
    slowest: tuple[float, str] = (0.0, "")  # seconds, seed
    peak: tuple[int, str] = (0, "")  # bytes, seed
    findings: dict[str, Finding] = field(default_factory=dict)

    def found(self, seed: str, what: str, tail: str) -> None:
        if what in self.findings:
            self.findings[what].times += 1
        else:
            self.findings[what] = Finding(self.target, seed, what, tail)

    def __str__(self) -> str:
        text = f"{self.target}: {self.cases} cases, {len(self.findings)} findings"
        if self.slowest[1]:  # atheris counts nothing else
            refused = ", ".join(f"{name} {number}" for name, number in self.refused.most_common())
            text += f"; {self.accepted} accepted, {self.refused.total()} refused ({refused}); slowest "
            text += (
                f"{self.slowest[0]:.2f} s (seed {self.slowest[1]}), peak {self.peak[0] >> 20} MiB (seed {self.peak[1]})"
            )
        return text


def fuzz(
    target: str, first: str, cases: int | None = None, seconds: float | None = None, patience: float = HANGS
) -> Tally:
    """Runs cases from a seed on, until `cases` are done or `seconds` have passed. A case that takes longer than
    `patience` seconds is a finding."""
    tally, seed = Tally(target), read_seed(first)
    end = None if seconds is None else time.monotonic() + seconds
    most = cases if cases is not None else sys.maxsize
    with tempfile.TemporaryDirectory(prefix="ferrum-fuzz-") as folder:
        while tally.cases < most and (end is None or time.monotonic() < end):
            with _Child(target, seed_text(seed), most - tally.cases, Path(folder)) as child:
                last = child.watch(tally, end, patience)
            if last is None or isinstance(seed, bytes):
                break
            seed = int(last) + 1
    return tally


def show(target: str, seed: str) -> str:
    """The input of a case, which is not run."""
    with tempfile.TemporaryDirectory(prefix="ferrum-fuzz-") as folder, _Child(target, seed, 0, Path(folder)) as child:
        child.process.wait()
        return child.log.read_text("utf-8", "replace")


class _Child:
    """A running child."""

    def __init__(self, target: str, first: str, cases: int, folder: Path) -> None:
        self.log = folder / "log"
        scratch = folder / f"scratch-{first[:40]}"
        scratch.mkdir()
        self.reader, writer = os.pipe()
        arguments = [target, first, str(cases), str(scratch), str(writer)]
        with open(self.log, "wb") as log:
            self.process = subprocess.Popen(
                [sys.executable, "-P", "-m", "tests.fuzz.child", *arguments],
                stdin=subprocess.DEVNULL,
                stdout=log,
                stderr=log,
                pass_fds=(writer,),
                cwd=scratch,
                env={**os.environ, "PYTHONPATH": str(ROOT), "RUST_BACKTRACE": "0"},
                preexec_fn=end_with_the_tests,
            )
        os.close(writer)
        self._pending, self._hangs = b"", False

    def __enter__(self) -> _Child:
        return self

    def __exit__(self, *error: object) -> None:
        self.process.kill()
        self.process.wait()
        os.close(self.reader)

    def watch(self, tally: Tally, end: float | None, patience: float) -> str | None:
        """Reads and counts results until the child or the time ends. Returns the seed at which the child ended early,
        or None."""
        seed, running, known = "", False, 0  # `known`: bytes of the log before this case
        while True:
            line = self._line(patience if seed else STARTS)
            if line is None:
                what = self._what_happened()
                if not seed:
                    raise RuntimeError(f"{tally.target} does not start: {what}\n{self._tail(0)}")
                if what == ENDED and not running:
                    return None
                tally.cases += running
                tally.found(seed, what, show(tally.target, seed) + self._tail(known))
                return seed
            outcome, *words = line.split(" ")
            running = outcome == "start"
            if running:
                seed, known = words[0], int(words[1])
                continue
            self._count(tally, seed, outcome, words, known)
            if end is not None and time.monotonic() > end:
                return None

    def _count(self, tally: Tally, seed: str, outcome: str, words: list[str], known: int) -> None:
        what, seconds, peak, end = words
        tally.cases += 1
        tally.slowest = max(tally.slowest, (float(seconds), seed))
        if int(peak) << 10 > tally.peak[0]:
            tally.peak = int(peak) << 10, seed
        if outcome == "accepted":
            tally.accepted += 1
        elif outcome == "refused":
            tally.refused[what] += 1
        else:
            tally.found(seed, what, self._tail(known, int(end)))

    def _line(self, patience: float) -> str | None:
        """The next line, or None if none comes in time or the child has ended."""
        until = time.monotonic() + patience
        while b"\n" not in self._pending:
            ready, _, _ = select.select([self.reader], [], [], max(0.0, until - time.monotonic()))
            more = os.read(self.reader, 1 << 16) if ready else b""
            if not more:
                self._hangs = not ready
                return None
            self._pending += more
        line, _, self._pending = self._pending.partition(b"\n")
        return line.decode()

    def _what_happened(self) -> str:
        """The reason why a child writes no more lines."""
        if self._hangs:
            self.process.send_signal(signal.SIGABRT)  # faulthandler writes where it hangs
            time.sleep(0.5)
            return "hang"
        code = self.process.wait()
        return signal.Signals(-code).name if code < 0 else f"{ENDED} with code {code}" if code else ENDED

    def _tail(self, start: int, end: int | None = None) -> str:
        """The log of the child between two places, shortened in the middle."""
        text = self.log.read_bytes()[start:end].decode(errors="replace")
        return text if len(text) <= TAIL else text[: TAIL // 4] + "\n…\n" + text[-3 * TAIL // 4 :]


def indented(text: str) -> str:
    return "".join(f"  | {line}\n" for line in text.splitlines())

"""Tests, run in a copy of the tree: did one of them fail, which one first, and after how long?

Owns: the options of pytest and what its exit code means. Refuses to know: which fault is there.
Specs: PROOF-03, PROOF-04. Next: `meta_tests.results`.
"""

from __future__ import annotations

import json
import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meta_tests.planted import FOLDER

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::.*?|\S+)(?: - (.*))?$", re.MULTILINE)
_REASON = re.compile(r"^E +(\S.*)", re.MULTILINE)
"""The line that says why a file of tests cannot be imported, which the summary does not have."""
_PASSED, _FAILURES, _INTERRUPTED = 0, 1, 2
LONGEST_OUTPUT = 4000
OPTIONS = ("-x", "-q", "-rfE", "--tb=line", "--show-capture=no", "-p", "no:cacheprovider", "-p", "meta_tests.planted")


class CannotJudge(Exception):
    """Pytest ran no tests: the fault is no fault of behaviour, or the arguments are wrong."""


@dataclass(frozen=True)
class Verdict:
    """`caught_by`: the first test that failed, None if all passed; `why`: pytest's message for it, on one line."""

    caught_by: str | None
    seconds: float
    why: str = ""


class Judge:
    """Runs tests in one copy. Use it with `with`, which ends its processes."""

    def __init__(self, folder: Path) -> None:
        self._output = folder / ".output"
        self._nursery = subprocess.Popen(
            [sys.executable, "-m", "meta_tests.nursery"],
            cwd=folder,
            env=_environment(folder),
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
            bufsize=1,
            start_new_session=True,  # Ctrl-C is for the program that reads the answers
        )

    def __enter__(self) -> Judge:
        return self

    def __exit__(self, *error: object) -> None:
        with self._nursery:
            self._nursery.terminate()  # it ends what its tests have started, which a kill would leave

    def judge(self, arguments: Sequence[str], profile: str, limit_s: float) -> Verdict:
        """Runs the tests up to the first that fails, with a profile of Hypothesis. A run that does not end within the
        limit counts as failed. Raises CannotJudge."""
        started = time.monotonic()
        code = self._run([*OPTIONS, *arguments], profile, limit_s)
        seconds = time.monotonic() - started
        if code is None:
            return Verdict(f"no end within {limit_s:.0f} s", seconds)
        if code == _PASSED:
            return Verdict(None, seconds)
        output = self._output.read_text(encoding="utf-8", errors="replace")
        found = _FAILED.search(output)
        if code not in (_FAILURES, _INTERRUPTED) or found is None:
            raise CannotJudge(f"pytest {' '.join(arguments)} ended with {code}:\n{output[-LONGEST_OUTPUT:]}")
        reason = _REASON.search(output)
        return Verdict(found[1], seconds, found[2] or (reason[1] if reason else ""))

    def _run(self, arguments: Sequence[str], profile: str, limit_s: float) -> int | None:
        assert self._nursery.stdin is not None and self._nursery.stdout is not None
        order = {"arguments": arguments, "profile": profile, "limit_s": limit_s, "output": str(self._output)}
        self._nursery.stdin.write(json.dumps(order) + "\n")
        answer = self._nursery.stdout.readline()
        if not answer:
            raise CannotJudge("the process that runs the tests has ended")
        code: int | None = json.loads(answer)
        return code


def _environment(folder: Path) -> dict[str, str]:
    """The environment in which programs that tests start import the copy too, and compiled kernels are cached beside
    it. The user's options of pytest, such as `-k` or `--pdb`, are removed: they would choose other tests."""
    mine = {name: value for name, value in os.environ.items() if name != "PYTEST_ADDOPTS"}
    return {
        **mine,
        FOLDER: str(folder),
        "PYTHONPATH": str(folder),
        "NUMBA_CACHE_DIR": str(folder / ".kernels"),
        "OPENBLAS_NUM_THREADS": "1",
    }

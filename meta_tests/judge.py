"""Tests, run in a copy of the tree: did one of them fail, which one first, and after how long?

Owns: the call of pytest and what its exit code means. Refuses to know: which fault is there.
Specs: PROOF-03, PROOF-04. Next: `meta_tests.results`.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
import time
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from meta_tests.planted import FOLDER

_FAILED = re.compile(r"^(?:FAILED|ERROR) (\S+?::.*?|\S+)(?: - .*)?$", re.MULTILINE)
_PASSED, _FAILURES, _INTERRUPTED = 0, 1, 2
LONGEST_OUTPUT = 4000


class CannotJudge(Exception):
    """Pytest ran no tests: the fault is no fault of behaviour, or the arguments are wrong."""


@dataclass(frozen=True)
class Verdict:
    """`caught_by`: the first test that failed, None where all passed."""

    caught_by: str | None
    seconds: float


def judge(folder: Path, arguments: Sequence[str], profile: str, limit_s: float) -> Verdict:
    """Runs the tests up to the first that fails, with a profile of Hypothesis. A run that does not end within the limit
    has failed too, as it does for everybody who waits for it. Raises CannotJudge."""
    command = [sys.executable, "-m", "pytest", "-x", "-q", "-rfE", "--tb=no", "-p", "no:cacheprovider",
               "-p", "meta_tests.planted", *arguments]  # fmt: skip
    started = time.monotonic()
    with subprocess.Popen(
        command,
        cwd=folder,
        env=_environment(folder, profile),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    ) as process:
        try:
            output, _ = process.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired:
            return Verdict(f"no end within {limit_s:.0f} s", limit_s)
        finally:
            process.kill()
    seconds = time.monotonic() - started
    if process.returncode == _PASSED:
        return Verdict(None, seconds)
    found = _FAILED.search(output)
    if process.returncode not in (_FAILURES, _INTERRUPTED) or found is None:
        raise CannotJudge(f"pytest {' '.join(arguments)} ended with {process.returncode}:\n{output[-LONGEST_OUTPUT:]}")
    return Verdict(found[1], seconds)


def _environment(folder: Path, profile: str) -> dict[str, str]:
    """Programs that tests start find the copy as well; kernels are compiled from its source and kept beside it."""
    return {
        **os.environ,
        FOLDER: str(folder),
        "PYTHONPATH": str(folder),
        "NUMBA_CACHE_DIR": str(folder / ".kernels"),
        "HYPOTHESIS_PROFILE": profile,
        "OPENBLAS_NUM_THREADS": "1",
    }

"""Processes that tests start end with the test run, also if it is killed and no `finally` runs.

Owns: `end_with_the_tests` and `end_with_process`. Refuses to know: what the processes do.
Specs: HOUSE-22. Next: `tests.browser`.
"""

from __future__ import annotations

import ctypes
import signal
import subprocess
import sys

_PR_SET_PDEATHSIG = 1
_WATCH = "while kill -0 $0 && kill -0 $1; do sleep 1; done; kill -9 $1"
_C = ctypes.CDLL(None)


def end_with_the_tests() -> None:
    """A `preexec_fn` for `Popen`: on Linux the kernel kills the new process when the thread that started it ends."""
    if sys.platform == "linux":
        _C.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)


def end_with_process(process_id: int, watched_id: int) -> None:
    """Starts a shell that kills a process once the watched one has ended: for a process that is to outlive the one
    that started it. The shell ends with the process."""
    subprocess.Popen(
        ["sh", "-c", _WATCH, str(watched_id), str(process_id)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL, start_new_session=True,
    )  # fmt: skip

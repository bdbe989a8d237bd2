"""A process in a copy of the tree that runs tests many times, each time in a new child process.

It has imported what the tests need and what is none of the tree's; so a child is ready at once, and imports the tree's
modules as they are then, the fault among them. `python -m meta_tests.nursery` reads an order a line, in JSON, and
answers each with a line.

Owns: the forking, the time that a child may take, and the end of what its tests have started. Refuses to know: faults,
what the output of tests means.
Specs: PROOF-03. Next: `meta_tests.judge`.
"""

from __future__ import annotations

import importlib
import json
import os
import signal
import sys
from collections.abc import Sequence
from contextlib import suppress

LIBRARIES = (
    "pytest", "xdist", "hypothesis.stateful", "hypothesis.strategies", "hypothesis.extra.numpy", "numpy", "numba",
    "ml_dtypes", "safetensors.numpy", "tokenizers", "jinja2.sandbox", "pydantic", "fastapi.testclient", "llguidance",
)  # fmt: skip


def run(arguments: Sequence[str], profile: str, limit_s: float, output: str) -> int | None:
    """The exit code of pytest with these arguments, or None if the time was over. Its output goes to a file."""
    child = os.fork()
    if not child:
        os.setpgid(0, 0)
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.setitimer(signal.ITIMER_REAL, limit_s)  # whose signal ends the child
        os.environ["HYPOTHESIS_PROFILE"] = profile
        file = os.open(output, os.O_WRONLY | os.O_CREAT | os.O_TRUNC)
        for stream in (1, 2):
            os.dup2(file, stream)
        os.dup2(os.open(os.devnull, os.O_RDONLY), 0)
        code = 3  # pytest's own word for a failure of its own
        try:
            code = int(importlib.import_module("pytest").main(list(arguments)))
        finally:
            sys.stdout.flush()
            os._exit(code)
    try:
        with suppress(OSError):  # the child has done so itself
            os.setpgid(child, child)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    finally:
        with suppress(OSError):  # no such group: nothing is left
            os.killpg(child, signal.SIGKILL)  # programs that its tests have started
    return None if code == -signal.SIGALRM else code


def main() -> None:
    signal.signal(signal.SIGTERM, lambda *_: sys.exit())  # by way of the `finally` of a run
    for name in LIBRARIES:
        with suppress(ImportError):  # tests of what is not installed are skipped
            importlib.import_module(name)
    for line in sys.stdin:
        sys.stdout.write(json.dumps(run(**json.loads(line))) + "\n")
        sys.stdout.flush()


if __name__ == "__main__":
    main()

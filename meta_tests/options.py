"""What the command lines of `meta_tests` and `meta_tests.mutants` share: numbers, files of reports, and being stopped.

Refuses to know: what is judged. Specs: PROOF-06. Next: `meta_tests.run`.
"""

from __future__ import annotations

import os
import signal
from argparse import ArgumentTypeError
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import NoReturn

STOPPED = 130
"""The exit code of a program that Ctrl-C ends."""
SIGNALS = (signal.SIGINT, signal.SIGTERM)


def at_least_one(text: str) -> int:
    number = int(text)
    if number < 1:
        raise ArgumentTypeError(f"{number} is less than 1")
    return number


def report_file(text: str) -> Path:
    """The path of a report. Checks that the file can be written before hours of work are done for it."""
    path = Path(text)
    if path.is_dir():
        raise ArgumentTypeError(f"{path} is a folder, and a file is needed")
    if not path.parent.is_dir():
        raise ArgumentTypeError(f"there is no folder {path.parent}")
    if not os.access(path if path.exists() else path.parent, os.W_OK):
        raise ArgumentTypeError(f"{path} cannot be written")
    return path


@contextmanager
def stoppable() -> Iterator[None]:
    """While the block runs, the first Ctrl-C or SIGTERM raises KeyboardInterrupt. A second one is ignored, since it
    would interrupt the cleanup."""

    def stop(_number: int, _frame: FrameType | None) -> NoReturn:
        for each in SIGNALS:
            signal.signal(each, signal.SIG_IGN)
        raise KeyboardInterrupt

    before = {each: signal.signal(each, stop) for each in SIGNALS}
    try:
        yield
    finally:
        for each, handler in before.items():
            signal.signal(each, handler)

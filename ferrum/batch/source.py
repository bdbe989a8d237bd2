"""The file of requests, to be read more than once.

Owns: a copy of input that can be read only once, such as standard input. Refuses to know: its content.
Specs: BATCH-16. Next: `ferrum.batch.lines`.
"""

from __future__ import annotations

import os
import shutil
import stat
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from tempfile import TemporaryFile
from typing import BinaryIO

STDIN = "-"


@contextmanager
def request_file(path: str) -> Iterator[BinaryIO]:
    """The file; "-" is standard input. A pipe is read to its end first. Raises OSError."""
    if path == STDIN:
        with _kept(sys.stdin.buffer) as file:
            yield file
        return
    with open(path, "rb") as opened:
        if stat.S_ISREG(os.fstat(opened.fileno()).st_mode):
            yield opened
        else:
            with _kept(opened) as file:
                yield file


@contextmanager
def _kept(stream: BinaryIO) -> Iterator[BinaryIO]:
    with TemporaryFile() as file:
        shutil.copyfileobj(stream, file)
        yield file

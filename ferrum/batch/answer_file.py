"""The file of answers: one line after the other, by one program at a time.

Owns: the lock, cutting off what a killed program has left half written, appending, and when the disk has it. A line is
given to the system as soon as it is there, so that a killed program loses none; it is on the disk at most SYNC_S later
than that, as long as more lines come, and at the end.
Refuses to know: which lines are wanted. Specs: BATCH-12 to BATCH-15. Next: `ferrum.batch.run`.
"""

from __future__ import annotations

import os
import stat
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import BinaryIO

from ferrum.batch.result_line import Written, is_torn, read_result
from ferrum.errors import ConfigError, InvalidFormat, NotFound
from ferrum.files import replacing

SYNC_S = 1.0


@contextmanager
def answer_file(path: Path) -> Iterator[AnswerFile]:
    """The file, made if there is none. Raises ConfigError for what is no file and for one that another program has,
    NotFound where there is no folder, OSError."""
    from filelock import FileLock, Timeout

    real = Path(os.path.realpath(path))  # two names of one file have one lock
    if real.exists() and not stat.S_ISREG(real.stat().st_mode):
        raise ConfigError(f"{path} is not a regular file: answers could not be found there again")
    if not real.parent.is_dir():  # the lock would create the folder
        raise NotFound(f"there is no folder {real.parent}")
    lock = FileLock(real.with_name(f".{real.name}.lock"), blocking=False)
    try:
        lock.acquire()
    except Timeout:
        raise ConfigError(f"another run is writing to {path}") from None
    try:
        file = AnswerFile(real)
        try:
            yield file
        finally:
            file.close()
    finally:
        lock.release()


class AnswerFile:
    """To be made by `answer_file` only."""

    def __init__(self, path: Path) -> None:
        self._path = path
        self._file: BinaryIO = path.open("ab")
        self._synced_s = time.monotonic()

    def is_file(self, other: BinaryIO) -> bool:
        """True if both paths name one file."""
        return os.path.samestat(os.fstat(self._file.fileno()), os.fstat(other.fileno()))

    # ---- reading
    def written(self) -> Iterator[Written]:
        """The answers that are there. A last line that was not written to its end is cut off. Raises InvalidFormat for
        a file that holds anything else."""
        for _, written in self._lines():
            yield written

    def take_out(self, unwanted: Callable[[Written], bool]) -> None:
        """Removes answers; a program that is killed meanwhile leaves the file as it was."""
        with replacing(self._path) as shorter:
            for content, written in self._lines():
                if not unwanted(written):
                    shorter.write(content)
        self._file.close()
        self._file = self._path.open("ab")

    def _lines(self) -> Iterator[tuple[bytes, Written]]:
        end = 0
        with self._path.open("rb") as file:
            for number, content in enumerate(file, start=1):
                if not content.endswith(b"\n"):
                    if not is_torn(content):
                        raise self._no_answer(number)
                    self._file.truncate(end)
                    return
                end += len(content)
                if not content.isspace():
                    written = read_result(content)
                    if written is None:
                        raise self._no_answer(number)
                    yield content, written

    def _no_answer(self, number: int) -> InvalidFormat:
        return InvalidFormat(f"line {number} of {self._path} is no answer to a line of a batch: is it the right file?")

    # ---- appending
    def append(self, text: str) -> None:
        """One more line. Raises OSError."""
        self._file.write(text.encode())
        self._file.flush()
        if time.monotonic() - self._synced_s >= SYNC_S:
            self._sync()

    def close(self) -> None:
        with self._file:
            self._sync()

    def _sync(self) -> None:
        os.fsync(self._file.fileno())
        self._synced_s = time.monotonic()

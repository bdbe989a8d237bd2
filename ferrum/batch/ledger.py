"""The table of all lines of a run, and which of them have an answer.

Owns: the table, in a temporary file, because it may be larger than memory. Refuses to know: the content of lines, where
they come from. Specs: BATCH-10, BATCH-11. Next: `ferrum.batch.answer_file`.
"""

from __future__ import annotations

import sqlite3
from dataclasses import dataclass
from types import TracebackType

from ferrum.batch.request_line import RequestLine
from ferrum.batch.result_line import Written
from ferrum.errors import InvalidFormat, quoted

_TABLE = """CREATE TABLE lines (
    id TEXT PRIMARY KEY, custom_id TEXT UNIQUE, number INTEGER NOT NULL, answered INTEGER NOT NULL DEFAULT 0
) WITHOUT ROWID"""


@dataclass
class Counts:
    """Numbers of lines. `strange`: answers to lines that are not in the input."""

    lines: int = 0
    answered: int = 0
    failed: int = 0
    strange: int = 0


class Ledger:
    """The books of one run."""

    def __init__(self) -> None:
        self.counts = Counts()
        self._table = sqlite3.connect("", isolation_level=None)  # "": a temporary file, deleted at the end
        self._table.execute("PRAGMA journal_mode = OFF")  # the table is not used after a crash
        self._table.execute(_TABLE)
        self._table.execute("BEGIN")  # one transaction that never ends

    def __enter__(self) -> Ledger:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._table.close()

    def add(self, line: RequestLine) -> None:
        """A line of the input. Raises InvalidFormat for a custom_id that came before."""
        try:
            self._table.execute(
                "INSERT INTO lines (id, custom_id, number) VALUES (?, ?, ?)", (line.id, line.custom_id, line.number)
            )
        except sqlite3.IntegrityError:
            before = self._one("SELECT number FROM lines WHERE custom_id = ?", line.custom_id)
            message = f"line {line.number} has the custom_id {quoted(line.custom_id)}, which line {before} has already"
            raise InvalidFormat(f"{message}: answers could not be told apart") from None
        self.counts.lines += 1

    def waits(self, identifier: str) -> bool | None:
        """True if the line with this id has no answer yet; None if there is no such line."""
        answered = self._one("SELECT answered FROM lines WHERE id = ?", identifier)
        return None if answered is None else not answered

    def found(self, written: Written) -> None:
        """An answer of an earlier run. Raises InvalidFormat for the answer to another line of the same name, and for a
        second one."""
        if self.answer(written.id, failed=written.failed):
            return
        if self.waits(written.id) is not None:
            raise InvalidFormat(f"it answers {quoted(written.custom_id)} twice")
        number = self._one("SELECT number FROM lines WHERE custom_id = ?", written.custom_id)
        if number is not None:
            message = f"its answer to {quoted(written.custom_id)} is to another request than that of line {number}"
            raise InvalidFormat(f"{message}, or was made with another --seed: the rest belongs in a new file")
        self.counts.strange += 1

    def answer(self, identifier: str, *, failed: bool) -> bool:
        """Records that the line has its answer. -> False if it had one already."""
        done = self._table.execute("UPDATE lines SET answered = 1 WHERE id = ? AND answered = 0", (identifier,))
        is_new = done.rowcount == 1
        self.counts.answered += is_new
        self.counts.failed += is_new and failed
        return is_new

    def _one(self, query: str, value: str | None) -> int | None:
        row = self._table.execute(query, (value,)).fetchone()
        return None if row is None else int(row[0])

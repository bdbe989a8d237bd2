"""One changing line on stderr while the user waits.

Owns: the line, and the rule that it appears only on a terminal that can take it away again. Refuses to know: what is
waited for.
Specs: CLI-05. Next: `ferrum.cli.logprobs`.
"""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager

import click

from ferrum.cli.terminal import obeys, printable

_CLEAR = "\r\x1b[2K"


class Progress:
    """Writes to stderr. Where stderr is no terminal, only `note` says anything."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._live = obeys(self._stream)
        self._showing = False

    def show(self, text: str) -> None:
        """Replace the line; nothing of it stays when the next thing is written."""
        if self._live:
            import shutil  # and with it every compression format: not where nobody watches

            width = shutil.get_terminal_size().columns - 1
            self._stream.write(_CLEAR + printable(text)[:width])
            self._stream.flush()
            self._showing = True

    def clear(self) -> None:
        """Take the line away, if there is one: by now the terminal's line may hold something else."""
        if self._showing:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._showing = False

    def end(self) -> None:
        """From here on nothing is shown: the terminal is the answer's, and clearing a line would take its text."""
        self.clear()
        self._live = False

    def note(self, text: str) -> None:
        """A line that stays, terminal or not."""
        self.clear()
        click.echo(printable(text), err=True)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Show `text` while the block runs."""
        self.show(text)
        try:
            yield
        finally:
            self.clear()

    def download(self, name: str) -> Callable[[int, int], None] | None:
        """A listener for a download of `name`, which hears bytes done and bytes in all; None where nobody watches."""

        def show(done: int, total: int) -> None:
            self.show(f"downloading {name}: {human_bytes(done)} of {human_bytes(total)}")

        return show if self._live else None


def human_bytes(count: int) -> str:
    """1536 -> "1.5 KiB"."""
    size, units = float(count), iter(("B", "KiB", "MiB", "GiB"))
    unit = next(units)
    while size >= 1024 and unit != "GiB":
        size, unit = size / 1024, next(units)
    return f"{size:.0f} {unit}" if unit == "B" else f"{size:.1f} {unit}"

"""Output for a terminal: text from models and files with its control characters written out, and one line of progress.

Owns: how escape sequences, control characters and characters that change the direction of writing are printed, and
characters that the encoding lacks; the printing of warnings; the progress line, which appears only on a terminal that
can erase it. Refuses to know: where texts come from, what the user waits for. Specs: CLI-05, CLI-85 to CLI-89.
Next: `ferrum.cli.sampling_flags`.
"""

from __future__ import annotations

import codecs
import json
import os
import sys
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from io import TextIOWrapper
from typing import Any, TextIO

import click

from ferrum.errors import ModelWarning

_CLEAR = "\r\x1b[2K"
_KEPT = "\n\t"
_ESCAPES = {'"': '\\"', "\n": "\\n", "\r": "\\r", "\t": "\\t"}
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT}


def printable(text: str) -> str:
    """A name or a message in which invisible characters, except spaces, tabs and line ends, are written as escapes."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else ascii(char)[1:-1] for char in text)


def quoted(content: bytes) -> str:
    """Bytes as text in quotes, in which characters that do not print are escaped."""
    # Backslashes of the text are doubled before escapes add others. (In UTF-8 no byte of a longer character is one.)
    text = content.replace(b"\\", b"\\\\").decode(errors="backslashreplace")
    return f'"{"".join(map(_visible, text))}"'


def _visible(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def say(text: str) -> None:
    """Writes a piece of an answer to stdout and flushes it. On a terminal, control characters are written as escapes,
    because a model can generate any character. A file or a pipe gets the text unchanged."""
    if sys.stdout is None:  # the caller closed it
        return
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def settle_encoding() -> None:
    """Afterwards, a character that the encoding of stdout or stderr lacks is written as an escape (\\U0001f99c), and is
    no error. Python takes ASCII if no language is set in the environment: then UTF-8 is written, as click does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def as_json(value: Any) -> str:
    """A line of JSON for stdout; characters that its encoding lacks are JSON escapes."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def obeys(stream: TextIO | None) -> bool:
    """True if the stream is a terminal that interprets escape sequences. Emacs' shell and the consoles of build servers
    are terminals that print them instead, which $TERM tells."""
    kind = os.environ.get("TERM", "windows" if os.name == "nt" else "")
    return stream is not None and stream.isatty() and kind not in ("dumb", "unknown", "")


@contextmanager
def warnings_told() -> Iterator[None]:
    """Within the block, each warning about a model is printed once, on one line of stderr."""
    with warnings.catch_warnings():
        warnings.simplefilter("default", ModelWarning)
        otherwise = warnings.showwarning

        def show(message: Warning | str, category: type[Warning], *place: Any, **more: Any) -> None:
            if issubclass(category, ModelWarning):
                click.echo(f"warning: {printable(' '.join(str(message).split()))}", err=True)
            else:
                otherwise(message, category, *place, **more)

        warnings.showwarning = show
        yield


class Progress:
    """Writes to stderr. If stderr is not a terminal, only `note` prints."""

    def __init__(self) -> None:
        self._stream = sys.stderr
        self._live = obeys(self._stream)
        self._showing = False

    def show(self, text: str) -> None:
        """Replaces the progress line; it is erased before the next output."""
        if self._live:
            import shutil  # imports every compression format, so only on a terminal

            width = shutil.get_terminal_size().columns - 1
            self._stream.write(_CLEAR + printable(text)[:width])
            self._stream.flush()
            self._showing = True

    def clear(self) -> None:
        """Erases the progress line, if there is one."""
        if self._showing:
            self._stream.write(_CLEAR)
            self._stream.flush()
            self._showing = False

    def end(self) -> None:
        """Afterwards `show` prints nothing: the answer is on the terminal, and erasing a line would erase its text."""
        self.clear()
        self._live = False

    def note(self, text: str) -> None:
        """Prints a line that is not erased, on a terminal or not."""
        self.clear()
        click.echo(printable(text), err=True)

    @contextmanager
    def during(self, text: str) -> Iterator[None]:
        """Shows `text` while the block runs."""
        self.show(text)
        try:
            yield
        finally:
            self.clear()

    def download(self, name: str) -> Callable[[int, int], None] | None:
        """A function for the progress of a download of `name`, called with the bytes done and the bytes in all; None
        without a terminal."""

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

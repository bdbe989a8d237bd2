"""What a terminal is shown of texts that somebody else has written: model files, models, callers.

Owns: writing out what a terminal would obey or hide: escape sequences, control characters, characters that turn the
direction of writing; characters that its encoding lacks; and what becomes of warnings.
Refuses to know: where the texts come from.
Specs: CLI-85 to CLI-89. Next: `ferrum.cli.sampling_flags`.
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
    """A name or a message with everything invisible but spaces, tabs and line ends written out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else ascii(char)[1:-1] for char in text)


def quoted(content: bytes) -> str:
    """Bytes as text in quotes, in which whatever does not print is escaped: a terminal acts on none of it."""
    # No byte of a longer character is a backslash, so that those of the text can be doubled before the others appear.
    text = content.replace(b"\\", b"\\\\").decode(errors="backslashreplace")
    return f'"{"".join(map(_visible, text))}"'


def _visible(character: str) -> str:
    if character in _ESCAPES:
        return _ESCAPES[character]
    if character.isprintable():
        return character
    return f"\\u{ord(character):04x}" if ord(character) < 0x10000 else f"\\U{ord(character):08x}"


def say(text: str) -> None:
    """Writes a piece of an answer to stdout, at once. On a terminal, control characters are written out: the model may
    have been taught any. Whatever else reads it gets it as it is."""
    if sys.stdout is None:  # the caller closed it
        return
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


def settle_encoding() -> None:
    """From here on, a character that the encoding of stdout or stderr lacks is written out (\\U0001f99c), and is no
    error. ASCII is what Python is told where nobody has set a language: there UTF-8 is written, as click does."""
    for stream in (sys.stdout, sys.stderr):
        if isinstance(stream, TextIOWrapper):
            ascii_only = codecs.lookup(stream.encoding).name == "ascii"
            stream.reconfigure(encoding="utf-8" if ascii_only else None, errors="backslashreplace")


def as_json(value: Any) -> str:
    """A line of JSON for stdout, in characters that its encoding has: JSON's own escapes mean the same."""
    text = json.dumps(value, ensure_ascii=False)
    try:
        text.encode(getattr(sys.stdout, "encoding", None) or "utf-8")
    except UnicodeEncodeError:
        return json.dumps(value)
    return text


def obeys(stream: TextIO | None) -> bool:
    """Is the stream a terminal that obeys escape sequences? Emacs' shell and the consoles of build servers are
    terminals that show them, and say so."""
    kind = os.environ.get("TERM", "windows" if os.name == "nt" else "")
    return stream is not None and stream.isatty() and kind not in ("dumb", "unknown", "")


@contextmanager
def warnings_told() -> Iterator[None]:
    """Inside, each warning about a model is one line on stderr, once."""
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

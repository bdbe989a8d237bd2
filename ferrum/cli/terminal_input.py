'''What a person or a program types: messages, commands, and Ctrl-C.

Owns: the sources of lines, messages of several lines between `"""`, the editing and the history of lines on a terminal,
and a Ctrl-C that waits for the end of a step. Refuses to know: what the lines mean.
Specs: CLI-63, CLI-68 to CLI-71. Next: `ferrum.cli.trace`.
'''

from __future__ import annotations

import os
import signal
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from types import FrameType
from typing import Protocol

import click

from ferrum.cli.conversation import is_text
from ferrum.errors import ConfigError, InvalidFormat
from ferrum.files import make_private, require_private
from ferrum.paths import cache_folder

QUOTES = '"""'
PROMPT, CONTINUED = ">>> ", "... "


@dataclass(frozen=True)
class Entry:
    """A message or a command. `quoted`: the text stood between quotes, so that a slash at its beginning is text."""

    text: str
    quoted: bool = False


class Lines(Protocol):
    """A source of lines."""

    def line(self, prompt: str) -> str | None:
        """The next line without its end; None where there are no more. Raises InvalidFormat for what is not text."""


def read_entry(lines: Lines) -> Entry | None:
    """The next message or command; None at the end of the input, which also ends a message without closing quotes."""
    line = lines.line(PROMPT)
    if line is None or not line.startswith(QUOTES):
        return None if line is None else Entry(line)
    parts = [line.removeprefix(QUOTES)]
    while not parts[-1].rstrip().endswith(QUOTES):
        more = lines.line(CONTINUED)
        if more is None:
            return Entry(_trimmed("\n".join(parts)), quoted=True)
        parts.append(more)
    return Entry(_trimmed("\n".join(parts).rstrip().removesuffix(QUOTES)), quoted=True)


def _trimmed(text: str) -> str:
    """The text without the line ends next to the quotes."""
    return text.removeprefix("\n").removesuffix("\n")


class TerminalLines:
    """Lines that are typed on a terminal. `edited`: with the editing and the history of `line_editing`."""

    def __init__(self, edited: bool) -> None:
        self._edited = edited

    def line(self, prompt: str) -> str | None:
        try:
            if self._edited:
                text = input(prompt)
            else:  # stdout holds answers only
                click.echo(prompt, nl=False, err=True)
                text = sys.stdin.readline()
                if not text:
                    raise EOFError
                text = text.removesuffix("\n")
        except EOFError:
            click.echo(err=True)  # the shell's prompt begins on a new line
            return None
        except UnicodeDecodeError:
            raise InvalidFormat("this line is not UTF-8 text") from None
        if not is_text(text):
            raise InvalidFormat("this line is not UTF-8 text")
        return text


class PipedLines:
    """Lines from a file or a program, without prompts."""

    def __init__(self) -> None:
        self._number = 0

    def line(self, prompt: str) -> str | None:
        content = b"" if sys.stdin is None else sys.stdin.buffer.readline()
        if not content:
            return None
        self._number += 1
        try:
            text = content.decode("utf-8")
        except UnicodeDecodeError:
            raise InvalidFormat(f"line {self._number} of standard input is not UTF-8 text") from None
        text = text.removeprefix("\ufeff") if self._number == 1 else text
        return text.removesuffix("\n").removesuffix("\r")


HISTORY_LINES = 1000


@contextmanager
def line_editing(completions: Callable[[str], list[str]]) -> Iterator[None]:
    """While the block runs, `input` edits lines, completes them by Tab and remembers them. `completions`: what the
    last word of a line may become."""
    try:
        import readline
    except ImportError:
        yield
        return

    def complete(_word: str, number: int) -> str | None:
        found = completions(readline.get_line_buffer()[: readline.get_endidx()])
        return found[number] if number < len(found) else None

    readline.set_completer(complete)
    readline.set_completer_delims(" ")
    # the binding of Tab, in the syntax of each of the two libraries that Python calls readline
    readline.parse_and_bind("bind ^I rl_complete" if "libedit" in (readline.__doc__ or "") else "tab: complete")
    readline.set_history_length(HISTORY_LINES)
    path = history_file()
    if path is not None:
        with suppress(OSError):
            readline.read_history_file(path)
    try:
        yield
    finally:
        if path is not None:
            with suppress(OSError):
                readline.write_history_file(path)


def history_file() -> Path | None:
    """Where lines are remembered; None where there is no place, or where others could read a line, or have a link
    there that leads elsewhere."""
    try:
        path = cache_folder() / "chat_history"
        make_private(path.parent)
        require_private(str(path.parent), os.stat(path.parent))
        if os.path.lexists(path):
            status = os.lstat(path)
            require_private(str(path), status)
            return path if stat.S_ISREG(status.st_mode) else None
        return path
    except (ConfigError, OSError):
        return None


class Interruption:
    """`wanted`: Ctrl-C was pressed."""

    def __init__(self) -> None:
        self.wanted = False

    def _on_signal(self, _signal: int, _frame: FrameType | None) -> None:
        if self.wanted:
            raise KeyboardInterrupt
        self.wanted = True


@contextmanager
def interruption(catches: bool) -> Iterator[Interruption]:
    """While the block runs, the first Ctrl-C sets `wanted` and a second one raises KeyboardInterrupt, so that no step
    of the engine is broken off. Without `catches`, Ctrl-C raises as always."""
    interrupt = Interruption()
    if not catches:
        yield interrupt
        return
    before = signal.signal(signal.SIGINT, interrupt._on_signal)
    try:
        yield interrupt
    finally:
        signal.signal(signal.SIGINT, before)

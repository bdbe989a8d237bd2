'''Messages and commands, read line by line from a terminal or from anywhere else.

Owns: what makes several lines one message: `"""` before and after them; and where lines come from. Prompts are shown
on a terminal only. Refuses to know: what the lines mean. Specs: CLI-63, CLI-69, CLI-70. Next: `ferrum.cli.line_editor`.
'''

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Protocol

import click

from ferrum.cli.conversation import is_text
from ferrum.errors import InvalidFormat

QUOTES = '"""'
PROMPT, CONTINUED = ">>> ", "... "


@dataclass(frozen=True)
class Entry:
    """What was typed; `quoted`: between quotes, so that a slash at its beginning is text."""

    text: str
    quoted: bool = False


class Lines(Protocol):
    """A source of lines."""

    def line(self, prompt: str) -> str | None:
        """The next line without its end; None where there are no more. Raises InvalidFormat for what is not text."""


def read_entry(lines: Lines) -> Entry | None:
    """The next message or command; None at the end. Quotes that nobody closes end with the input."""
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
    """Without the two ends of lines that belong to the quotes."""
    return text.removeprefix("\n").removesuffix("\n")


class TerminalLines:
    """Somebody types. `edited`: with the editing and the history that `line_editor` has switched on."""

    def __init__(self, edited: bool) -> None:
        self._edited = edited

    def line(self, prompt: str) -> str | None:
        try:
            if self._edited:
                text = input(prompt)
            else:  # stdout is for answers only
                click.echo(prompt, nl=False, err=True)
                text = sys.stdin.readline()
                if not text:
                    raise EOFError
                text = text.removesuffix("\n")
        except EOFError:
            click.echo(err=True)  # the shell's prompt has a line of its own
            return None
        except UnicodeDecodeError:
            raise InvalidFormat("this line is not UTF-8 text") from None
        if not is_text(text):
            raise InvalidFormat("this line is not UTF-8 text")
        return text


class PipedLines:
    """A file or a program; nothing is shown."""

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

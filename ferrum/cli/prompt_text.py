"""The prompt: from the argument, a file, or standard input.

Owns: the choice among them, and the check that the prompt is text. Refuses to know: what the prompt is used for.
Specs: CLI-03, CLI-17. Next: `ferrum.cli.statistics`.
"""

from __future__ import annotations

import os
import stat
import sys
from contextlib import suppress
from pathlib import Path
from typing import BinaryIO

import click

MOST_BYTES = 16 << 20
"""Bytes of a prompt in a file: four characters of up to four bytes for each of a million tokens."""


STDIN = "-"


def read_prompt(prompt: str | None, file: Path | None, needed: bool = True) -> str:
    """The prompt; it may be empty unless it is `needed`. An argument is added after the text of a file. One newline at
    the end of a file or of standard input is removed."""
    parts = []
    if file is not None:
        parts.append(_read(str(file)))
    if prompt is not None:
        parts.append(_read(STDIN) if prompt == STDIN else _argument(prompt))
    elif file is None:
        if not needed and (sys.stdin is None or sys.stdin.isatty()):
            return ""
        if sys.stdin is not None and sys.stdin.isatty():
            raise click.UsageError("give a prompt: as an argument, with -f FILE, or on standard input")
        parts.append(_read(STDIN))
    text = "\n\n".join(part for part in parts if part)
    if not text and needed:
        raise click.UsageError("the prompt is empty")
    return text


def _argument(text: str) -> str:
    """The argument as text: its bytes are read as UTF-8, whatever the language of the environment."""
    with suppress(UnicodeEncodeError):
        text.encode()
        return text
    try:
        content = os.fsencode(text)
    except UnicodeEncodeError:
        raise click.UsageError("the prompt holds half of a surrogate pair, which is no character") from None
    return decode(content, "the prompt")


def input_is_ignored() -> bool:
    """True if standard input holds data that the command does not read. None of it is read: it may be meant for
    the next program."""
    try:
        descriptor = sys.stdin.fileno()
        status = os.fstat(descriptor)
        if stat.S_ISREG(status.st_mode):
            return os.lseek(descriptor, 0, os.SEEK_CUR) < status.st_size
        return (stat.S_ISFIFO(status.st_mode) or stat.S_ISSOCK(status.st_mode)) and _waiting(descriptor) > 0
    except (AttributeError, OSError, ValueError):  # no standard input, or not a file
        return False


def _waiting(descriptor: int) -> int:
    """Bytes in a pipe or a socket."""
    try:
        import fcntl
        import termios
    except ImportError:  # not a Unix system
        return 0
    return int.from_bytes(fcntl.ioctl(descriptor, termios.FIONREAD, bytes(4)), sys.byteorder)


def _read(name: str) -> str:
    """The text in a file, or "-" for standard input. A pipe is one, too: `-f <(command)`."""
    if name != STDIN:
        with open(name, "rb") as source:
            return decode(_bounded(source, name), name)
    if sys.stdin is None:
        raise click.UsageError("give a prompt: as an argument or with -f FILE; standard input is closed")
    return decode(_bounded(sys.stdin.buffer, "standard input"), "standard input")


def _bounded(source: BinaryIO, name: str) -> bytes:
    """The whole input, if it is not larger than the largest prompt."""
    content = source.read(MOST_BYTES + 1)
    if len(content) > MOST_BYTES:
        raise click.UsageError(f"{name} has more than {MOST_BYTES} bytes: that is no prompt")
    return content


def decode(content: bytes, name: str) -> str:
    """UTF-8 without a byte order mark and its last newline. Raises UsageError that says where it is not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise click.UsageError(f"{name} is not UTF-8 text: byte {error.start} is 0x{byte:02x}") from None

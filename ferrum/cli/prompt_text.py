"""Where a prompt comes from: the argument, a file, or standard input.

Owns: which of them it is, and that it is text. Refuses to know: what the prompt is for.
Specs: CLI-03. Next: `ferrum.cli.statistics`.
"""

from __future__ import annotations

import sys
from pathlib import Path
from typing import BinaryIO

import click

MOST_BYTES = 16 << 20
"""Of a prompt in a file: four characters a token for a million tokens, four times over."""


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from wherever it is; one newline at the end of a file or of standard input is not part of it."""
    if prompt is not None and file is not None:
        raise click.UsageError("the prompt is given twice: as an argument and with -f")
    if file is not None:
        with open(file, "rb") as source:  # a pipe, too: `-f <(command)`
            text = decode(_bounded(source, str(file)), str(file))
    elif prompt is not None and prompt != "-":
        text = prompt
    else:
        if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
            raise click.UsageError("give a prompt: as an argument, with -f FILE, or on standard input")
        text = decode(_bounded(sys.stdin.buffer, "standard input"), "standard input")
    if not text:
        raise click.UsageError("the prompt is empty")
    return text


def _bounded(source: BinaryIO, name: str) -> bytes:
    """Everything that comes, if it ends before it is more than any prompt."""
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

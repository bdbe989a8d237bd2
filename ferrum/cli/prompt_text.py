"""Where a prompt comes from: the argument, a file, or standard input.

Owns: which of them it is, and that it is text. Refuses to know: what the prompt is for.
Specs: CLI-03. Next: `ferrum.cli.statistics`.
"""

from __future__ import annotations

import sys
from pathlib import Path

import click


def read_prompt(prompt: str | None, file: Path | None) -> str:
    """The prompt from wherever it is; one newline at the end of a file or of standard input is not part of it."""
    if prompt is not None and file is not None:
        raise click.UsageError("the prompt is given twice: as an argument and with -f")
    if file is not None:
        text = decode(file.read_bytes(), str(file))
    elif prompt is not None and prompt != "-":
        text = prompt
    else:
        if sys.stdin is None or (prompt is None and sys.stdin.isatty()):
            raise click.UsageError("give a prompt: as an argument, with -f FILE, or on standard input")
        text = decode(sys.stdin.buffer.read(), "standard input")
    if not text:
        raise click.UsageError("the prompt is empty")
    return text


def decode(content: bytes, name: str) -> str:
    """UTF-8 without a byte order mark and its last newline. Raises UsageError that says where it is not UTF-8."""
    try:
        return content.decode("utf-8").removeprefix("\ufeff").removesuffix("\n").removesuffix("\r")
    except UnicodeDecodeError as error:
        byte = content[error.start]
        raise click.UsageError(f"{name} is not UTF-8 text: byte {error.start} is 0x{byte:02x}") from None

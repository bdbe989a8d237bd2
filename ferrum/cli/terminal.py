"""What a terminal is shown of texts that somebody else has written: model files, models, callers.

Owns: writing out what a terminal would obey or hide: escape sequences, control characters, characters that turn the
direction of writing; and what becomes of warnings. Refuses to know: where the texts come from.
Specs: CLI-85 to CLI-87. Next: `ferrum.cli.errors`.
"""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import click

from ferrum.errors import ModelWarning

_KEPT = "\n\t"
_CONTROLS = {code: f"\\x{code:02x}" for code in (*range(0x20), *range(0x7F, 0xA0)) if chr(code) not in _KEPT}


def printable(text: str) -> str:
    """A name or a message with everything invisible but spaces, tabs and line ends written out."""
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() or char in _KEPT else ascii(char)[1:-1] for char in text)


def say(text: str) -> None:
    """Writes a piece of an answer to stdout, at once. On a terminal, control characters are written out: the model may
    have been taught any. Whatever else reads it gets it as it is."""
    if sys.stdout is None:  # the caller closed it
        return
    sys.stdout.write(text.translate(_CONTROLS) if sys.stdout.isatty() else text)
    sys.stdout.flush()


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

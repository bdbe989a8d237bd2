"""Calls of the `tokenizers` library that may fail.

The library raises bare `Exception`, and for a defect of its own pyo3's `PanicException`, which is not a subclass of
`Exception` and would pass every handler of a caller.

Owns: the conversion of each into an error of this project. Refuses to know: which function is called. An input that
makes the library end the process is refused before the call (`tokenizer_steps`). Specs: TEXT-40.
Next: `ferrum.text.added_tokens`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import ParamSpec, TypeVar

from ferrum.errors import FerrumError

_LONGEST = 200  # characters of the library's message that an error repeats
P = ParamSpec("P")
R = TypeVar("R")


def ask(failed: Callable[[str], FerrumError], function: Callable[P, R], *arguments: P.args, **keywords: P.kwargs) -> R:
    """Calls `function` of the library and returns its result. If it fails in any way, raises the error that `failed`
    makes of the reason. KeyboardInterrupt, SystemExit and errors of this project pass unchanged."""
    try:
        return function(*arguments, **keywords)
    except FerrumError:  # raised by a callback of ours
        raise
    except BaseException as error:
        if isinstance(error, Exception) or type(error).__name__ == "PanicException":
            raise failed(_reason(error)) from error
        raise


def _reason(error: BaseException) -> str:
    """The library's message: short, printable and on one line."""
    text = " ".join(str(error)[: 2 * _LONGEST].split()) or type(error).__name__
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text)
    return text if len(text) <= _LONGEST else text[:_LONGEST] + "…"

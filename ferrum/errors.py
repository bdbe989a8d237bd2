"""Every error this project raises on purpose, under one base class.

Owns: the error classes and two facts about each (a retry may help; the caller made a mistake), the warning about a
model that still works, and the form in which a message shows a value from outside.
Refuses to know: who catches an error (`cli` turns it into an exit code, `server` into an HTTP status).
Next: `ferrum.config`.
"""

from __future__ import annotations

import warnings
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from reprlib import Repr
from typing import Any

SHOWN = 60
"""Characters of a value that a message shows."""
MOST_LISTED = 8
"""Names that one message lists."""


class FerrumError(Exception):
    """Base class: one clear sentence that says what is wrong and, where possible, what to do."""

    is_retryable = False
    is_client_error = False


class ConfigError(FerrumError):
    """A configuration that contradicts itself or lacks something it needs."""

    is_client_error = True


class ModelError(FerrumError):
    """A model that cannot be built: a missing tensor, a wrong shape."""


class TokenizerError(FerrumError):
    """A tokenizer or chat template that is missing, malformed or fails."""


class BackendError(FerrumError):
    """A backend that was named but cannot run, with the reason."""


class DeviceError(FerrumError):
    """A device that is absent or failed."""


class SchedulerError(FerrumError):
    """A scheduler asked for something its state does not allow."""


class RequestValidation(FerrumError):
    """A request that can never be served, such as a prompt longer than the context."""

    is_client_error = True


class ResourceExhausted(FerrumError):
    """Out of blocks, memory or queue places: the same request may succeed later."""

    is_retryable = True


class Timeout(FerrumError):
    """A deadline passed."""

    is_retryable = True


class NotFound(FerrumError):
    """A file, model, package or name that does not exist."""

    is_client_error = True


class Unsupported(FerrumError):
    """Something that is understood, but that this version cannot do; the message names it."""

    is_client_error = True


class InvalidFormat(FerrumError):
    """A file that is not what it claims to be: truncated, corrupt, malformed."""


class InvalidParameter(FerrumError):
    """A parameter outside its range; the message names the field."""

    is_client_error = True

    def __init__(self, field: str, message: str) -> None:
        super().__init__(field, message)  # as it was called, so that pickling and copying make the same again
        self.field = field

    def __str__(self) -> str:
        return " ".join(map(str, self.args))


class Cancelled(FerrumError):
    """The caller withdrew the request."""


class InternalError(FerrumError):
    """A defect of this project: please report it."""


class ModelWarning(UserWarning):
    """Something in a model's files is wrong or was ignored, and the model works without it."""


MOST_TOLD = 1000
_told: dict[Any, Any] = {}  # by the `warnings` module


def warn(text: str) -> None:
    """Emits a ModelWarning by Python's `warnings`, which programs can redirect, count or silence. A text is shown
    once (until there were very many others), whichever reader of a file emits it."""
    if len(_told) > MOST_TOLD:
        _told.clear()
    warnings.warn_explicit(text, ModelWarning, "ferrum", 0, registry=_told)


def listed(names: Sequence[object]) -> str:
    """A list of names for a message: the first few, and the number of the others."""
    more = f" and {len(names) - MOST_LISTED} more" if len(names) > MOST_LISTED else ""
    return ", ".join(quoted(name) for name in names[:MOST_LISTED]) + more


@contextmanager
def memory_told() -> Iterator[None]:
    """Turns a MemoryError inside into ResourceExhausted, whose message says what helps."""
    try:
        yield
    except MemoryError as error:
        told = f"out of memory: {error}" if str(error) else "out of memory"
        raise ResourceExhausted(f"{told}; a smaller kv_memory, max_model_len or model may fit") from error


class _Brief(Repr):
    """`repr` of the beginnings of containers only: nested lists that share their parts can have an endless `repr`."""

    def __init__(self) -> None:
        super().__init__()
        self.maxlevel = 4
        self.maxlist = self.maxtuple = self.maxset = self.maxfrozenset = self.maxdeque = self.maxdict = 16
        self.maxstring = self.maxlong = self.maxother = 2 * SHOWN

    def repr_int(self, x: int, level: int) -> str:
        return repr(x)

    def repr_instance(self, x: object, level: int) -> str:
        return repr(x)


_BRIEF = _Brief()


def quoted(value: object) -> str:
    """The form in which a message shows any value: short, printable and on one line."""
    try:
        text = repr(value[: SHOWN + 1]) if isinstance(value, (str, bytes)) else _BRIEF.repr(value)
    except ValueError:  # Python does not write integers of more than 4300 digits
        text = f"a number of {value.bit_length()} bits" if isinstance(value, int) else type(value).__name__
    except Exception:  # a foreign object may fail in any way
        text = type(value).__name__
    text = "".join(char if char.isprintable() else ascii(char)[1:-1] for char in text[: SHOWN + 1])
    return text if len(text) <= SHOWN else text[: SHOWN - 3] + "..."

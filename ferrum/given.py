"""Arguments of callers as plain values: a number, a text, a list, or an InvalidParameter that names the field.

Owns: which objects count as a number, a text or a list. NumPy's numbers and arrays do, without an import of NumPy; an
object whose own methods fail is refused like any other. Refuses to know: which fields there are.
Specs: SAMPLE-15, SAMPLE-32. Next: `ferrum.speculation`.
"""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping
from itertools import islice
from numbers import Integral, Real
from pathlib import Path, PurePath
from typing import Any, SupportsIndex, TypeVar

from ferrum.errors import InvalidParameter, quoted

LARGEST_INTEGER = 2**63 - 1
"""Larger numbers are refused, since they do not fit in an array."""
MOST_ITEMS = 1 << 20
"""Items of a list or mapping, at most: more than the tokens of any vocabulary."""

T = TypeVar("T")


def whole(field: str, value: object, least: int | None = None, most: int | None = LARGEST_INTEGER) -> int:
    """The value as an int from `least` to `most`; a bool is refused."""
    number = value if type(value) is int else _made(value, Integral, lambda found: int.__int__(operator.index(found)))
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise InvalidParameter(field, f"must be a whole number{bound}, not {quoted(value)}")
    if most is not None and number > most:
        raise InvalidParameter(field, f"must be a whole number of at most {most}, not {quoted(value)}")
    return number


def index(value: object) -> int | None:
    """The value as an int, also of an array of shape (); None for any other object."""
    return value if type(value) is int else _made(value, SupportsIndex, _index)


def _index(value: Any) -> int | None:
    return None if getattr(value, "ndim", 0) else int.__int__(operator.index(value))


def real(field: str, value: object, least: float, most: float = math.inf) -> float:
    """The value as a finite float from `least` to `most`; a bool is refused."""
    number = value if type(value) is float else _made(value, Real, float)
    if number is None or not least <= number <= most or math.isinf(number):
        bound = f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
        raise InvalidParameter(field, f"must be a number {bound}, not {quoted(value)}")
    return number


def flag(field: str, value: object) -> bool:
    """The value as a bool, also of NumPy's bool; 0, 1 and others are refused."""
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(value)
    if value is not True and value is not False:
        raise InvalidParameter(field, f"must be true or false, not {quoted(value)}")
    return value


def text(value: object) -> str | None:
    """The value as a str; None for any other object."""
    return value if type(value) is str else _made(value, str, str.__str__)


def as_path(field: str, value: object) -> Path:
    """The value, a path or a str, as a path."""
    if not is_one(value, (str, PurePath)):
        raise InvalidParameter(field, f"must be a path, not {quoted(value)}")
    return Path(value)  # type: ignore[arg-type]  # looked at above


def items(field: str, value: object, what: str, most: int = MOST_ITEMS) -> list[Any]:
    """The items of a list, tuple, array, set or iterator; `what` they should be is for the error. Texts, bytes and
    mappings are refused."""
    found = None
    if not is_one(value, (str, bytes, bytearray, memoryview, Mapping)):
        found = _made(value, Iterable, lambda many: list(islice(many, most + 1)))
    if found is None:
        raise InvalidParameter(field, f"must be a list of {what}, not {quoted(value)}")
    return _few(field, found, most)


def one_or_more(field: str, value: object, what: str) -> list[Any]:
    """As `items`, but a text is one item, not a list of characters."""
    single = text(value)
    return items(field, value, what) if single is None else [single]


def pairs(field: str, value: object, what: str, most: int = MOST_ITEMS) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping; `what` they should be is for the error."""
    found = _made(value, Mapping, lambda many: [(key, item) for key, item in islice(many.items(), most + 1)])
    if found is None:
        raise InvalidParameter(field, f"must be a mapping of {what}, not {quoted(value)}")
    return _few(field, found, most)


def _few(field: str, found: list[T], most: int) -> list[T]:
    if len(found) > most:
        raise InvalidParameter(field, f"must hold at most {most} items")
    return found


def is_one(value: object, kind: type | tuple[type, ...]) -> bool:
    """As `isinstance`, but False where the object's class raises an error."""
    try:
        return isinstance(value, kind)
    except Exception:  # `__class__` may be a property that fails
        return False


def _made(value: Any, kind: type[Any], make: Callable[[Any], T]) -> T | None:
    """`make(value)` for a value of that kind; None for others, for a bool, and if `make` fails."""
    try:
        return make(value) if isinstance(value, kind) and not isinstance(value, bool) else None
    except Exception:  # a foreign object may fail in any way
        return None

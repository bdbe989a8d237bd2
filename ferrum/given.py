"""What callers give, made plain values: a number, a text, a list, or an InvalidParameter that names the field.

Owns: what counts as a number, a text or a list, whatever object it is: NumPy's numbers and arrays are understood
without NumPy being imported, and an object that fails when it is looked at is refused like any other. Refuses to know:
which fields there are.
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
"""Larger numbers are refused: arrays have none."""
MOST_ITEMS = 1 << 20
"""Items of a list or mapping: more than any vocabulary has."""

T = TypeVar("T")


def whole(field: str, value: object, least: int | None = None, most: int | None = LARGEST_INTEGER) -> int:
    """A whole number from `least` to `most`; a bool is none."""
    number = value if type(value) is int else _made(value, Integral, lambda found: int.__int__(operator.index(found)))
    if number is None or (least is not None and number < least):
        bound = "" if least is None else f" of at least {least}"
        raise InvalidParameter(field, f"must be a whole number{bound}, not {quoted(value)}")
    if most is not None and number > most:
        raise InvalidParameter(field, f"must be a whole number of at most {most}, not {quoted(value)}")
    return number


def index(value: object) -> int | None:
    """A whole number, or an array without dimensions that stands for one; None for anything else."""
    return value if type(value) is int else _made(value, SupportsIndex, _index)


def _index(value: Any) -> int | None:
    return None if getattr(value, "ndim", 0) else int.__int__(operator.index(value))


def real(field: str, value: object, least: float, most: float = math.inf) -> float:
    """A finite number from `least` to `most`; a bool is none."""
    number = value if type(value) is float else _made(value, Real, float)
    if number is None or not least <= number <= most or math.isinf(number):
        bound = f"at least {least:g}" if math.isinf(most) else f"between {least:g} and {most:g}"
        raise InvalidParameter(field, f"must be a number {bound}, not {quoted(value)}")
    return number


def flag(field: str, value: object) -> bool:
    """True or false, NumPy's too, and nothing that merely counts as such."""
    kind = type(value)
    if kind.__module__ == "numpy" and kind.__name__ in ("bool", "bool_"):
        return bool(value)
    if value is not True and value is not False:
        raise InvalidParameter(field, f"must be true or false, not {quoted(value)}")
    return value


def text(value: object) -> str | None:
    """A text; None for anything else."""
    return value if type(value) is str else _made(value, str, str.__str__)


def as_path(field: str, value: object) -> Path:
    """A path, or the text of one."""
    if not is_one(value, (str, PurePath)):
        raise InvalidParameter(field, f"must be a path, not {quoted(value)}")
    return Path(value)  # type: ignore[arg-type]  # looked at above


def items(field: str, value: object, what: str, most: int = MOST_ITEMS) -> list[Any]:
    """What a list, a tuple, an array, a set or an iterator holds, which should be `what`. Texts, bytes and mappings are
    no lists."""
    found = None
    if not is_one(value, (str, bytes, bytearray, memoryview, Mapping)):
        found = _made(value, Iterable, lambda many: list(islice(many, most + 1)))
    if found is None:
        raise InvalidParameter(field, f"must be a list of {what}, not {quoted(value)}")
    return _few(field, found, most)


def one_or_more(field: str, value: object, what: str) -> list[Any]:
    """`items`, of which a text is one: what it is not is a list of characters."""
    single = text(value)
    return items(field, value, what) if single is None else [single]


def pairs(field: str, value: object, what: str, most: int = MOST_ITEMS) -> list[tuple[Any, Any]]:
    """The keys and values of a mapping, which should be one of `what`."""
    found = _made(value, Mapping, lambda many: [(key, item) for key, item in islice(many.items(), most + 1)])
    if found is None:
        raise InvalidParameter(field, f"must be a mapping of {what}, not {quoted(value)}")
    return _few(field, found, most)


def _few(field: str, found: list[T], most: int) -> list[T]:
    if len(found) > most:
        raise InvalidParameter(field, f"must hold at most {most} items")
    return found


def is_one(value: object, kind: type | tuple[type, ...]) -> bool:
    """`isinstance`, which no object can make fail."""
    try:
        return isinstance(value, kind)
    except Exception:  # an object may say anything of its class, and fail at it
        return False


def _made(value: Any, kind: type[Any], make: Callable[[Any], T]) -> T | None:
    """What `make` makes of a value of that kind; None for any other, for a bool, and where it fails."""
    try:
        return make(value) if isinstance(value, kind) and not isinstance(value, bool) else None
    except Exception:  # a foreign object may fail in any way
        return None

"""A mapping that was read from a file, with checked access by type.

Owns: the errors about wrong values; each names the file and the key. A key with the value null counts as absent, unless
the caller asks otherwise. Refuses to know: which keys there are.
Specs: LOAD-21. Next: `ferrum.given`.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import numpy as np

from ferrum.errors import InvalidFormat, Unsupported, quoted
from ferrum.files import read_text

LARGEST_INTEGER = 2**63 - 1
LARGEST_JSON = 32 << 20
"""Bytes of a JSON file, at most: the index of the largest models has a few megabytes."""


class Fields:
    """Typed access to `values`. `where`: the name of the file in errors; `prefix`: put before every key. Without
    `null_is_absent`, a null is accepted only by the methods for optional values."""

    def __init__(self, values: Mapping[str, Any], where: str, prefix: str = "", *, null_is_absent: bool = True) -> None:
        self.values = values
        self.where = where
        self.prefix = prefix
        self.null_is_absent = null_is_absent

    def get(self, key: str) -> Any:
        """The value of any type, or None."""
        return self.values.get(self.prefix + key)

    def __contains__(self, key: str) -> bool:
        """True if there is a value other than null."""
        return self.get(key) is not None

    def value(self, key: str, default: Any = None) -> Any:
        """The value of any type, else `default`. Raises `InvalidFormat` if there is neither."""
        if key in self:
            return self.get(key)
        if not self.null_is_absent and self.prefix + key in self.values:
            raise InvalidFormat(f"{self.where}: {self.prefix}{key} is null; leave it out or give it a value")
        if default is None:
            raise InvalidFormat(f"{self.where}: {self.prefix}{key} is missing")
        return default

    def wrong(self, key: str, wanted: str) -> InvalidFormat:
        """The error for a value that is not what it should be."""
        return InvalidFormat(f"{self.where}: {self.prefix}{key} must be {wanted}, not {quoted(self.get(key))}")

    def refused(self, key: str, supported: Iterable[str] = ()) -> Unsupported:
        """The error for a value that is understood but not supported."""
        value = f" {quoted(self.get(key))}" if key in self else ""
        hint = "; supported: " + ", ".join(supported) if supported else ""
        return Unsupported(f"{self.where}: {self.prefix}{key}{value} is not supported{hint}")

    def integer(self, key: str, default: int | None = None, low: int = 1) -> int:
        """A whole number of at least `low`. In GGUF a value may be given per layer: then all must be equal."""
        value = self.value(key, default)
        if isinstance(value, np.ndarray) and value.size and (value == value.flat[0]).all():
            value = value.flat[0].item()
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= LARGEST_INTEGER:
            raise self.wrong(key, f"a whole number of at least {low}")
        return value

    def length(self, key: str) -> int:
        """A whole number of at least 1; it may be written as 8192.0."""
        value = self.value(key)
        if isinstance(value, float) and value.is_integer() and 1 <= value <= LARGEST_INTEGER:
            return int(value)
        return self.integer(key)

    def optional_integer(self, key: str, low: int = 0) -> int | None:
        """As `integer`, or None where the key is absent."""
        return self.integer(key, low=low) if key in self else None

    def number(self, key: str, default: float | None = None) -> float:
        """A finite number above zero."""
        value = self.value(key, default)
        if isinstance(value, bool) or not isinstance(value, (int, float)) or not 0 < value <= sys.float_info.max:
            raise self.wrong(key, "a number above 0")
        return float(value)

    def optional_number(self, key: str) -> float | None:
        """As `number`, or None where the key is absent."""
        return self.number(key) if key in self else None

    def flag(self, key: str, default: bool) -> bool:
        """True or false."""
        value = self.value(key, default)
        if not isinstance(value, bool):
            raise self.wrong(key, "true or false")
        return value

    def text(self, key: str, default: str | None = None) -> str:
        """A string."""
        value = self.value(key, default)
        if not isinstance(value, str):
            raise self.wrong(key, "text")
        return value

    def index(self, key: str, count: int) -> int:
        """A whole number that counts from 0 and is below `count`."""
        value = self.value(key)
        if isinstance(value, bool) or not isinstance(value, int):
            raise self.wrong(key, "a whole number")
        if not 0 <= value < count:
            raise self.wrong(key, f"below {count} and at least 0")
        return value

    def texts(self, key: str) -> Sequence[str]:
        """A list of strings."""
        value = self.value(key)
        is_list = isinstance(value, Sequence) and not isinstance(value, (str, bytes))
        # A sequence that is no list is a file format's own type for strings: its items are not read for this check.
        if not is_list or (isinstance(value, list) and not all(isinstance(text, str) for text in value)):
            raise self.wrong(key, "a list of texts")
        return cast("Sequence[str]", value)

    def numbers(self, key: str) -> np.ndarray:
        """A list of numbers, as float64."""
        return self._list(key, "iuf", "a list of numbers").astype(np.float64)

    def integers(self, key: str) -> np.ndarray:
        """A list of whole numbers."""
        return self._list(key, "iu", "a list of whole numbers")

    def _list(self, key: str, kinds: str, wanted: str) -> np.ndarray:
        value = self.value(key)
        if isinstance(value, list) and not value:
            return np.zeros(0, np.int64)
        is_list = isinstance(value, np.ndarray) or (isinstance(value, list) and isinstance(value[0], (int, float)))
        try:
            numbers = np.asarray(value if is_list else None)
        except ValueError:  # lists of different lengths
            raise self.wrong(key, wanted) from None
        if numbers.ndim != 1 or numbers.dtype.kind not in kinds:
            raise self.wrong(key, wanted)
        return numbers

    def inner(self, key: str) -> Fields:
        """The mapping under `key`; an absent one is empty."""
        value = self.value(key, {})
        if not isinstance(value, Mapping):
            raise self.wrong(key, "an object")
        return Fields(value, f"{self.where}: {self.prefix}{key}", null_is_absent=self.null_is_absent)


def read_json(path: Path) -> Fields:
    """A file that holds one JSON object. Raises `NotFound`, or `InvalidFormat` where it holds anything else."""
    text = read_text(path, LARGEST_JSON)
    try:
        values = json.loads(text)
    except (ValueError, RecursionError) as error:  # bad JSON, numbers of thousands of digits, nesting without end
        raise InvalidFormat(f"{path} is not valid JSON: {error}") from None
    if not isinstance(values, dict):
        raise InvalidFormat(f"{path} must hold a JSON object")
    return Fields(values, str(path))

"""Values to try for the numeric parameters, derived from their declarations: a new parameter is tried at once."""

from __future__ import annotations

import math
import sys
from typing import Any

from hypothesis import strategies as st

from ferrum.given import LARGEST_INTEGER
from ferrum.parameter import FILTER, Number
from ferrum.sampling_params import NUMBERS

LARGEST = 5.0
"""The largest value to try of a number that has no upper limit, and of a filter."""


def examples(name: str) -> list[float]:
    """Allowed values, other than the default."""
    declared = NUMBERS[name]
    if declared.choices:
        values: list[float] = list(declared.choices)
    elif declared.kind is int:
        values = [declared.least + step for step in range(8)]
    else:
        width = _most(declared) - declared.least
        values = [declared.least + share * width for share in (0.05, 0.1, 0.2, 0.35, 0.5, 0.65, 0.8, 0.9, 1.0)]
    return [declared.kind(value) for value in values if value != declared.default]


def extremes(name: str) -> list[float | None]:
    """Allowed values: the ends of the range, just above the least, the default, the middle, "off", None if allowed."""
    declared = NUMBERS[name]
    if declared.choices:
        return list(declared.choices)
    whole = declared.kind is int
    most = declared.most if declared.most is not None else LARGEST_INTEGER if whole else sys.float_info.max
    least = [] if declared.above_least else [declared.least]
    above = declared.least + (1 if whole else sys.float_info.min)
    numbers = (*least, above, declared.default, (declared.least + min(most, 2 * LARGEST)) / 2, most)
    off = [] if declared.also_off is None else [declared.also_off]
    return [*dict.fromkeys(map(declared.kind, numbers)), *off, *([None] if declared.optional else [])]


def refused(name: str) -> list[Any]:
    """Values that no number with this declaration may have."""
    declared = NUMBERS[name]
    outside: list[Any] = [declared.least - 1 - (declared.also_off is not None), math.nan, math.inf, "1", True, 1j]
    outside += [] if declared.most is None else [declared.most + 0.5]
    outside += [declared.least] if declared.above_least else []
    outside += [] if declared.optional else [None]
    return outside + ([1.5] if declared.kind is int else [10**400])


def values(name: str) -> st.SearchStrategy[float]:
    """Draws allowed values up to LARGEST, whole numbers up to 50; half of them switch an edit or a filter off."""
    declared = NUMBERS[name]
    if declared.choices:
        return st.sampled_from(declared.choices)
    off = st.just(declared.default)
    if declared.kind is int:
        return off | st.integers(int(declared.least), 50)
    return off | st.floats(declared.least, _most(declared), exclude_min=declared.above_least)


def _most(declared: Number) -> float:
    if declared.most is None:
        return LARGEST
    return min(declared.most, LARGEST) if declared.stage == FILTER else declared.most

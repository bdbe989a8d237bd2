"""FILES-05, FILES-06: the message of an error, and its way to another process."""

from __future__ import annotations

import copy
import multiprocessing
import pickle
from typing import Any

import pytest

from ferrum import SamplingParams, errors
from ferrum.errors import SHOWN, FerrumError, InvalidParameter, quoted

CLASSES = [kind for kind in vars(errors).values() if isinstance(kind, type) and issubclass(kind, FerrumError)]


@pytest.mark.clause("FILES-06")
@pytest.mark.parametrize("kind", CLASSES)
def test_every_error_survives_pickling_and_copying(kind: type[FerrumError]) -> None:
    error = InvalidParameter("top_p", "is wrong") if kind is InvalidParameter else kind("is wrong")
    error.add_note("seen twice")
    for again in (pickle.loads(pickle.dumps(error)), copy.copy(error), copy.deepcopy(error)):
        assert type(again) is kind and str(again) == str(error) and vars(again) == vars(error)


def refused(top_p: float) -> float:
    return SamplingParams(top_p=top_p).top_p


@pytest.mark.clause("FILES-06")
def test_a_pool_hands_the_error_on() -> None:
    with multiprocessing.get_context("spawn").Pool(1) as pool, pytest.raises(InvalidParameter, match="top_p must be"):
        pool.apply_async(refused, (3.0,)).get(timeout=60)


class Odd:
    def __repr__(self) -> str:
        raise RuntimeError


@pytest.mark.clause("FILES-05")
@pytest.mark.parametrize(
    "value",
    ["a\x1b[2Jb", "line\nline", "\0", "\u202etxt", "x" * 10**7, 10**5000, -(10**5000), [10**5000], ["x" * 10**6] * 9,
     b"\xff\x00", Odd(), [Odd()], {"a": "\x07"}, float("nan"), object(), None],
    ids=map(str, range(16)),
)  # fmt: skip
def test_a_value_is_shown_short_and_printable(value: Any) -> None:
    shown = quoted(value)
    assert shown.isprintable() and 0 < len(shown) <= SHOWN


@pytest.mark.clause("FILES-05")
def test_short_values_are_shown_as_they_are() -> None:
    assert [quoted(value) for value in ("é", 3, [1], None)] == ["'é'", "3", "[1]", "None"]

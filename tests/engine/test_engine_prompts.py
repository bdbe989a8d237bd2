"""ENGINE-19: the forms in which prompts, conversations, parameters and priorities are accepted."""

from __future__ import annotations

from collections.abc import Callable
from itertools import count, repeat
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given

from ferrum import SamplingParams
from ferrum.engine.prompts import as_conversations, as_params, as_priorities, as_prompt, as_prompts
from ferrum.errors import FerrumError, InvalidParameter
from ferrum.types import Priority
from tests.sample.test_sampling_any import (
    ANYTHING,
    OBJECTS,
    EndlessMapping,
    Failing,
    FailingMapping,
    Unclassed,
)

IDS = np.array([504, 3575, 282])
HELLO = {"role": "user", "content": "Hi"}


class Scalar:
    """A number of another library: an array without dimensions, whose type claims that it can be iterated."""

    ndim = 0

    def __init__(self, value: int) -> None:
        self.value = value

    def __index__(self) -> int:
        return self.value

    def __iter__(self) -> Any:
        raise TypeError("iteration over a 0-d array")


class OneElement(Scalar):
    """An array of one element, which converts to a number too."""

    ndim = 1

    def __iter__(self) -> Any:
        return iter([Scalar(self.value)])


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize(
    ("prompts", "plain"),
    [
        (IDS, [[504, 3575, 282]]),
        ([IDS, IDS], [[504, 3575, 282], [504, 3575, 282]]),
        ((IDS, "text"), ["text"]),
        (np.array([[1, 2], [3, 4]]), [[1, 2], [3, 4]]),
        (np.array(["a", "b"]), ["a", "b"]),
        (np.str_("a"), ["a"]),
        ([np.int64(1), 2, np.uint8(3)], [[1, 2, 3]]),
        ([np.array(1), np.array(2)], [[1, 2]]),
        ([Scalar(1), Scalar(2)], [[1, 2]]),
        ([OneElement(1), OneElement(2)], [[1], [2]]),
        ((token for token in (1, 2)), [[1, 2]]),
        ([iter([1]), {2}, range(3), "a"], [[1], [2], [0, 1, 2], "a"]),
        ([[10**30, -5]], [[10**30, -5]]),  # numbers; whether they are tokens the engine says
        ([[]], [[]]),
        ([], []),
    ],
)
def test_prompts(prompts: Any, plain: list[Any]) -> None:
    found = as_prompts(prompts)
    assert found == plain or (plain == ["text"] and found == [[504, 3575, 282], "text"])
    assert all(type(item) is int for prompt in found if isinstance(prompt, list) for item in prompt)


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize(
    "prompts",
    [
        *(5, None, True, b"hi", bytearray(b"hi"), {"a": 1}, {}, object(), Failing, np.array(5), np.int64(5), 1.5),
        *([1.5], [True], [[True]], [["a"]], [[1], 2], [1, "a"], [None], [[[1]]], np.array([[[1]]]), np.array([1.5])),
        *(["a", b"b"], [{"a": 1}], [Failing()], [[Failing()]], repeat("a"), count()),
        *(Failing(), FailingMapping(), EndlessMapping(), [np.array([0.5])], [np.array([[1]])]),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_prompt(prompts: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"^prompts ") as refusal:
        as_prompts(prompts)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 250


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize("prompt", [5, np.int64(5), [[1]], ["a"], None])
def test_one_prompt_is_no_list_of_prompts(prompt: Any) -> None:
    assert as_prompt("prompt", IDS) == [504, 3575, 282] and as_prompt("prompt", "a") == "a"
    with pytest.raises(InvalidParameter, match=r"^prompt "):
        as_prompt("prompt", prompt)


@pytest.mark.clause("ENGINE-19")
def test_conversations() -> None:
    proxy = MappingProxyType(HELLO)
    for same in ([HELLO], (HELLO,), iter([HELLO]), [[HELLO]], [iter([HELLO])], [proxy], np.array([HELLO], object)):
        assert as_conversations(same) == [[HELLO]]  # type: ignore[arg-type]
    assert as_conversations([[HELLO], [HELLO, HELLO]]) == [[HELLO], [HELLO, HELLO]]


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize(
    "messages",
    [
        *(5, None, "hi", b"hi", HELLO, object(), [], [[]], ["hi"], [["hi"]], [[HELLO], HELLO], [HELLO, [HELLO]], [5]),
        *([[[HELLO]]], [{1: "a"}], [{b"role": "user"}], [FailingMapping()], [EndlessMapping()], Failing(), [Failing()]),
        *(repeat(HELLO), np.array(5), np.array([1])),
    ],
    ids=lambda value: type(value).__name__,
)
def test_what_is_no_conversation(messages: Any) -> None:
    with pytest.raises(InvalidParameter, match=r"^messages ") as refusal:
        as_conversations(messages)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 250


READERS: dict[str, Callable[[Any], list[Any]]] = {
    "prompts": as_prompts,
    "messages": as_conversations,
    "params": lambda given: as_params(given, 2),
    "priority": lambda given: as_priorities(given, 2),
}


@pytest.mark.clause("ENGINE-19")
@given(value=ANYTHING)
def test_anything_in_the_place_of_anything(value: Any) -> None:
    for read in READERS.values():
        try:
            found = read(value)
        except FerrumError as error:
            assert str(error).isprintable() and len(str(error)) < 250
        else:
            assert type(found) is list


@pytest.mark.clause("ENGINE-19")
def test_known_objects_in_the_place_of_anything() -> None:
    for value in OBJECTS:
        for given_value in (value, [value], [value, value], [[value]]):
            for name, read in READERS.items():
                try:
                    read(given_value)
                except InvalidParameter as error:
                    assert error.field == name


@pytest.mark.clause("ENGINE-19")
@pytest.mark.parametrize(
    "value", [5, "x", {}, [None, None], [5, 5], Failing(), Unclassed, [], repeat(SamplingParams())]
)
def test_parameters_and_priorities_match_the_prompts(value: Any) -> None:
    own = SamplingParams(n=2)
    assert as_params(own, 2) == as_params(iter([own, own]), 2) == [own, own]  # type: ignore[arg-type]
    assert as_params(None, 1) == [SamplingParams()]
    assert as_priorities(Priority.HIGH, 2) == as_priorities((Priority.HIGH, Priority.HIGH), 2)
    with pytest.raises(InvalidParameter, match=r"^params must "):
        as_params(value, 2)
    with pytest.raises(InvalidParameter, match=r"^priority must "):
        as_priorities(value, 2)

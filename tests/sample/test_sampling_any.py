"""SAMPLE-32: any object in any field becomes a plain value, or is refused with the name of the field."""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Iterator
from fractions import Fraction
from itertools import count, repeat
from types import MappingProxyType
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.config import EngineConfig, parse_memory
from ferrum.errors import InvalidParameter
from ferrum.sampling_params import SamplingParams, StructuredOutputs

NAN = math.nan


class Failing:
    """An object of which every method and attribute fails."""

    __hash__ = None  # type: ignore[assignment]

    def __eq__(self, other: object) -> bool:
        raise KeyError("eq")

    def __iter__(self) -> Iterator[int]:
        raise OSError("iter")

    def __index__(self) -> int:
        raise ZeroDivisionError

    def __float__(self) -> float:
        raise MemoryError

    def __repr__(self) -> str:
        raise RuntimeError("repr")


class Unclassed(Failing):
    @property  # type: ignore[misc]
    def __class__(self) -> type:
        raise OSError("class")


class FailingNumber(int):
    def __lt__(self, other: object) -> bool:
        raise ZeroDivisionError

    __index__ = __int__ = __repr__ = __lt__  # type: ignore[assignment]


class FailingMapping(dict[Any, Any]):
    def items(self) -> Any:
        raise OSError("items")


class EndlessMapping(dict[Any, Any]):
    def items(self) -> Any:
        return repeat((1, 2.0))


CIRCLE: dict[str, Any] = {}
CIRCLE["a"] = CIRCLE
NESTED: dict[str, Any] = {}
for _ in range(20_000):
    NESTED = {"a": NESTED}
DOUBLED: list[Any] = []
for _ in range(60):
    DOUBLED = [DOUBLED, DOUBLED]
OBJECTS = [
    *(None, True, False, 10**30, -(10**30), 10**5000, 2**63, NAN, math.inf, 1e308, 5e-324, 1j, Fraction(10**400)),
    *("", "a", "12", "\ud800", "\0", "a" * 100_000, b"ab", bytearray(b"a"), memoryview(b"a"), object(), type),
    *([], [1], ["a"], [[1]], [None], [NAN], ["a"] * 100, (2,), {3}, frozenset("a"), range(10**12), {}, {1: 2}),
    *(MappingProxyType({1: 2}), {"a": 1}, {1: NAN}, CIRCLE, NESTED, DOUBLED, [DOUBLED], {"a": DOUBLED}),
    *(Failing(), Unclassed(), FailingNumber(3), FailingMapping(), EndlessMapping(), [Failing()], {1: Unclassed()}),
    *(np.int64(5), np.uint8(5), np.float32(0.5), np.float64("nan"), np.bool_(True), np.str_("a"), np.bytes_(b"a")),
    *(np.array(1), np.array([1, 2]), np.array([0.5]), np.array(["a"]), np.array([[1]]), np.array([1, "a"], object)),
]
LOOKED_AT = [index for index, value in enumerate(OBJECTS) if type(value) is not Unclassed]  # Hypothesis looks at them
ANYTHING = st.recursive(
    st.sampled_from(LOOKED_AT).map(lambda index: OBJECTS[index])
    | st.integers()
    | st.floats()
    | st.text(max_size=3)
    | st.binary(max_size=3),
    lambda inner: (
        st.lists(inner, max_size=3)
        | st.lists(inner, max_size=3).map(iter)
        | st.dictionaries(st.integers() | st.text(max_size=2), inner, max_size=3)
    ),
    max_leaves=5,
)
PLAIN = (int, float, str, bool, tuple, dict, type(None), StructuredOutputs)


def check_any_object(kind: Any, field: str, value: Any) -> None:
    """Checks that the value becomes a plain value, or is refused in one line with the name of the field."""
    try:
        made = kind(**{field: value})
    except InvalidParameter as refusal:
        assert refusal.field == ("structured_outputs" if kind is StructuredOutputs else field)
        assert str(refusal).isprintable() and len(str(refusal)) < 250
        return
    kept = getattr(made, field)
    assert type(kept) in PLAIN
    if isinstance(kept, (tuple, dict)):
        assert {type(item) for item in kept} <= {int, str}
    if type(value) in (int, float, bool, str) and type(kept) is not tuple and field not in ("top_k", "json"):
        assert kept in (value, type(kept)(value))
    assert repr(made) and hash(made) == hash(dataclasses.replace(made))


@pytest.mark.clause("SAMPLE-32")
@given(field=st.sampled_from([field.name for field in dataclasses.fields(SamplingParams)]), value=ANYTHING)
def test_any_object_in_any_field(field: str, value: Any) -> None:
    check_any_object(SamplingParams, field, value)


@pytest.mark.clause("SAMPLE-32")
@given(field=st.sampled_from(["json", "regex", "choice", "grammar"]), value=ANYTHING)
def test_any_object_as_a_structure(field: str, value: Any) -> None:
    check_any_object(StructuredOutputs, field, value)


@pytest.mark.clause("SAMPLE-32")
@pytest.mark.parametrize("index", range(len(OBJECTS)))
def test_known_objects_in_every_field(index: int) -> None:
    value = OBJECTS[index]
    for kind in (SamplingParams, StructuredOutputs, EngineConfig):
        for field in dataclasses.fields(kind):
            check_any_object(kind, field.name, value)


@pytest.mark.clause("SAMPLE-32")
@pytest.mark.parametrize(
    ("fields", "kept"),
    [
        ({"seed": np.random.default_rng(0).integers(100)}, {"seed": 85}),
        ({"max_tokens": np.int64(5), "top_k": np.uint8(7)}, {"max_tokens": 5, "top_k": 7}),
        ({"temperature": np.float32(0.5), "top_p": np.float64(0.25)}, {"temperature": 0.5, "top_p": 0.25}),
        ({"stop_token_ids": np.array([2, 3])}, {"stop_token_ids": (2, 3)}),
        ({"stop_token_ids": (token for token in (2, 3))}, {"stop_token_ids": (2, 3)}),
        ({"stop": np.array(["a", "b"])}, {"stop": ("a", "b")}),
        ({"stop": "END"}, {"stop": ("END",)}),
        ({"stop": None, "stop_token_ids": None}, {"stop": (), "stop_token_ids": ()}),
        ({"logit_bias": {np.int64(3): np.float32(1.5)}}, {"logit_bias": {3: 1.5}}),
        ({"logit_bias": MappingProxyType({3: 1})}, {"logit_bias": {3: 1.0}}),
        ({"seed": -(2**1023), "max_tokens": 2**63 - 1}, {"seed": -(2**1023), "max_tokens": 2**63 - 1}),
        ({"mirostat": np.int8(2), "mirostat_tau": 10**300}, {"mirostat": 2, "mirostat_tau": 1e300}),
    ],
)
def test_numbers_and_lists_of_other_libraries(fields: dict[str, Any], kept: dict[str, Any]) -> None:
    params = SamplingParams(**fields)
    for name, value in kept.items():
        found = getattr(params, name)
        assert found == value and type(found) is type(value)
        assert repr(found) == repr(value)  # no number of NumPy inside either
    assert params == SamplingParams(**kept)


@pytest.mark.clause("SAMPLE-32")
def test_a_list_without_end_is_refused() -> None:
    for field in ("stop", "stop_token_ids"):
        with pytest.raises(InvalidParameter, match=f"{field} must hold at most 1048576 items"):
            SamplingParams(**{field: count()})  # type: ignore[arg-type]
    with pytest.raises(InvalidParameter, match="logit_bias must hold at most 1048576 items"):
        SamplingParams(logit_bias=EndlessMapping())


STRUCTURES: list[tuple[dict[str, Any], str]] = [
    ({"json": "false"}, "json allows nothing"),
    ({"json": False}, "json allows nothing"),
    ({"json": {"minimum": NAN}}, "not a JSON schema"),
    ({"json": '{"minimum": NaN}'}, "not a JSON schema"),
    ({"json": '{"minimum": 1e999}'}, "not a JSON schema"),
    ({"json": '{"minimum": ' + "9" * 5000 + "}"}, "not a JSON schema"),
    ({"json": "[" * 100_000}, "not a JSON schema"),
    ({"json": CIRCLE}, "not a JSON schema"),
    ({"json": NESTED}, "not a JSON schema"),
    ({"json": {"const": DOUBLED}}, "json must have at most 262144 characters"),
    ({"json": '{"const": "' + "a" * 10**7 + '"}'}, "json must have at most 262144 characters"),
    ({"json": {"const": "\ud800"}}, "half of a surrogate pair"),
    ({"json": '{"const": "\\ud800"}'}, "half of a surrogate pair"),
    ({"json": Failing()}, "not a JSON schema"),
    ({"json": 5}, "must be a JSON object, not 5"),
    ({"regex": "\ud800"}, "half of a surrogate pair"),
    ({"regex": "a" * 262145}, "regex must have at most 262144 characters"),
    ({"grammar": "a" * 10**7}, "grammar must have at most 262144 characters"),
    ({"choice": 5}, "must be a list of choices, not 5"),
    ({"choice": {"a": 1}}, "must be a list of choices"),
    ({"choice": b"yes"}, "must be a list of choices"),
    ({"choice": ["a" * 200_000, "b" * 100_000]}, "choice must have at most 262144 characters"),
    ({"choice": repeat("a")}, "must hold at most 1048576 items"),
]


@pytest.mark.clause("SAMPLE-32", "SAMPLE-29")
@pytest.mark.parametrize("index", range(len(STRUCTURES)))
def test_structures_beyond_measure(index: int) -> None:
    fields, complaint = STRUCTURES[index]
    with pytest.raises(InvalidParameter, match=complaint) as refusal:
        StructuredOutputs(**fields)
    assert str(refusal.value).isprintable() and len(str(refusal.value)) < 250


@pytest.mark.clause("SAMPLE-32")
def test_a_structure_is_kept_as_text() -> None:
    schema = {"type": "object", "properties": {"é": {}}}
    given = StructuredOutputs(json=schema)
    schema["type"] = "nonsense"
    assert given.text == given.json == '{"type": "object", "properties": {"é": {}}}'
    assert given == StructuredOutputs(json=' {"type":"object", "properties":{"\\u00e9":{}}}')
    assert StructuredOutputs(json=True) == StructuredOutputs(json="true") == StructuredOutputs(json={})
    assert StructuredOutputs(choice="yes").choice == ("yes",)  # type: ignore[arg-type]
    assert hash(SamplingParams(structured_outputs=given)) == hash(SamplingParams(structured_outputs=given))


MEMORY: list[tuple[Any, int | None]] = [
    ("24MiB", 24 << 20), ("1.5 GB", 1_500_000_000), (" 7 kb ", 7000), ("0", 0), (0, 0), (5, 5), ("0.1GiB", 107374182),
    (np.int64(6), 6), ("1024TiB", 1 << 50), (1 << 60, 1 << 60), ("9" * 400, None), ("9" * 401, None),
    ("99999999TiB", None), (10**30, None), ((1 << 60) + 1, None), (-1, None), ("-1", None), ("²", None),
    ("１GiB", None), ("1e9", None), ("1e400", None), (1.5, None), (NAN, None), (math.inf, None), (True, None),
    (None, None), ("", None), ("GiB", None), ("1.GiB", None), ("1 XiB", None), (b"1", None), ("\0", None),
    (10**5000, None), (Failing(), None), (Unclassed(), None),
]  # fmt: skip


@pytest.mark.clause("SAMPLE-32")
@pytest.mark.parametrize("index", range(len(MEMORY)))
def test_sizes_of_memory(index: int) -> None:
    value, size = MEMORY[index]
    if size is not None:
        assert parse_memory("kv_memory", value) == size
        return
    with pytest.raises(InvalidParameter) as refusal:
        parse_memory("kv_memory", value)
    assert refusal.value.field == "kv_memory" and len(str(refusal.value)) < 250


@pytest.mark.clause("SAMPLE-32")
@pytest.mark.parametrize("value", [0, -1, 2**63, 10**30, 10**400, 1.0, "1", True, NAN], ids=str)
@pytest.mark.parametrize(
    "field",
    ["threads", "max_model_len", "max_num_seqs", "max_num_batched_tokens", "block_size", "kv_memory", "max_waiting"],
)
def test_sizes_of_an_engine(field: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        EngineConfig(**{field: value})
    assert refusal.value.field == field and str(refusal.value).isprintable()


@pytest.mark.clause("SAMPLE-32")
def test_the_truth_values_of_numpy_are_truth_values() -> None:
    assert SamplingParams(ignore_eos=np.True_).ignore_eos is True  # type: ignore[arg-type]
    assert SamplingParams(ignore_eos=np.array([1])[0] > 2).ignore_eos is False
    for wrong in (1, "true", np.array([True]), np.int64(1)):
        with pytest.raises(InvalidParameter, match="ignore_eos must be true or false"):
            SamplingParams(ignore_eos=wrong)  # type: ignore[arg-type]

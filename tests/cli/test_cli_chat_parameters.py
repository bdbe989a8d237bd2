"""CLI-62: parameters as they are typed, shown and kept."""

from __future__ import annotations

import json
import math
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.cli.parameters import READERS, as_json, change, from_json, names, shown, write
from ferrum.errors import FerrumError, InvalidParameter, NotFound, Unsupported
from ferrum.sampling_params import NUMBERS as SAMPLING_NUMBERS
from ferrum.sampling_params import SamplingParams
from tests.cli.conversations import EMPTY, PARAMS


def outcome(make: Any) -> Any:
    """The parameters, or the message of the error with which they are refused."""
    try:
        return make()
    except InvalidParameter as error:
        return str(error)


DECLARED = {name: declared for name, declared in SAMPLING_NUMBERS.items() if name in names()}
NUMBERS = st.integers(-3, 10**6) | st.floats() | st.sampled_from([0.0, 1.0])


@pytest.mark.clause("CLI-62")
@given(st.sampled_from([name for name in DECLARED if DECLARED[name].kind is float]), NUMBERS)
def test_a_number_is_accepted_exactly_where_the_parameters_accept_it(name: str, value: float) -> None:
    expected = outcome(lambda: replace(EMPTY.params, **{name: float(value)}))
    assert outcome(lambda: change(EMPTY.params, name, str(value))) == expected


@pytest.mark.clause("CLI-62")
@given(st.sampled_from([*(name for name in DECLARED if DECLARED[name].kind is int), "seed"]), NUMBERS)
def test_a_whole_number_too(name: str, value: float) -> None:
    expected = outcome(lambda: replace(EMPTY.params, **{name: value}))
    told = outcome(lambda: change(EMPTY.params, name, str(value)))
    assert told == expected if isinstance(expected, SamplingParams) else isinstance(told, str) and name in told
    assert change(EMPTY.params, "seed", "none").seed is None


@pytest.mark.clause("CLI-62")
@given(PARAMS)
def test_what_is_shown_can_be_typed(params: SamplingParams) -> None:
    typed = SamplingParams()
    for name in names():
        typed = change(typed, name, shown(params, name))
    assert typed == params
    assert from_json(json.loads(json.dumps(as_json(params)))) == params


@pytest.mark.clause("CLI-62")
@pytest.mark.parametrize(
    ("name", "text", "error", "words"),
    [
        ("temperature", "-1", InvalidParameter, "temperature must be a number at least 0, not -1.0"),
        ("temperature", "warm", InvalidParameter, "temperature must be a number at least 0, not 'warm'"),
        ("max_tokens", "0", InvalidParameter, "max_tokens must be a whole number of at least 1, not 0"),
        ("max_tokens", "1.5", InvalidParameter, "max_tokens must be a whole number of at least 1, not '1.5'"),
        ("top_k", "none", InvalidParameter, "top_k must be a whole number of at least -1, not 'none'"),
        ("stop_token_ids", "1,x", InvalidParameter, "stop_token_ids must be a list of token ids, not '1,x'"),
        ("stop", '["a", 1]', InvalidParameter, "stop cannot be"),
        ("stop", '[""]', InvalidParameter, "stop must hold non-empty strings"),
        ("stop", "[" * 10_000, InvalidParameter, "stop cannot be"),
        ("stop", "[" * 100_000, InvalidParameter, "stop must hold at most 16384 characters"),
        ("ignore_eos", "perhaps", InvalidParameter, "ignore_eos must be true or false, not 'perhaps'"),
        ("n", "2", Unsupported, "n cannot be set"),
        ("logprobs", "2", Unsupported, "logprobs cannot be set"),
        ("structured_outputs", "{}", Unsupported, "structured_outputs cannot be set here"),
        ("logit_bias", "5", InvalidParameter, "logit_bias"),
        ("logit_bias", "5=1000", InvalidParameter, "logit_bias must be a number between -100 and 100"),
        ("colour", "red", NotFound, "no parameter 'colour'"),
    ],
)
def test_a_wrong_value_is_refused_in_the_words_of_the_parameters(
    name: str, text: str, error: type[FerrumError], words: str
) -> None:
    with pytest.raises(error) as caught:
        change(EMPTY.params, name, text)
    assert words in str(caught.value)


@pytest.mark.clause("CLI-62")
@pytest.mark.parametrize(
    ("hint", "text", "value"),
    [
        (str, "one two", "one two"),
        (str, '"a\\nb"', "a\nb"),
        (str | None, "none", None),
        (str | None, '"none"', "none"),
        (bool, "on", True),
        (tuple[str, ...], "a, b", ("a, b",)),
        (tuple[str, ...], '["a", "\\n"]', ("a", "\n")),
        (tuple[int, ...], "1, 2", (1, 2)),
        (Mapping[int, float], "5=-1.5, 7=2", {5: -1.5, 7: 2.0}),
        (Mapping[int, float], "5=-inf", {5: -math.inf}),
        (Mapping[int, float], "none", {}),
    ],
)
def test_how_values_of_each_type_are_written(hint: Any, text: str, value: Any) -> None:
    read = READERS[hint]
    assert read(text) == value
    assert read(write(value)) == value


@pytest.mark.clause("CLI-62")
def test_a_parameter_of_another_type_is_refused_by_name(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferrum.cli.parameters._hints", lambda: {"n": int, "stop": object})
    with pytest.raises(Unsupported, match="stop cannot be set here"):
        change(EMPTY.params, "stop", "a")
    with pytest.raises(Unsupported, match="stop cannot be set here"):
        shown(EMPTY.params, "stop")


TYPED = [
    *("1e999", "nan", "-inf", "9" * 5000, "1=nan", "1=1e999", "9" * 5000 + "=1", "=", "1=", "=1", "1=1=1", ""),
    *("\0", "[", "[" * 9999, '"\\ud800"', '"', "[1]", '["a",null]', "[NaN]", "1," * 2000, "-1", "²", "\x1b[2J", "1,,2"),
]


@pytest.mark.clause("CLI-62", "SAMPLE-32")
@pytest.mark.parametrize("text", TYPED, ids=map(str, range(len(TYPED))))
def test_whatever_is_typed_is_a_value_or_a_short_complaint(text: str) -> None:
    for name in names():
        try:
            params = change(EMPTY.params, name, text)
        except InvalidParameter as error:
            assert error.field == name and str(error).isprintable() and len(str(error)) < 250
        else:
            assert change(EMPTY.params, name, shown(params, name)) == params


KEPT: list[Any] = [
    *(10**400, 10**5000, math.inf, math.nan, -1, True, None, "x", [], {}, [10**400], {"1": math.nan}, {"x": 1}),
    *({"9" * 5000: 1}, [[1]], "\ud800", {"1": True}, [None], {"": 1}, {"1": 10**400}, 1e308, [math.nan], "\x1b[2J"),
]


@pytest.mark.clause("CLI-62", "SAMPLE-32")
@pytest.mark.parametrize("index", range(len(KEPT)))
def test_whatever_a_file_holds_is_a_value_or_a_short_complaint(index: int) -> None:
    for name in names():
        try:
            params = from_json({name: KEPT[index]})
        except InvalidParameter as error:
            assert error.field == name and str(error).isprintable() and len(str(error)) < 250
        else:
            assert from_json(json.loads(json.dumps(as_json(params), allow_nan=False))) == params


@pytest.mark.clause("CLI-62")
@pytest.mark.parametrize("name", ["colour", "\x1b[2J", "n" * 10_000, "n"])
def test_names_that_are_none_are_shown_short(name: str) -> None:
    for told in (lambda: change(EMPTY.params, name, "1"), lambda: from_json({name: 1})):
        with pytest.raises(FerrumError) as caught:
            told()
        assert str(caught.value).isprintable() and len(str(caught.value)) < 250

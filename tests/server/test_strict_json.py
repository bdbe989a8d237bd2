"""SERVER-10 to SERVER-13: the JSON of requests is read strictly."""

from __future__ import annotations

import json
import math
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.api.errors import ApiError
from ferrum.api.strict_json import DEEPEST, MOST_PIECES, parse_object

TEXTS = st.text(st.characters(exclude_categories=("Cs",), exclude_characters="\x00"))
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | TEXTS,
    lambda inside: st.lists(inside, max_size=4) | st.dictionaries(TEXTS, inside, max_size=4),
)
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=5)


def refusal(raw: bytes) -> ApiError:
    with pytest.raises(ApiError) as caught:
        parse_object(raw)
    assert caught.value.status == 400
    return caught.value


@pytest.mark.clause("SERVER-10")
@given(OBJECTS, st.booleans(), st.booleans())
def test_an_object_is_read_as_it_was_written(value: dict[str, Any], ascii_only: bool, marked: bool) -> None:
    raw = json.dumps(value, ensure_ascii=ascii_only).encode()
    assert parse_object(b"\xef\xbb\xbf" + raw if marked else raw) == value


@pytest.mark.clause("SERVER-10")
@given(st.binary(max_size=40))
@example(b"")
@example(b"[]")
@example(b'"text"')
@example(b'{"a": 1} {}')
@example(b"{'a': 1}")
@example(b'{"a": "\x00"}')
@example(b'{"a": "\xff"}')
@example(b'{"a": 1}'.decode().encode("utf-16"))
def test_anything_else_is_refused(raw: bytes) -> None:
    try:
        expected = json.loads(raw.decode("utf-8-sig"))
    except ValueError:
        expected = None
    if not isinstance(expected, dict):
        assert refusal(raw).message


@pytest.mark.clause("SERVER-11")
@pytest.mark.parametrize(
    "number", ["NaN", "Infinity", "-Infinity", "1e999", "-1e999", "9" * 5000, "-" + "9" * 5000], ids=lambda n: n[:6]
)
def test_a_number_is_finite_and_can_be_read(number: str) -> None:
    error = refusal(f'{{"temperature": {number}}}'.encode())
    assert error.code == "invalid_json" and len(error.message) < 200


@pytest.mark.clause("SERVER-11")
@given(st.floats(allow_nan=False, allow_infinity=False))
def test_finite_numbers_stay_what_they_are(number: float) -> None:
    found = parse_object(json.dumps({"a": number}).encode())["a"]
    assert found == number and math.copysign(1, found) == math.copysign(1, number)


@pytest.mark.clause("SERVER-11")
@given(VALUES, VALUES)
def test_a_key_stands_once(first: Any, second: Any) -> None:
    once, again = json.dumps(first), json.dumps(second)
    for raw in (f'{{"a": {once}, "b": 0, "a": {again}}}', f'{{"x": [{{"a": {once}, "a": {again}}}]}}'):
        assert "'a' stands there twice" in refusal(raw.encode()).message


@pytest.mark.clause("SERVER-17")
@pytest.mark.parametrize(
    ("item", "count", "fits"),
    [
        (b"1", MOST_PIECES // 2, True),
        (b"1", MOST_PIECES + 1, False),
        (b"{}", MOST_PIECES, False),
        (b'""', MOST_PIECES, False),
        (b"[]", MOST_PIECES, False),
        (b'"' + b'\\",{[' * MOST_PIECES + b'"', 1, True),  # all of it is one text
        (b'"' + b"\\" * 2 * MOST_PIECES, 1, None),  # which does not end
    ],
    ids=["numbers", "more numbers", "objects", "texts", "lists", "one text", "no end"],
)
def test_values_are_counted_before_they_are_made(item: bytes, count: int, fits: bool | None) -> None:
    raw = b'{"x":[' + b",".join([item] * count) + b"]}"
    if fits:
        assert len(parse_object(raw)["x"]) == count
    else:
        with pytest.raises(ApiError) as caught:
            parse_object(raw)
        assert caught.value.status == (400 if fits is None else 413)


@pytest.mark.clause("SERVER-12")
@given(TEXTS, TEXTS, st.sampled_from(["\\ud800", "\\udfff", "\\u0000", "\\udc00\\ud800"]), st.booleans())
def test_a_text_holds_characters(before: str, after: str, bad: str, as_key: bool) -> None:
    text = json.dumps(before)[:-1] + bad + json.dumps(after)[1:]
    inside = f"{{{text}: 1}}" if as_key else f'["x", {text}]'
    error = refusal(f'{{"stop": {inside}}}'.encode())
    assert error.param == "stop" and error.code == "invalid_text"


@pytest.mark.clause("SERVER-12")
def test_a_pair_of_surrogates_is_one_character() -> None:
    assert parse_object(b'{"a": "\\ud83d\\ude00"}') == {"a": "\U0001f600"}


@pytest.mark.clause("SERVER-12")
def test_the_name_of_a_field_is_a_text_too() -> None:
    assert refusal(b'{"\\ud800": 1}').code == "invalid_text"


@pytest.mark.clause("SERVER-13")
@given(st.integers(0, 3 * DEEPEST), st.sampled_from([("[", "]"), ('{"a":', "}")]))
def test_nesting_ends_somewhere(depth: int, brackets: tuple[str, str]) -> None:
    raw = ('{"x":' + brackets[0] * depth + "1" + brackets[1] * depth + "}").encode()
    if depth < DEEPEST:
        assert parse_object(raw)
    else:
        assert refusal(raw).code == "too_deep"


@pytest.mark.clause("SERVER-13")
@pytest.mark.parametrize("raw", [b"[" * 100_000, b'{"a":' * 100_000, b'{"a":' + b"[" * 10_000 + b"]" * 10_000 + b"}"])
def test_nesting_without_end_is_refused_and_no_crash(raw: bytes) -> None:
    assert refusal(raw)

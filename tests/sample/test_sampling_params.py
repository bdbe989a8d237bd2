"""SAMPLE-15 and SAMPLE-16: what is accepted, what is refused, and presets."""

from __future__ import annotations

import dataclasses
import math
from fractions import Fraction
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.sampling_params import NUMBERS, PRESETS, SamplingParams, StructuredOutputs, preset
from tests.sample.declared import values

NAN = math.nan
REFUSED: dict[str, list[Any]] = {  # for numbers, only cases that do not follow from their declarations
    "n": [0, -1, 1.0, True, "1", None, 2**63, 10**4000],
    "max_tokens": [0, -1, 2.0, True, "5", 10**30],
    "min_tokens": [-1, 1.5, True, None, 17],  # 17 is beyond max_tokens
    "temperature": [-0.1, NAN, math.inf, "1", None, True, 10**400, 1j, np.float32("nan"), Fraction(10**400)],
    "top_k": [-2, 1.5, True, None, 2**63, -(2**63), 10**30],
    "top_n_sigma": [-0.5, 1e200],
    "mirostat": [1, 3, -2, True, "2", None],
    "repetition_penalty": [0, -1, 0.001, 1000, NAN, None],
    "logit_bias": [[1], {"a": 1}, {-1: 1}, {1: 101}, {1: NAN}, {1: "x"}, {True: 1}, "x", {2**63: 1}, {1: 10**400}],
    "seed": [1.0, "1", True, 2**1024, -(2**1024), np.array(3), np.float64(3)],
    "stop": [("",), ("a", ""), (1,), 0, False, b"a", {"a": 1}, ["a"] * 65, "a" * 16385, ["ab", "c" * 16384]],
    "stop_token_ids": [("a",), (1.0,), (True,), (-1,), 2, "12", b"12", {1: 2}, (10**30,), [[1]], np.array([[1]])],
    "ignore_eos": [1, None, "yes"],
    "include_stop_str_in_output": [1, None],
    "skip_special_tokens": [0, None],
    "logprobs": [-2, 1.5, True, "1", 2**63],
    "prompt_logprobs": [-2, 1.5, True, "1"],
    "logprobs_mode": ["raw", "", None, 1],
    "structured_outputs": ["{}", {"json": "{}"}, True, StructuredOutputs],
    "speculate": ["", "yes", "ngram:0", "ngram:-1", "ngram:65", "ngram:x", "NGRAM", 3, True, b"ngram", ["ngram"]],
}


@pytest.mark.clause("SAMPLE-15")
def test_arguments_by_position_keep_their_places() -> None:
    """A new field in the middle takes no position."""
    params = SamplingParams(2, 9, 1, 0.5, 3, 0.9, 0.1, 0.8)
    assert (params.n, params.max_tokens, params.min_tokens, params.temperature) == (2, 9, 1, 0.5)
    assert (params.top_k, params.top_p, params.min_p, params.typical_p) == (3, 0.9, 0.1, 0.8)


@pytest.mark.clause("SAMPLE-15")
def test_every_field_is_tried() -> None:
    assert REFUSED.keys() | NUMBERS.keys() == {field.name for field in dataclasses.fields(SamplingParams)}


@pytest.mark.clause("SAMPLE-15")
@pytest.mark.parametrize(("name", "value"), [(name, value) for name, values in REFUSED.items() for value in values])
def test_what_cannot_be_is_refused_by_name(name: str, value: Any) -> None:
    with pytest.raises(InvalidParameter) as refusal:
        SamplingParams(**{name: value})
    assert name in str(refusal.value) and "\n" not in str(refusal.value)


@pytest.mark.clause("SAMPLE-15")
@given(
    given_values=st.fixed_dictionaries(
        {},
        optional={
            **{name: values(name) for name in NUMBERS if name not in ("max_tokens", "min_tokens")},
            "temperature": st.floats(0, 1e6),
            "top_k": st.integers(-1, 10**9),
            "logit_bias": st.dictionaries(st.integers(0, 10**6), st.floats(-100, 100), max_size=3),
            "seed": st.integers(),
            "logprobs": st.integers(-1, 100),
        },
    )
)
def test_what_can_be_is_kept_as_it_is(given_values: dict[str, Any]) -> None:
    params = SamplingParams(**given_values)
    for name, value in given_values.items():
        assert getattr(params, name) == (0 if (name, value) == ("top_k", -1) else value)
    same = SamplingParams(**given_values)
    assert hash(params) == hash(same) and params == same


@pytest.mark.clause("SAMPLE-15")
def test_a_bias_is_copied() -> None:
    bias = {1: 2.0}
    params = SamplingParams(logit_bias=bias)
    bias[1] = 50.0
    assert params.logit_bias == {1: 2.0}
    assert SamplingParams(logit_bias=None).logit_bias == {}  # type: ignore[arg-type]  # vLLM's default


@pytest.mark.clause("SAMPLE-15", "SAMPLE-29")
@pytest.mark.parametrize(
    ("fields", "complaint"),
    [
        ({}, "nothing is given"),
        ({"regex": "a", "json": "{}"}, "json and regex are given"),
        ({"json": "{"}, "not a JSON schema"),
        ({"json": "[1]"}, "must be a JSON object"),
        ({"json": {"a": {1, 2}}}, "not a JSON schema"),
        ({"choice": ()}, "at least one"),
        ({"choice": (1,)}, "must hold texts"),
        ({"regex": 5}, "regex must be text"),
        ({"grammar": b"x"}, "grammar must be text"),
    ],
)
def test_structures_that_make_no_sense(fields: dict[str, Any], complaint: str) -> None:
    with pytest.raises(InvalidParameter, match=complaint):
        StructuredOutputs(**fields)


@pytest.mark.clause("SAMPLE-16")
@pytest.mark.parametrize("name", PRESETS)
def test_presets_are_parameters(name: str) -> None:
    assert preset(name) == SamplingParams(**PRESETS[name])
    assert preset(name, temperature=0.123, max_tokens=3).temperature == 0.123
    assert preset(name, max_tokens=3).max_tokens == 3


@pytest.mark.clause("SAMPLE-16")
def test_presets_differ_as_their_names_say() -> None:
    greedy, precise, creative = (preset(name).temperature for name in ("greedy", "precise", "creative"))
    assert greedy == 0 < precise < 1 < creative
    with pytest.raises(InvalidParameter, match="greedy, precise, creative"):
        preset("wild")

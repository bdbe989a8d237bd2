"""Ids that begin and end a text: none, one, several, and ids outside the vocabulary."""

from __future__ import annotations

import warnings
from typing import Any

import pytest

from ferrum.errors import InvalidFormat, ModelWarning
from ferrum.fields import Fields
from ferrum.load.token_ids import TokenIds, gguf_token_ids, json_token_ids


def of_json(generation: Any = None, **keys: Any) -> TokenIds:
    files = [Fields({"vocab_size": 40, **keys}, "config.json")]
    return json_token_ids([*files, *([Fields({"eos_token_id": generation}, "generation_config.json")])])


@pytest.mark.clause("LOAD-80")
@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"bos_token_id": -1, "eos_token_id": 2}, TokenIds(None, (2,))),
        ({"bos_token_id": 0, "eos_token_id": -1}, TokenIds(0)),
        ({"bos_token_id": None, "eos_token_id": [-1, 2, -1]}, TokenIds(None, (2,))),
        ({"eos_token_id": -1, "generation": 3}, TokenIds(None, (3,))),
        ({"eos_token_id": 3, "generation": [-1]}, TokenIds(None, (3,))),
        ({"eos_token_id": [], "bos_token_id": 39}, TokenIds(39)),
        ({"eos_token_id": [2, 2, 39], "generation": [39, 2]}, TokenIds(None, (2, 39))),
    ],
)
def test_minus_one_means_none(keys: dict[str, Any], expected: TokenIds) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_json(**keys) == expected


@pytest.mark.clause("LOAD-80")
@pytest.mark.parametrize(
    ("keys", "expected", "says"),
    [
        ({"eos_token_id": 40}, TokenIds(), "config.json: eos_token_id names token 40, which the model does not have"),
        ({"eos_token_id": [2, 41]}, TokenIds(None, (2,)), "eos_token_id names token 41"),
        ({"bos_token_id": 32000}, TokenIds(), "bos_token_id names token 32000"),
        ({"bos_token_id": -2}, TokenIds(), "bos_token_id names token -2"),
        ({"eos_token_id": 2, "generation": [2, 40]}, TokenIds(None, (2,)), "generation_config.json: eos_token_id"),
        ({"eos_token_id": 10**30}, TokenIds(), "eos_token_id names token 10000"),
    ],
)
def test_an_id_that_no_token_has_is_passed_over_with_a_warning(
    keys: dict[str, Any], expected: TokenIds, says: str
) -> None:
    with pytest.warns(ModelWarning, match=says) as told:
        assert of_json(**keys) == expected
    assert len(told) == 1


@pytest.mark.clause("LOAD-80")
def test_without_a_size_no_id_is_too_large() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_json(vocab_size=None, eos_token_id=10**6) == TokenIds(None, (10**6,))
        assert gguf_token_ids(Fields({"tokenizer.ggml.eos_token_id": 10**6}, "x")) == TokenIds(None, (10**6,))


def of_gguf(**ids: Any) -> TokenIds:
    keys = {f"tokenizer.ggml.{name}_token_id": value for name, value in ids.items()}
    return gguf_token_ids(Fields({"tokenizer.ggml.tokens": ["a"] * 40, **keys}, "model.gguf"))


@pytest.mark.clause("LOAD-26", "LOAD-80")
def test_the_ids_of_gguf() -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert of_gguf(bos=0xFFFFFFFF, eos=2) == TokenIds(None, (2,))
        assert of_gguf(bos=-1, eos=0xFFFFFFFF, eot=9, eom=8) == TokenIds(None, (9, 8))
        assert of_gguf(bos=1, eos=2, eot=2, eom=3) == TokenIds(1, (2, 3))
    with pytest.warns(ModelWarning, match=r"model\.gguf: tokenizer\.ggml\.eot_token_id names token 40, which"):
        assert of_gguf(bos=1, eos=2, eot=40) == TokenIds(1, (2,))


@pytest.mark.clause("LOAD-21")
@pytest.mark.parametrize("value", ["2", [2, "3"], True, [True], 2.5, {}, [[2]], [None]])
def test_what_is_no_id_is_an_error(value: Any) -> None:
    with pytest.raises(InvalidFormat, match="eos_token_id must be a token id or a list of token ids"):
        of_json(eos_token_id=value)

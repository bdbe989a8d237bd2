"""TEXT-45: values of a wrong type in the tokenizer's part of GGUF metadata."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import FerrumError, InvalidFormat, TokenizerError, Unsupported
from ferrum.fields import Fields
from ferrum.text.gguf_tokenizer import tokenizer_from_gguf
from tests.text.small_tokenizers import gguf_metadata, sentencepiece_metadata

ARRAYS = [np.zeros(3), np.zeros((2, 2), np.int32), np.zeros(0, np.int8), [], [[1], [2, 3]], ["a"], [1, "a"], [None]]
WRONG: dict[str, list[Any]] = {
    "model": [1, True, *ARRAYS],
    "pre": [1, True, *ARRAYS],
    "tokens": [1, True, "text", b"abc", np.zeros(3), [1, 2], ["a", 1], ["a" * 5000]],
    "merges": [1, True, "text", np.zeros(3), [1, 2], [["a", "b"]]],
    "token_type": [
        1,
        True,
        "text",
        np.zeros((2, 2), np.int32),
        np.zeros(3),
        np.zeros(3, np.bool_),
        ["a"],
        [1.5],
        [[1]],
    ],
    "scores": [1, True, "text", np.zeros((2, 2)), ["a"], np.zeros(3, np.bool_), [None], [[1.0], [2.0, 3.0]]],
    "precompiled_charsmap": [1, True, "text", np.zeros(5), np.zeros((2, 9), np.int8), [300] * 9, ["a"], [1.5] * 9],
    "add_bos_token": [1, 0, "true", 1.0, *ARRAYS],
    "add_eos_token": [1, 0, "true", 1.0, *ARRAYS],
    "add_space_prefix": [1, 0, "true", 1.0, *ARRAYS],
    "remove_extra_whitespaces": [1, 0, "true", 1.0, *ARRAYS],
}
WRONG |= {
    f"{name}_token_id": ["0", True, 1.5, float("nan"), *ARRAYS, np.zeros(1, np.int64)]
    for name in ("unknown", "bos", "eos", "eot", "eom")
}
ONLY = {"pre": "gpt2", "merges": "gpt2"}  # what one kind of tokenizer does not look at, it need not complain of
ONLY |= dict.fromkeys(["scores", "precompiled_charsmap", "add_space_prefix", "remove_extra_whitespaces"], "llama")
ONLY["unknown_token_id"] = "llama"


def metadata_of(model: str, key: str, value: Any) -> dict[str, Any]:
    metadata = gguf_metadata() if model == "gpt2" else sentencepiece_metadata(model=model)
    return metadata | {f"tokenizer.ggml.{key}": value}


LOOKED_AT = [
    (model, key)
    for key in WRONG
    for model in ("gpt2", "llama", "t5")
    if key not in ONLY or (ONLY[key] == "gpt2") == (model == "gpt2")
]


@pytest.mark.clause("TEXT-45")
@pytest.mark.parametrize(("model", "key"), LOOKED_AT)
def test_a_wrong_type_is_an_error_that_names_the_key(model: str, key: str) -> None:
    for value in WRONG[key]:
        with pytest.raises((InvalidFormat, TokenizerError, Unsupported)) as caught:
            tokenizer_from_gguf(metadata_of(model, key, value))
        message = str(caught.value)
        # Too few of a right type are told by their number
        assert key in message or "GGUF tokenizer has" in message, (value, message)
        assert "\n" not in message and len(message) < 400


ANYTHING = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(),
    st.floats(),
    st.text(max_size=5),
    st.lists(st.one_of(st.integers(-300, 300), st.floats(), st.text(max_size=3), st.lists(st.integers())), max_size=4),
    st.lists(st.integers(0, 255), max_size=20).map(lambda values: np.array(values, np.uint8)),
    st.sampled_from([np.zeros((2, 2)), np.array([True]), np.array([np.nan]), np.array(1.0), np.arange(4)]),
)


@pytest.mark.clause("TEXT-45")
@given(st.sampled_from(["gpt2", "llama", "t5"]), st.dictionaries(st.sampled_from(sorted(WRONG)), ANYTHING, max_size=3))
def test_whatever_stands_there_is_read_or_refused(model: str, changes: dict[str, Any]) -> None:
    metadata = gguf_metadata() if model == "gpt2" else sentencepiece_metadata(model=model)
    metadata |= {f"tokenizer.ggml.{key}": value for key, value in changes.items()}
    try:
        tokenizer = tokenizer_from_gguf(metadata)
        tokenizer.decode(tokenizer.encode("hello é\n", add_special_tokens=True))
    except FerrumError as error:
        assert str(error).isprintable()


@pytest.mark.clause("TEXT-45")
def test_fields_of_lists() -> None:
    def fields(value: Any) -> Fields:
        return Fields({"key": value}, "a file")

    assert fields(["a", "b"]).texts("key") == ["a", "b"] and fields([]).texts("key") == []
    assert fields(np.array([1, 2], np.uint8)).integers("key").tolist() == [1, 2]
    assert fields([1, 2.5]).numbers("key").tolist() == [1.0, 2.5] and not len(fields([]).numbers("key"))
    assert fields(2).index("key", 3) == 2
    for value in (3, -1):
        with pytest.raises(InvalidFormat, match="a file: key must be below 3"):
            fields(value).index("key", 3)
    for value in ("a", 1.0, True, None, np.int64(1)):
        with pytest.raises(InvalidFormat, match="key"):
            fields(value).index("key", 3)
    with pytest.raises(InvalidFormat, match="must be a list of whole numbers"):
        fields([1.0]).integers("key")
    with pytest.raises(InvalidFormat, match="must be a list of numbers"):
        fields([10**400]).numbers("key")

"""TEXT-78: WordPiece in GGUF metadata, beside the tokenizer.json of the same vocabulary."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import TokenizerError
from ferrum.text.gguf_tokenizer import tokenizer_from_gguf
from ferrum.text.gguf_tokens import TokenType
from ferrum.text.tokenizer import Tokenizer
from tests.model.encoders import WORDS, word_pieces

SPECIAL = WORDS[:4]  # [PAD] [UNK] [CLS] [SEP]
PIECES = st.sampled_from([*WORDS, " ", " fox", "foxes", "JUMPED", "fóxes", ",.", "日", "\t", "[CLS]", "x" * 101])


def written(**changes: Any) -> dict[str, Any]:
    """The metadata, as llama.cpp's converter writes it; None takes a key away."""
    tokens = [
        word if word in SPECIAL else word.removeprefix("##") if word.startswith("##") else "▁" + word for word in WORDS
    ]
    kinds = [TokenType.CONTROL if word in SPECIAL else TokenType.NORMAL for word in WORDS]
    keys = {"model": "bert", "pre": "default", "tokens": tokens, "token_type": [int(kind) for kind in kinds],
            "unknown_token_id": 1, "cls_token_id": 2, "seperator_token_id": 3, "padding_token_id": 0}  # fmt: skip
    return {f"tokenizer.ggml.{key}": value for key, value in {**keys, **changes}.items() if value is not None}


FROM_GGUF, FROM_JSON = tokenizer_from_gguf(written()), Tokenizer.from_json(json.dumps(word_pieces()))


@pytest.mark.clause("TEXT-78")
@given(st.lists(st.one_of(PIECES, st.text(max_size=4))).map("".join), st.booleans())
@example("The foxes jumped, the fox.", True)
def test_it_is_the_tokenizer_that_it_was_made_of(text: str, around: bool) -> None:
    ids = FROM_JSON.encode(text, add_special_tokens=around)
    assert FROM_GGUF.encode(text, add_special_tokens=around) == ids
    assert FROM_GGUF.decode(ids) == FROM_JSON.decode(ids)
    assert FROM_GGUF.special_ids == FROM_JSON.special_ids


@pytest.mark.clause("TEXT-78")
def test_what_goes_around_a_text_is_named_by_either_key_or_not_wanted() -> None:
    names = {"cls_token_id": None, "seperator_token_id": None, "bos_token_id": 2, "eos_token_id": 3}
    assert tokenizer_from_gguf(written(**names)).encode("fox", add_special_tokens=True) == [2, 5, 3]
    assert tokenizer_from_gguf(written(add_sep_token=False)).encode("fox", add_special_tokens=True) == [2, 5]
    nameless = written(cls_token_id=None, seperator_token_id=None)  # llama.cpp's 101 and 102 are not there
    assert tokenizer_from_gguf(nameless).encode("fox", add_special_tokens=True) == [5]


@pytest.mark.clause("TEXT-78")
def test_letters_become_small_unless_the_file_says_no() -> None:
    assert tokenizer_from_gguf(written()).encode("FÓX", add_special_tokens=False) == [5]
    cased = tokenizer_from_gguf(written(**{"normalizer.lowercase": False}))
    assert cased.encode("FOX fox fóx", add_special_tokens=False) == [1, 5, 1]
    plain = tokenizer_from_gguf(written(**{"normalizer.lowercase": False, "normalizer.strip_accents": True}))
    assert plain.encode("FOX fox fóx", add_special_tokens=False) == [1, 5, 5]


@pytest.mark.clause("TEXT-78")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"unknown_token_id": None}, "unknown_token_id"),
        ({"token_type": None}, "token_type"),
        ({"tokens": None}, "tokens"),
        ({"tokens": ["[PAD]", "▁a", "▁a"], "token_type": [3, 1, 1], "unknown_token_id": 0}, "twice"),
    ],
)
def test_contradictory_metadata_is_one_sentence(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TokenizerError, match=named) as caught:
        tokenizer_from_gguf(written(**changes))
    assert "\n" not in str(caught.value)

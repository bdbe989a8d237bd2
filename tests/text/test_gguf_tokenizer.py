"""TEXT-06 and TEXT-09 to TEXT-12: the tokenizer in GGUF metadata."""

from __future__ import annotations

import unicodedata
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import TokenizerError, Unsupported
from ferrum.text.gguf_tokenizer import build_pre_tokenizer, tokenizer_from_gguf
from ferrum.text.gguf_tokens import TokenType
from ferrum.text.pre_tokenizers import PRE_TOKENIZERS
from tests.text.small_tokenizers import SPECIAL, USER_DEFINED, byte_level, bytes_only_metadata, gguf_metadata

FROM_GGUF = tokenizer_from_gguf(gguf_metadata())
PIECES = st.sampled_from([*SPECIAL, *USER_DEFINED, "12", "  ", " the", "\n\n"])


@pytest.mark.clause("TEXT-09")
@given(st.lists(st.one_of(PIECES, st.text(max_size=5))).map("".join))
@example("in  2024,   12 34\n 5")
def test_metadata_and_tokenizer_json_make_the_same_tokenizer(text: str) -> None:
    ids = byte_level().encode(text, add_special_tokens=True)
    assert FROM_GGUF.encode(text, add_special_tokens=True) == ids
    assert FROM_GGUF.decode(ids) == byte_level().decode(ids)


@pytest.mark.clause("TEXT-09")
def test_types_may_be_an_array() -> None:
    metadata = gguf_metadata()
    metadata["tokenizer.ggml.token_type"] = np.array(metadata["tokenizer.ggml.token_type"], np.int32)
    assert tokenizer_from_gguf(metadata).special_ids == FROM_GGUF.special_ids


@pytest.mark.clause("TEXT-10")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": "plamo2"}, "'plamo2'"),
        ({"model": "rwkv"}, "'rwkv'"),
        ({"pre": "no-such-family"}, "'no-such-family'"),
    ],
)
def test_what_is_not_known_is_refused_by_name(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(Unsupported, match=named):
        tokenizer_from_gguf(gguf_metadata(**changes))


@pytest.mark.clause("TEXT-06")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"model": None}, r"tokenizer\.ggml\.model"),
        ({"tokens": None}, r"tokenizer\.ggml\.tokens"),
        ({"merges": None}, r"tokenizer\.ggml\.merges"),
        ({"token_type": [1, 1]}, "2 token types"),
        ({"tokens": ["a", "b", "a"]}, "twice"),
    ],
)
def test_contradictory_metadata_is_one_sentence(changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TokenizerError, match=named) as caught:
        tokenizer_from_gguf(gguf_metadata(**changes))
    assert "\n" not in str(caught.value)


@pytest.mark.clause("TEXT-12")
def test_token_types() -> None:
    metadata = gguf_metadata()
    unknown = byte_level().encode("Q", add_special_tokens=False)[0]
    metadata["tokenizer.ggml.token_type"][unknown] = TokenType.UNKNOWN
    tokenizer = tokenizer_from_gguf(metadata)
    assert tokenizer.special_ids == {0, 1, 2, unknown}
    think = tokenizer.token_id("<think>")
    ids = tokenizer.encode("the<think>dog", add_special_tokens=False)
    assert think in ids
    assert tokenizer.decode(ids) == "the<think>dog"


@pytest.mark.clause("TEXT-12")
def test_named_tokens_are_special_whatever_their_type() -> None:
    count = len(gguf_metadata()["tokenizer.ggml.tokens"])
    for types in ([], [int(TokenType.NORMAL)] * count, [int(TokenType.USER_DEFINED)] * count):
        tokenizer = tokenizer_from_gguf(gguf_metadata(token_type=types))
        assert tokenizer.special_ids == {0, 1, 2}
        assert tokenizer.encode("<|im_end|>", add_special_tokens=False) == [2]


@pytest.mark.clause("TEXT-12")
def test_every_named_end_token_ends() -> None:
    assert (FROM_GGUF.bos_token_id, FROM_GGUF.eos_token_ids) == (1, (2, 0))
    assert tokenizer_from_gguf(gguf_metadata(eom_token_id=3, eot_token_id=2)).eos_token_ids == (2, 3, 0)  # by its text
    none = tokenizer_from_gguf(gguf_metadata(bos_token_id=None, eos_token_id=None, eot_token_id=None))
    assert (none.bos_token_id, none.bos_token, none.eos_token_ids, none.eos_token) == (
        None,
        None,
        (0, 2),
        "<|endoftext|>",
    )


@pytest.mark.clause("TEXT-12")
@pytest.mark.parametrize(
    ("changes", "first", "last"),
    [
        ({}, [], []),
        ({"add_bos_token": False, "add_eos_token": False}, [], []),
        ({"add_bos_token": True}, [1], []),
        ({"add_eos_token": True}, [], [2]),
        ({"add_bos_token": True, "add_eos_token": True}, [1], [2]),
        ({"pre": "llama-bpe"}, [1], []),  # the family's habit
        ({"pre": "llama-bpe", "add_bos_token": False}, [], []),
    ],
)
def test_what_goes_around_a_raw_prompt(changes: dict[str, Any], first: list[int], last: list[int]) -> None:
    tokenizer = tokenizer_from_gguf(gguf_metadata(**changes))
    plain = tokenizer.encode("the dog", add_special_tokens=False)
    assert tokenizer.encode("the dog", add_special_tokens=True) == [*first, *plain, *last]
    assert not {1, 2} & set(plain)


def pieces(family: str, text: str) -> list[str]:
    """Where the family cuts `text`."""
    cuts = build_pre_tokenizer(PRE_TOKENIZERS[family]).pre_tokenize_str(text)
    return [text[start:end] for _, (start, end) in cuts]


@pytest.mark.clause("TEXT-01")
@pytest.mark.clause("TEXT-11")
@pytest.mark.parametrize("family", sorted(PRE_TOKENIZERS))
@given(text=st.text(alphabet=st.one_of(st.characters(exclude_categories=["Cs"]), st.sampled_from(" \n'sT12é一"))))
@example(text="a\u0301 e\u0301 가 \u1100\u1161")
def test_no_family_loses_text(family: str, text: str) -> None:
    tokenizer = tokenizer_from_gguf(bytes_only_metadata(family))
    expected = unicodedata.normalize("NFC", text) if PRE_TOKENIZERS[family].normalizes_nfc else text
    ids = tokenizer.encode(text, add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == expected


@pytest.mark.clause("TEXT-11")
@pytest.mark.parametrize(
    ("family", "expected"),
    [
        ("gpt-2", "HTMLParser|'s|  | 12345|\n\n|\n|x|'|S| é一ª|!?|\n"),
        ("smollm", "HTMLParser|'s|   |1|2|3|4|5|\n\n|\n|x|'|S| é一ª|!?|\n"),
        ("command-r", "HTMLParser|'s|   |1|2|3|4|5|\n\n|\n|x|'|S| é一ª|!?|\n"),
        ("llama-bpe", "HTMLParser|'s|  | |123|45|\n\n\n|x|'S| é一ª|!?\n"),
        ("dbrx", "HTMLParser|'s|  | |123|45|\n\n\n|x|'S| é一ª|!?\n"),
        ("qwen2", "HTMLParser|'s|  | |1|2|3|4|5|\n\n\n|x|'S| é一ª|!?\n"),
        ("qwen35", "HTMLParser|'s|  | |1|2|3|4|5|\n\n\n|x|'S| é一ª|!?\n"),
        ("seed-coder", "HTMLParser|'s|  | |1|2|3|4|5|\n\n\n|x|'S| é一ª|!?|\n"),
        ("tekken", "HTMLParser|'s|  | |1|2|3|4|5|\n\n\n|x|'S| é一ª|!?\n"),
        ("gpt-4o", "HTMLParser's|  | |123|45|\n\n\n|x'S| é一ª|!?\n"),
        ("deepseek-coder", "HTMLParser|'|s|   |1|2|3|4|5|\n|\n|\n|x|'|S| é|一|ª|!?|\n"),
        ("deepseek-v3", "HTMLParser|'s|   |123|45|\n\n\n|x|'S| é|一|ª|!?\n"),
        ("default", "HTMLParser|'|s|  | |123|45|\n\n|\n|x|'|S| é一ª|!?|\n"),
    ],
)
def test_where_a_family_cuts(family: str, expected: str) -> None:
    assert pieces(family, "HTMLParser's   12345\n\n\nx'S é一ª!?\n") == expected.split("|")


@pytest.mark.clause("TEXT-11")
def test_a_space_belongs_to_the_punctuation_after_it() -> None:
    assert pieces("deepseek-coder", "a !b  (c)") == ["a", " !", "b", " ", " (", "c", ")"]
    assert pieces("deepseek-v3", "a !b (c.d)") == ["a", " !", "b", " (", "c", ".d", ")"]


# As published in the families' tokenizer.json; our table composes them from parts.
PUBLISHED = {
    "llama-bpe": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen2": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "qwen35": r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    r"|\s*[\r\n]+|\s+(?!\S)|\s+",
    "tekken": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*"
    r"|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
    "gpt-4o": r"[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]*[\p{Ll}\p{Lm}\p{Lo}\p{M}]+"
    r"(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|[^\r\n\p{L}\p{N}]?[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]+[\p{Ll}\p{Lm}\p{Lo}\p{M}]*(?i:'s|'t|'re|'ve|'m|'ll|'d)?"
    r"|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n/]*|\s*[\r\n]+|\s+(?!\S)|\s+",
}


@pytest.mark.clause("TEXT-11")
@pytest.mark.parametrize("family", PUBLISHED)
def test_composed_expressions_are_the_published_ones(family: str) -> None:
    assert PRE_TOKENIZERS[family].splits == (PUBLISHED[family],)


@pytest.mark.clause("TEXT-11")
def test_a_piece_that_is_a_token_may_be_taken_whole() -> None:
    # "dog" is a token here, but no merge makes it.
    metadata = bytes_only_metadata("llama-bpe")
    metadata["tokenizer.ggml.tokens"].append("dog")
    metadata["tokenizer.ggml.token_type"].append(int(TokenType.NORMAL))
    assert tokenizer_from_gguf(metadata).encode("dog", add_special_tokens=False) == [257]
    metadata["tokenizer.ggml.pre"] = "dbrx"
    assert len(tokenizer_from_gguf(metadata).encode("dog", add_special_tokens=False)) == 3

"""TEXT-30 to TEXT-36: SentencePiece tokenizers in GGUF metadata."""

from __future__ import annotations

import base64
import json
import random
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import TokenizerError, Unsupported
from ferrum.text.gguf_sentencepiece import derive_merges
from ferrum.text.gguf_tokenizer import tokenizer_from_gguf
from ferrum.text.gguf_tokens import TokenType
from ferrum.text.sentencepiece_text import SentencePieceText
from ferrum.text.tokenizer import Tokenizer
from tests.text.sentencepiece_oracle import greedy_merges, unigram_ids
from tests.text.small_tokenizers import sentencepiece_metadata, with_tokens

GOLDENS: dict[str, Any] = json.loads(
    (Path(__file__).resolve().parents[1] / "goldens" / "sentencepiece.json").read_text(encoding="utf-8")
)
# Where extra spaces are removed, SentencePiece decodes without any at the start; we drop the one that was put there.
STARTS_WITH_WRITTEN_SPACE = "▁ a ▁"
UNKNOWN = " ⁇ "  # how SentencePiece decodes the unknown token, which to us is a special one


def golden_tokenizer(name: str) -> Tokenizer:
    described = GOLDENS["models"][name]["metadata"]
    charsmap = np.frombuffer(base64.b64decode(described["precompiled_charsmap"]), np.int8)  # as some files store it
    values = described | {"precompiled_charsmap": charsmap}
    return tokenizer_from_gguf({f"tokenizer.ggml.{key}": value for key, value in values.items()})


@pytest.mark.clause("TEXT-30")
@pytest.mark.parametrize("name", GOLDENS["models"])
def test_encodes_and_decodes_as_sentencepiece(name: str) -> None:
    tokenizer = golden_tokenizer(name)
    tidies = GOLDENS["models"][name]["metadata"]["remove_extra_whitespaces"]
    for text, case in zip(GOLDENS["texts"], GOLDENS["models"][name]["cases"], strict=True):
        assert tokenizer.encode(text, add_special_tokens=False) == case["ids"], repr(text)
        if not (tidies and text == STARTS_WITH_WRITTEN_SPACE):
            assert tokenizer.decode(case["ids"]) == case["decoded"].replace(UNKNOWN, ""), repr(text)


@pytest.mark.clause("TEXT-30")
def test_goldens_hold_what_matters() -> None:
    models = {name: model["metadata"] for name, model in GOLDENS["models"].items()}
    assert {metadata["model"] for metadata in models.values()} == {"llama", "t5"}
    for key in ("add_space_prefix", "remove_extra_whitespaces"):
        assert {metadata[key] for metadata in models.values()} == {True, False}
    assert any(TokenType.USER_DEFINED in metadata["token_type"] for metadata in models.values())
    assert any(TokenType.BYTE not in metadata["token_type"] for metadata in models.values())


CHARACTERS = "ab▁é海<0x41>"
SPECIAL = ["<unk>", "<s>", "</s>"]
BYTES = [f"<0x{byte:02X}>" for byte in range(256)]
TEXT = st.lists(st.sampled_from([*"aaabbb  é海<0x41>", "<0x41>", "c", "😀", "ab", "海é", "\n"]), max_size=24).map(
    "".join
)


@st.composite
def vocabularies(draw: st.DrawFn) -> list[str]:
    """Single characters and tokens put together from two others, in any order. "<0" is in none of them: it would lie
    across the cut that keeps text from becoming a byte."""
    characters = draw(st.lists(st.sampled_from(sorted(set(CHARACTERS))), min_size=1, unique=True))
    tokens = list(characters)
    for _ in range(draw(st.integers(0, 14))):
        token = draw(st.sampled_from(tokens)) + draw(st.sampled_from(tokens))
        if token not in tokens and len(token) < 9 and "<0" not in token:
            tokens.append(token)
    return tokens


def small_metadata(model: str, normal: list[str], scores: list[float], with_bytes: bool) -> dict[str, Any]:
    byte_tokens = BYTES if with_bytes else []
    return {
        "tokenizer.ggml.model": model,
        "tokenizer.ggml.tokens": [*SPECIAL, *byte_tokens, *normal],
        "tokenizer.ggml.scores": [0.0] * (3 + len(byte_tokens)) + scores,
        "tokenizer.ggml.token_type": [2, 3, 3] + [6] * len(byte_tokens) + [1] * len(normal),
    }


def prefixed(text: str) -> str:
    return "▁" + text.replace(" ", "▁") if text else ""


@pytest.mark.clause("TEXT-31")
@given(vocabularies(), st.randoms(use_true_random=False), st.booleans(), TEXT)
def test_neighbours_with_the_highest_score_merge_first(
    normal: list[str], generator: random.Random, with_bytes: bool, text: str
) -> None:
    scores = [-float(rank) for rank in range(len(normal))]
    generator.shuffle(scores)
    metadata = small_metadata("llama", normal, scores, with_bytes)
    expected = greedy_merges(
        prefixed(text), metadata["tokenizer.ggml.tokens"], dict(zip(normal, scores, strict=True)), with_bytes
    )
    assert tokenizer_from_gguf(metadata).encode(text, add_special_tokens=False) == expected


@pytest.mark.clause("TEXT-31")
def test_of_equal_scores_the_smaller_id_merges_first() -> None:
    metadata = small_metadata("llama", ["▁", "a", "b", "c", "bc", "ab"], [0.0] * 6, True)
    tokens = metadata["tokenizer.ggml.tokens"]
    ids = tokenizer_from_gguf(metadata).encode("abc", add_special_tokens=False)
    assert [tokens[token_id] for token_id in ids] == ["▁", "a", "bc"]


@pytest.mark.clause("TEXT-31")
def test_deriving_merges_is_quick() -> None:
    # About 0.1 s on a quiet machine; the bound only catches work that grows with the square of the vocabulary.
    generator = random.Random(5)
    tokens = list("abcdefghijklmnopqrstuvwxyz")
    known = set(tokens)
    while len(tokens) < 32_000:
        token = generator.choice(tokens) + generator.choice(tokens)
        if len(token) <= 12 and token not in known:
            tokens.append(token)
            known.add(token)
    started = time.perf_counter()
    merges = derive_merges(tokens, np.ones(len(tokens)), -np.arange(len(tokens), dtype=float))
    assert time.perf_counter() - started < 3
    assert len(merges) >= len(tokens) - 26


@pytest.mark.clause("TEXT-32")
@given(vocabularies(), st.data(), st.booleans(), TEXT)
def test_the_tokens_with_the_highest_sum_are_taken(
    normal: list[str], data: st.DataObject, with_bytes: bool, text: str
) -> None:
    # Quarters add up without rounding, so that equal sums are equal.
    quarters = data.draw(st.lists(st.integers(-80, -1), min_size=len(normal), max_size=len(normal)))
    scores = [quarter / 4 for quarter in quarters]
    metadata = small_metadata("t5", normal, scores, with_bytes)
    expected = unigram_ids(
        prefixed(text), metadata["tokenizer.ggml.tokens"], dict(zip(normal, scores, strict=True)), with_bytes
    )
    assert tokenizer_from_gguf(metadata).encode(text, add_special_tokens=False) == expected


def spelled(tokenizer: Tokenizer, text: str) -> list[str]:
    """The tokens of `text`, each as text."""
    ids = tokenizer.encode(text, add_special_tokens=False)
    return [tokenizer.token_bytes(token_id).decode() for token_id in ids]


@pytest.mark.clause("TEXT-33")
def test_spaces_as_the_metadata_says() -> None:
    def of(text: str, **changes: Any) -> list[str]:
        return spelled(tokenizer_from_gguf(sentencepiece_metadata(**changes)), text)

    assert of("a  b ") == [" ", "a", "  ", "b", " "]
    assert of("a  b ", add_space_prefix=False) == ["a", "  ", "b", " "]
    assert of("  a  b ", remove_extra_whitespaces=True) == [" ", "a", " ", "b"]
    assert of("  a  b ", remove_extra_whitespaces=True, add_space_prefix=False) == ["a", " ", "b"]
    assert of(" ", remove_extra_whitespaces=True) == of("") == []


@pytest.mark.clause("TEXT-33")
def test_a_space_follows_a_special_token() -> None:
    tokenizer = tokenizer_from_gguf(sentencepiece_metadata())
    assert spelled(tokenizer, "a</s>b<think>b") == [" ", "a", "</s>", " ", "b", "<think>", " ", "b"]
    bare = tokenizer_from_gguf(sentencepiece_metadata(add_space_prefix=False))
    assert spelled(bare, "a</s>b<think>b") == ["a", "</s>", "b", "<think>", "b"]


@pytest.mark.clause("TEXT-01")
@pytest.mark.clause("TEXT-34")
@pytest.mark.parametrize("model", ["llama", "t5"])
@pytest.mark.parametrize("space", [True, False])
@given(text=st.lists(st.one_of(st.sampled_from(["<0x41>", "<0x", "hello ", "  "]), st.text(max_size=4))).map("".join))
@example(text="<0x0A><0x41><0x4><0xE6>")
def test_text_comes_back_even_where_it_looks_like_bytes(model: str, space: bool, text: str) -> None:
    metadata = sentencepiece_metadata(model=model, add_space_prefix=space)
    # Written out, "<0x41>" is far worse than any byte token.
    tokenizer = tokenizer_from_gguf(with_tokens(metadata, list("<0x41AE6"), TokenType.NORMAL, -999.0))
    text = text.replace("▁", " ")  # which SentencePiece takes for a space
    assert tokenizer.decode(tokenizer.encode(text, add_special_tokens=False), skip_special_tokens=False) == text


@pytest.mark.clause("TEXT-35")
@pytest.mark.parametrize("model", ["llama", "t5"])
@pytest.mark.parametrize("spelling", ["▁▁▁", "   "])
def test_user_defined_tokens_are_matched_as_they_are_read(model: str, spelling: str) -> None:
    metadata = sentencepiece_metadata(model=model, add_space_prefix=False)
    tokenizer = tokenizer_from_gguf(with_tokens(metadata, [spelling], TokenType.USER_DEFINED, 0.0))
    ids = tokenizer.encode("a    b", add_special_tokens=False)
    assert ids[1] == tokenizer.vocab_size - 1
    assert tokenizer.decode(ids) == "a    b"


@pytest.mark.clause("TEXT-36")
def test_a_merge_to_an_unused_token_is_refused() -> None:
    metadata = sentencepiece_metadata()
    types = metadata["tokenizer.ggml.token_type"]
    types[metadata["tokenizer.ggml.tokens"].index("hello")] = TokenType.UNUSED
    with pytest.raises(Unsupported, match="'hello'"):
        tokenizer_from_gguf(metadata)


@pytest.mark.clause("TEXT-36")
def test_an_unused_token_that_no_merge_makes_is_no_harm() -> None:
    tokenizer = tokenizer_from_gguf(with_tokens(sentencepiece_metadata(), ["[PAD1]"], TokenType.UNUSED, -10000.0))
    assert len(tokenizer.encode("[PAD1]", add_special_tokens=False)) == 7
    assert tokenizer.decode([tokenizer.vocab_size - 1]) == "[PAD1]"


@pytest.mark.clause("TEXT-12")
@pytest.mark.parametrize(
    ("changes", "first", "last"),
    [
        ({}, [1], []),
        ({"add_bos_token": False}, [], []),
        ({"add_eos_token": True}, [1], [2]),
        ({"bos_token_id": None}, [1], []),
        ({"model": "t5"}, [], [2]),
        ({"model": "t5", "add_bos_token": True, "add_eos_token": False}, [1], []),
    ],
)
def test_what_goes_around_a_raw_prompt(changes: dict[str, Any], first: list[int], last: list[int]) -> None:
    tokenizer = tokenizer_from_gguf(sentencepiece_metadata(**changes))
    plain = tokenizer.encode("hello", add_special_tokens=False)
    assert tokenizer.encode("hello", add_special_tokens=True) == [*first, *plain, *last]


@pytest.mark.clause("TEXT-12")
@pytest.mark.parametrize("model", ["llama", "t5"])
def test_token_types(model: str) -> None:
    tokenizer = tokenizer_from_gguf(sentencepiece_metadata(model=model, unknown_token_id=None))
    assert tokenizer.special_ids == {0, 1, 2}
    think = tokenizer.token_id("<think>")
    assert think in tokenizer.encode("hello<think>", add_special_tokens=False)
    assert tokenizer.decode(tokenizer.encode("<think></s>", add_special_tokens=False)) == "<think>"


@pytest.mark.clause("TEXT-06")
@pytest.mark.parametrize(
    ("changes", "named"),
    [
        ({"tokens": None}, r"tokenizer\.ggml\.tokens"),
        ({"scores": None}, r"tokenizer\.ggml\.scores"),
        ({"token_type": None}, r"tokenizer\.ggml\.token_type"),
        ({"scores": [1.0, 2.0]}, "2 scores"),
        ({"scores": [float("nan")] * len(sentencepiece_metadata()["tokenizer.ggml.tokens"])}, "finite"),
        ({"token_type": [1, 1]}, "2 token types"),
        ({"precompiled_charsmap": [1, 2, 3]}, "precompiled_charsmap"),
        ({"tokens": ["a"] * len(sentencepiece_metadata()["tokenizer.ggml.tokens"])}, "twice"),
    ],
)
@pytest.mark.parametrize("model", ["llama", "t5"])
def test_contradictory_metadata_is_one_sentence(model: str, changes: dict[str, Any], named: str) -> None:
    with pytest.raises(TokenizerError, match=named) as caught:
        tokenizer_from_gguf(sentencepiece_metadata(model=model, **changes))
    assert "\n" not in str(caught.value)


@pytest.mark.clause("TEXT-06")
def test_a_unigram_model_needs_an_unknown_token() -> None:
    metadata = sentencepiece_metadata(model="t5", unknown_token_id=None)
    metadata["tokenizer.ggml.token_type"][0] = int(TokenType.CONTROL)
    with pytest.raises(TokenizerError, match="unknown token"):
        tokenizer_from_gguf(metadata)


@pytest.mark.clause("TEXT-30")
@given(st.text(alphabet=st.sampled_from(" ab▁ﾊﾞｶ①\u200b\x04\r\n é\u0301e日"), max_size=12), st.booleans(), st.booleans())
def test_text_in_one_piece_is_text_character_by_character(text: str, prefixed: bool, removes_spaces: bool) -> None:
    rules = base64.b64decode(GOLDENS["models"]["kept"]["metadata"]["precompiled_charsmap"])
    quick = SentencePieceText(rules, 3, prefixed=prefixed, removes_spaces=removes_spaces)
    slow = SentencePieceText(rules, 3, prefixed=prefixed, removes_spaces=removes_spaces)
    slow._changes_ascii = True  # and so nothing is taken in one piece
    assert quick.of(text) == slow.of(text)

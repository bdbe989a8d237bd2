"""TEXT-01 to TEXT-03 and TEXT-06 to TEXT-08: encoding and decoding."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
import tokenizers
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.errors import FerrumError, ModelWarning, NotFound, RequestValidation, TokenizerError
from ferrum.text.tokenizer import Tokenizer
from tests.text.small_tokenizers import SPECIAL, USER_DEFINED, byte_level, byte_level_json, sentencepiece

TEXTS = st.lists(st.one_of(st.text(max_size=8), st.sampled_from([*SPECIAL, *USER_DEFINED, " the", "日本"]))).map(
    "".join
)
IDS = st.lists(st.integers(0, byte_level().vocab_size - 1), max_size=30)


@pytest.mark.clause("TEXT-01")
@given(TEXTS)
@example("\x00\x7f\x85\xa0\xad\u2028\ufeff\U0010ffff")
@example("1 22  333   4444\n\n 5")
@example("e\u0301 é")  # not normalised
def test_decode_undoes_encode(text: str) -> None:
    ids = byte_level().encode(text, add_special_tokens=False)
    assert byte_level().decode(ids, skip_special_tokens=False) == text


@pytest.mark.clause("TEXT-01")
@pytest.mark.clause("TEXT-05")
@given(st.text(alphabet=st.one_of(st.sampled_from(" helot▁é<>0x"), st.characters(exclude_categories=["Cs"]))))
def test_decode_undoes_encode_with_sentencepiece(text: str) -> None:
    ids = sentencepiece().encode(text, add_special_tokens=False)
    assert sentencepiece().decode(ids, skip_special_tokens=False) == text.replace("▁", " ")  # the two are one token


@pytest.mark.clause("TEXT-02")
@given(TEXTS)
def test_special_tokens_are_left_out_of_decoded_text(text: str) -> None:
    ids = byte_level().encode(text, add_special_tokens=False)
    kept = [token_id for token_id in ids if token_id not in byte_level().special_ids]
    assert byte_level().decode(ids) == byte_level().decode(kept, skip_special_tokens=False)


@pytest.mark.clause("TEXT-02")
def test_special_tokens_in_a_text_become_their_ids() -> None:
    tokenizer = byte_level()
    ids = tokenizer.encode("<|im_start|>the<|im_end|><think>", add_special_tokens=False)
    think = tokenizer.token_id("<think>")
    assert (ids[0], ids[-2], ids[-1]) == (1, 2, think)
    assert tokenizer.special_ids == {0, 1, 2}
    assert tokenizer.decode(ids) == "the<think>"
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<|im_start|>the<|im_end|><think>"
    assert (tokenizer.bos_token, tokenizer.eos_token, tokenizer.eos_token_ids) == ("<|im_start|>", "<|im_end|>", (2, 0))
    assert tokenizer.token_id("no such token") is None


@pytest.mark.clause("TEXT-03")
@given(IDS)
def test_text_is_the_bytes_of_the_tokens(ids: list[int]) -> None:
    joined = b"".join(byte_level().token_bytes(token_id) for token_id in ids)
    assert byte_level().decode(ids, skip_special_tokens=False) == joined.decode("utf-8", errors="replace")


@pytest.mark.clause("TEXT-03")
@given(IDS)
def test_decoding_is_that_of_the_library_it_replaces(ids: list[int]) -> None:
    # The library reads the added token "é·à" in the byte alphabet; TEXT-04 says why ours does not.
    ids = [token_id for token_id in ids if token_id != byte_level().token_id(USER_DEFINED[1])]
    library = tokenizers.Tokenizer.from_str(byte_level_json())
    assert byte_level().decode(ids) == library.decode(ids, skip_special_tokens=True)
    assert byte_level().decode(ids, skip_special_tokens=False) == library.decode(ids, skip_special_tokens=False)


@pytest.mark.clause("TEXT-06")
@pytest.mark.parametrize(
    "content",
    [b"", b"not json", b"{}", b'{"model": {"type": "BPE"}}', b"\xff\xfe{}", byte_level_json().encode()[:-20]],
)
def test_a_malformed_file_is_one_sentence_with_its_name(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_bytes(content)
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_json(path)
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


@pytest.mark.clause("TEXT-06")
def test_other_unusable_sources(tmp_path: Path) -> None:
    with pytest.raises(NotFound, match=r"tokenizer\.json does not exist"):
        Tokenizer.from_json(tmp_path / "tokenizer.json")
    with pytest.raises(TokenizerError, match="the given text is not a valid"):
        Tokenizer.from_json('{"model": 1}')
    with pytest.raises(TokenizerError, match="cannot be read"):
        Tokenizer.from_json(tmp_path)
    with pytest.raises(TokenizerError, match="-1"):
        Tokenizer.from_json(byte_level_json(), eos_token_ids=(-1,))


@pytest.mark.clause("TEXT-51")
@pytest.mark.parametrize("token_id", [99999, 2**32 - 1, 2**32, 10**12])
def test_an_id_of_a_beginning_or_an_end_without_a_token_is_told_and_does_no_harm(token_id: int) -> None:
    with pytest.warns(ModelWarning, match=f"name token {token_id} as beginning of a text"):
        first = Tokenizer.from_json(byte_level_json(), bos_token_id=token_id)
    with pytest.warns(ModelWarning, match=f"name token {token_id} as end of a text"):
        last = Tokenizer.from_json(byte_level_json(), eos_token_ids=(token_id, 2))
    assert first.encode("the dog", add_special_tokens=True) == byte_level().encode("the dog", add_special_tokens=True)
    assert first.bos_token == ""
    assert last.eos_token_ids == (token_id, 2)  # a model may have rows without a token, and it ends where it says one


@pytest.mark.clause("TEXT-06")
def test_a_path_and_a_text_are_both_sources(tmp_path: Path) -> None:
    path = tmp_path / "tokenizer.json"
    path.write_text(byte_level_json(), encoding="utf-8")
    ids = byte_level().encode("the dog 😀", add_special_tokens=False)
    for source in (path, str(path), byte_level_json(), "\n " + byte_level_json()):
        assert Tokenizer.from_json(source).encode("the dog 😀", add_special_tokens=False) == ids


@pytest.mark.clause("TEXT-07")
def test_batch_settings_of_the_file_are_ignored() -> None:
    backend = tokenizers.Tokenizer.from_str(byte_level_json())
    backend.enable_truncation(max_length=2)
    backend.enable_padding(length=50)
    assert json.loads(backend.to_str())["truncation"] is not None
    text = "The quick brown fox jumps"
    found = Tokenizer.from_json(backend.to_str()).encode(text, add_special_tokens=False)
    assert found == byte_level().encode(text, add_special_tokens=False)


@pytest.mark.clause("TEXT-07")
def test_dropout_of_the_training_is_ignored() -> None:
    described = json.loads(byte_level_json())
    described["model"]["dropout"] = 0.9
    text = "The quick brown fox jumps"
    found = Tokenizer.from_json(json.dumps(described)).encode(text, add_special_tokens=False)
    assert found == byte_level().encode(text, add_special_tokens=False)


@pytest.mark.clause("TEXT-08")
def test_an_id_without_a_token_is_empty_text() -> None:
    beyond = byte_level().vocab_size
    assert byte_level().token_bytes(beyond) == b""
    ids = byte_level().encode("the dog", add_special_tokens=False)
    assert byte_level().decode([*ids[:1], beyond, *ids[1:], 10**9]) == "the dog"
    with pytest.raises(TokenizerError, match="-1"):
        byte_level().decode([-1])


@pytest.mark.clause("TEXT-08")
def test_text_that_is_not_unicode_is_the_callers_error() -> None:
    with pytest.raises(RequestValidation, match="surrogate") as caught:
        byte_level().encode("a\ud800b", add_special_tokens=False)
    assert isinstance(caught.value, FerrumError) and caught.value.is_client_error

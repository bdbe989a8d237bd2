"""TEXT-79: bytes as tokens."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import RequestValidation
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer


@pytest.mark.clause("TEXT-79")
@given(st.text(st.characters(exclude_categories=["Cs"])), st.booleans())
def test_tokens_are_the_bytes_of_the_text(text: str, special: bool) -> None:
    tokenizer = ByteTokenizer()
    tokens = tokenizer.encode(text, add_special_tokens=special)
    assert bytes(tokens) == text.encode()
    assert tokenizer.decode(tokens) == text


@pytest.mark.clause("TEXT-79")
def test_every_token_is_its_byte_and_the_last_is_the_end() -> None:
    tokenizer = ByteTokenizer()
    assert [tokenizer.token_bytes(token) for token in range(256)] == [bytes([byte]) for byte in range(256)]
    assert tokenizer.vocab_size == EOS + 1 and tokenizer.eos_token_ids == (EOS,) and EOS in tokenizer.special_ids


@pytest.mark.clause("TEXT-79")
def test_half_of_a_surrogate_pair_is_refused() -> None:
    with pytest.raises(RequestValidation):
        ByteTokenizer().encode("a\ud800", add_special_tokens=False)

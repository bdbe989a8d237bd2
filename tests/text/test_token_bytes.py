"""TEXT-04 and TEXT-05: which bytes a token stands for."""

from __future__ import annotations

import json

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import decoders, pre_tokenizers
from tokenizers import models as tokenizer_models

from ferrum.errors import Unsupported
from ferrum.text.token_bytes import BYTE_ALPHABET, TokenSpelling, spelling_of
from ferrum.text.tokenizer import Tokenizer
from tests.text.small_tokenizers import (
    SPECIAL,
    USER_DEFINED,
    byte_level,
    metaspace_backend,
    sentencepiece,
    sentencepiece_backend,
)

WORD_PIECES = [
    "the",
    "[CLS]",
    "##s",
    "##'",
    "##s##",
    "##a##s",
    "fox",
    ".",
    ",",
    "!",
    "?",
    "'",
    "n't",
    "'s",
    "do",
    "not",
    "do not",
    "a .",
]


@pytest.mark.clause("TEXT-04")
def test_the_alphabet_is_the_librarys() -> None:
    assert len(set(BYTE_ALPHABET)) == 256
    assert set(BYTE_ALPHABET) == set(pre_tokenizers.ByteLevel.alphabet())
    assert [BYTE_ALPHABET[byte] for byte in (0x20, 0x0A, 0x41, 0xA0, 0xAD, 0xFF)] == ["Ġ", "Ċ", "A", "ł", "Ń", "ÿ"]


@pytest.mark.clause("TEXT-04")
@given(st.binary(max_size=12))
def test_symbols_stand_for_their_bytes(data: bytes) -> None:
    assert TokenSpelling(byte_level=True).token_bytes("".join(BYTE_ALPHABET[byte] for byte in data)) == data


@pytest.mark.clause("TEXT-04")
@pytest.mark.parametrize("text", [*SPECIAL, *USER_DEFINED])
def test_added_tokens_stand_for_their_text(text: str) -> None:
    token_id = byte_level().token_id(text)
    assert token_id is not None and byte_level().token_bytes(token_id) == text.encode()


@pytest.mark.clause("TEXT-04")
@pytest.mark.parametrize("token", [" ", "a b", "日本", "\xa0", "\xad", "\x7f", "Ġ日", "\uffff"])
def test_an_entry_outside_the_alphabet_is_plain_text(token: str) -> None:
    assert TokenSpelling(byte_level=True).token_bytes(token) == token.encode()


@pytest.mark.clause("TEXT-05")
@pytest.mark.parametrize(
    ("token", "expected"),
    [("▁hello", b" hello"), ("▁▁", b"  "), ("<0xE6>", b"\xe6"), ("<0x0A>", b"\n"), ("é", b"\xc3\xa9"), ("<s>", b"<s>")],
)
def test_sentencepiece_tokens(token: str, expected: bytes) -> None:
    token_id = sentencepiece().token_id(token)
    assert token_id is not None and sentencepiece().token_bytes(token_id) == expected


@pytest.mark.clause("TEXT-05")
@pytest.mark.parametrize("token", ["<0x41>b", "a<0x41>", "<0x4>", "<0x411>", "<0x4G>", "<0x41>\n"])
def test_what_only_looks_like_a_byte_stands_for_its_text(token: str) -> None:
    assert TokenSpelling(byte_fallback=True, replaces_space=True).token_bytes(token) == token.encode()


@pytest.mark.clause("TEXT-05")
@given(st.text(alphabet=" helot日😀", max_size=20), st.booleans())
def test_sentencepiece_decodes_text_as_the_library_does(text: str, skip: bool) -> None:
    backend = sentencepiece_backend()
    ids = [1, *backend.encode(text).ids, 2]
    assert sentencepiece().decode(ids, skip_special_tokens=skip) == backend.decode(ids, skip_special_tokens=skip)


@pytest.mark.clause("TEXT-05")
def test_a_broken_byte_does_not_spoil_its_neighbours() -> None:
    # The library replaces a whole run of byte tokens if one of them is not UTF-8, so that a stream could not show any
    # of them before the run ends.
    ids = [3 + byte for byte in "你".encode() + b"\xff"]
    assert sentencepiece().decode(ids) == "你\ufffd"


@pytest.mark.clause("TEXT-05")
@pytest.mark.parametrize("text", ["hello hello", " hello", "  two", "", "t t"])
@pytest.mark.parametrize("scheme", ["always", "first", "never"])
def test_metaspace(text: str, scheme: str) -> None:
    tokenizer = Tokenizer(metaspace_backend(scheme))
    decoded = tokenizer.decode(tokenizer.encode(text, add_special_tokens=False))
    # Metaspace puts its space in front only where the text has none, and decoding cannot know that it did not.
    assert decoded == (text if scheme == "never" else text.removeprefix(" "))


@pytest.mark.clause("TEXT-05")
@pytest.mark.parametrize(
    "decoder",
    [
        decoders.WordPiece(cleanup=False),
        decoders.BPEDecoder(),
        decoders.CTC(),
        decoders.Metaspace(replacement="_"),
        decoders.Sequence([decoders.ByteLevel(), decoders.Fuse()]),
        decoders.Sequence([decoders.Strip(" ", 1, 0), decoders.Fuse()]),  # would strip every token
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 2, 0)]),
        decoders.Sequence([decoders.Fuse(), decoders.Strip(" ", 0, 1)]),
        decoders.Replace("_", " "),
        decoders.Replace(tokenizers.Regex("▁"), " "),
        None,
    ],
    ids=repr,
)
def test_any_other_decoder_is_refused(decoder: decoders.Decoder | None) -> None:
    backend = tokenizers.Tokenizer(tokenizer_models.BPE())
    if decoder is not None:
        backend.decoder = decoder
    with pytest.raises(Unsupported, match="decoder"):
        Tokenizer(backend)


@pytest.mark.clause("TEXT-77")
@given(st.lists(st.sampled_from(WORD_PIECES), max_size=12))
def test_word_pieces_decode_as_the_library_does(pieces: list[str]) -> None:
    backend = tokenizers.Tokenizer(tokenizer_models.WordPiece({word: i for i, word in enumerate(WORD_PIECES)}))
    backend.decoder = decoders.WordPiece()
    backend.add_special_tokens(["[CLS]"])
    # the library shows the sign where a text begins inside a word
    ids = [backend.token_to_id(piece) for piece in ("the", *pieces)]
    assert Tokenizer(backend).decode(ids) == backend.decode(ids)


@pytest.mark.clause("TEXT-05")
def test_spellings() -> None:
    def read(*steps: decoders.Decoder) -> TokenSpelling:
        return spelling_of(json.loads(decoders.Sequence(list(steps)).__getstate__()))

    space = decoders.Replace("▁", " ")
    assert read(decoders.ByteLevel()) == TokenSpelling(byte_level=True)
    assert read(decoders.Sequence([decoders.ByteLevel()])) == TokenSpelling(byte_level=True)
    assert read(space, decoders.ByteFallback(), decoders.Fuse()) == TokenSpelling(
        replaces_space=True, byte_fallback=True
    )
    assert read(space, decoders.Fuse(), decoders.Strip(" ", 1, 0)).strips_leading_space
    assert not read(space, decoders.Fuse(), decoders.Strip(" ", 0, 0)).strips_leading_space

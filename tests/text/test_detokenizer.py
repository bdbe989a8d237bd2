"""TEXT-13 and TEXT-14: text from a stream of tokens."""

from __future__ import annotations

from itertools import accumulate

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from ferrum.text.gguf_tokenizer import tokenizer_from_gguf
from ferrum.text.stream import IncrementalDetokenizer
from ferrum.text.token_bytes import BYTE_ALPHABET
from ferrum.text.tokenizer import Tokenizer
from tests.text.small_tokenizers import byte_level, metaspace_backend, sentencepiece, sentencepiece_metadata

TOKENIZERS = [
    byte_level(),
    sentencepiece(),
    Tokenizer(metaspace_backend("always")),
    tokenizer_from_gguf(sentencepiece_metadata()),
    tokenizer_from_gguf(sentencepiece_metadata(add_space_prefix=False)),
    tokenizer_from_gguf(sentencepiece_metadata(model="t5")),
]
BYTE_IDS = [byte_level().token_id(symbol) or 0 for symbol in BYTE_ALPHABET]
MULTIBYTE = "é日😀\u0301\U0010ffff"


def ids_of(tokenizer: Tokenizer) -> st.SearchStrategy[list[int]]:
    """Draws token ids, also ids beyond the vocabulary, and often the bytes of valid and broken characters."""
    anything = st.integers(0, tokenizer.vocab_size + 2)
    byte_id = BYTE_IDS.__getitem__ if tokenizer.spelling.byte_level else (lambda byte: byte + 3)
    continued = st.integers(0x80, 0xFF).map(byte_id)
    return st.lists(st.one_of(anything, continued), max_size=40)


CASES = st.sampled_from(TOKENIZERS).flatmap(lambda tokenizer: st.tuples(st.just(tokenizer), ids_of(tokenizer)))


def split_into_tokens(data: st.DataObject, text: bytes) -> list[int]:
    """Draws a sequence of tokens whose bytes are `text`, also others than the encoding of the text."""
    known: dict[bytes, int] = {}
    for token_id in range(byte_level().vocab_size):
        known.setdefault(byte_level().token_bytes(token_id), token_id)
    ids, position = [], 0
    while position < len(text):
        sizes = [size for size in range(1, 9) if text[position : position + size] in known]
        size = data.draw(st.sampled_from(sizes))
        ids.append(known[text[position : position + size]])
        position += size
    return ids


@pytest.mark.clause("TEXT-13")
@given(CASES, st.booleans())
@example((byte_level(), [BYTE_IDS[0xF0], BYTE_IDS[0x9F], 2, BYTE_IDS[0x98], BYTE_IDS[0x80]]), True)  # a token inside 😀
@example((byte_level(), [BYTE_IDS[0xF0], BYTE_IDS[0x9F]]), True)  # ends inside a character
@example((byte_level(), [BYTE_IDS[0xED], BYTE_IDS[0xA0], BYTE_IDS[0x80]]), True)  # a surrogate is not UTF-8
@example((sentencepiece(), [3 + 0x20, 3 + 0x20]), True)  # only the first space is encoding's own
@example((sentencepiece(), [1, 3 + 0xE6, 3 + 0x41]), False)
@example((sentencepiece(), [1, 3 + 0x20, 3 + 0x41]), True)  # what is skipped is no beginning
def test_a_stream_adds_up_to_the_text(case: tuple[Tokenizer, list[int]], skip: bool) -> None:
    tokenizer, ids = case
    stream = IncrementalDetokenizer(tokenizer, skip)
    shown = [*map(stream.push, ids), stream.finish()]
    assert "".join(shown) == tokenizer.decode(ids, skip_special_tokens=skip)


@pytest.mark.clause("TEXT-52")
@given(CASES, st.integers(0, 30), st.booleans())
@example((sentencepiece(), [1, 3 + 0x41, 3 + 0x20, 3 + 0x41]), 2, True)  # a continuation keeps its space
@example((sentencepiece(), [1, 3 + 0x20, 3 + 0x41]), 1, True)  # nothing that is shown stands before it
@example((sentencepiece(), [1, 3 + 0x20, 3 + 0x41]), 1, False)  # the special token is shown
@example((sentencepiece(), [3 + 0x20, 3 + 0x20, 3 + 0x41]), 1, True)
def test_an_answer_is_what_it_adds_to_its_prompt(case: tuple[Tokenizer, list[int]], cut: int, skip: bool) -> None:
    tokenizer, ids = case
    prompt, answer = ids[:cut], ids[cut:]
    assume(not begun(b"".join(tokenizer.token_bytes(token) for token in prompt)))  # it ends with a whole character
    stream = IncrementalDetokenizer(tokenizer, skip, prompt)
    shown = "".join([*map(stream.push, answer), stream.finish()])
    kept = [token for token in prompt if not (skip and token in tokenizer.special_ids)]
    assume(not begun(b"".join(tokenizer.token_bytes(token) for token in kept)))
    together, before = (tokenizer.decode(part, skip_special_tokens=skip) for part in (ids, prompt))
    assert together == before + shown


@pytest.mark.clause("TEXT-13")
@given(st.data(), st.text(alphabet=st.one_of(st.sampled_from(MULTIBYTE), st.characters(exclude_categories=["Cs"]))))
def test_any_split_of_a_text_streams_as_that_text(data: st.DataObject, text: str) -> None:
    stream = IncrementalDetokenizer(byte_level(), skip_special_tokens=False)
    shown = [stream.push(token_id) for token_id in split_into_tokens(data, text.encode())]
    assert "".join(shown) == text
    assert stream.finish() == ""


@pytest.mark.clause("TEXT-14")
@given(st.text(alphabet=MULTIBYTE + "a", max_size=12))
def test_a_character_is_shown_whole_and_at_once(text: str) -> None:
    stream = IncrementalDetokenizer(byte_level())
    for character in text:
        *first, last = character.encode()
        assert [stream.push(BYTE_IDS[byte]) for byte in first] == [""] * len(first)
        assert stream.push(BYTE_IDS[last]) == character


@pytest.mark.clause("TEXT-14")
@given(CASES)
def test_only_the_start_of_a_character_is_held_back(case: tuple[Tokenizer, list[int]]) -> None:
    tokenizer, ids = case
    stream = IncrementalDetokenizer(tokenizer, skip_special_tokens=False)
    shown = list(accumulate(map(stream.push, ids)))
    for count, text in enumerate(shown, start=1):
        data = b"".join(map(tokenizer.token_bytes, ids[:count]))
        complete = data[: len(data) - begun(data)].decode(errors="replace")
        assert text == (complete.removeprefix(" ") if tokenizer.spelling.strips_leading_space else complete)


def begun(data: bytes) -> int:
    """Bytes at the end of `data` that begin a character and do not complete it. Two bytes of a surrogate count,
    although UTF-8 forbids them: Python's decoder wants the third before it gives up."""
    if len(data) >= 2 and data[-2] == 0xED and 0xA0 <= data[-1] <= 0xBF:
        return 2
    for size in (3, 2, 1):
        try:
            data[len(data) - size :].decode() if len(data) >= size else ""
        except UnicodeDecodeError as error:
            if error.start == 0 and error.reason == "unexpected end of data":
                return size
    return 0

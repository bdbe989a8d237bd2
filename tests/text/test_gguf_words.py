"""Odd words of GGUF files: every key in every odd shape, known ends, merges, empty tokens, against llama.cpp."""

from __future__ import annotations

import json
import warnings
from functools import cache
from pathlib import Path
from typing import Any

import pytest

from ferrum.errors import FerrumError, ModelWarning
from ferrum.load.model import open_model
from ferrum.load.tokenizer_keys import GGUF_HARMLESS, GGUF_READ
from ferrum.text.gguf_tokenizer import tokenizer_from_gguf
from ferrum.text.tokenizer import Tokenizer
from tests.load.gguf_writer import gguf_bytes
from tests.text.gguf_changes import CONTROL, NORMAL, PREFIX, TEXTS, USER, Pairs, all_cases, gpt2, llama

GOLDENS = Path(__file__).parents[1] / "goldens" / "gguf_words.json"
CASES = all_cases()
KINDS = sorted({name.partition(" ")[0] for name in CASES})
OURS = {
    "key llama remove_extra_whitespaces: yes": "llama.cpp does not follow the key; sentencepiece does (TEXT-33)",
    "key gpt2 token_type: missing": "what is named as BOS is special whatever its type (TEXT-12)",
    "key gpt2 eos_token_id: missing": "llama.cpp takes token 11 for the end",
    "key gpt2 eos_token_id: none": "llama.cpp takes token 11 for the end",
    "key gpt2 eos_token_id: beyond": "llama.cpp takes token 11 for the end",
    "end gpt2 without any": "llama.cpp takes token 11 for the end",
}
"""Cases in which ferrum differs from llama.cpp on purpose, with the reason."""


KEYS = GOLDENS.with_name("config_keys.json")


@cache
def goldens() -> dict[str, Any]:
    found: dict[str, Any] = json.loads(GOLDENS.read_text())["cases"]
    return found


def read(place: Path, pairs: Pairs) -> Tokenizer:
    place.write_bytes(gguf_bytes(pairs))
    files = open_model(place)
    return files.vocabulary.tokenizer(files.token_ids)


@pytest.mark.clause("TEXT-12")
@pytest.mark.clause("TEXT-53")
@pytest.mark.clause("TEXT-54")
@pytest.mark.clause("TEXT-55")
@pytest.mark.parametrize("kind", KINDS)
def test_odd_words_are_what_llama_cpp_makes_of_them_or_one_line(tmp_path: Path, kind: str) -> None:
    compared = 0
    for name, pairs in CASES.items():
        expected = goldens()[name]
        if not name.startswith(f"{kind} ") or name in OURS:
            continue
        try:
            tokenizer = read(tmp_path / f"{compared}.gguf", pairs)
        except FerrumError as error:
            assert "\n" not in str(error), name
            continue
        if expected is None:  # a number of another width, say, which does no harm
            continue
        compared += 1
        assert [tokenizer.encode(text, add_special_tokens=False) for text in TEXTS] == expected["bare"], name
        assert tokenizer.encode("hello", add_special_tokens=True) == expected["around"], name
        assert sorted(tokenizer.eos_token_ids) == expected["ends"], name
    assert compared or kind == "length"  # which is an error in all cases


@pytest.mark.clause("TEXT-53")
@pytest.mark.parametrize("kind", [gpt2, llama])
@pytest.mark.parametrize("number", [CONTROL, NORMAL, USER])
def test_a_known_end_is_special_whatever_its_type(kind: Any, number: int) -> None:
    tokenizer = tokenizer_from_gguf(dict(kind({"<|eot_id|>": number, "<|channel|>": number})))
    end, channel = tokenizer.token_id("<|eot_id|>"), tokenizer.token_id("<|channel|>")
    assert tokenizer.encode("<|eot_id|><|channel|>", add_special_tokens=False)[-2:] == [end, channel]
    assert end in tokenizer.special_ids and end in tokenizer.eos_token_ids
    assert channel not in tokenizer.special_ids and tokenizer.decode([end or 0, channel or 0]) == "<|channel|>"


@pytest.mark.clause("TEXT-51")
@pytest.mark.parametrize(
    "key", ["bos_token_id", "eos_token_id", "eot_token_id", "unknown_token_id", "fim_pad_token_id"]
)
@pytest.mark.parametrize("kind", [gpt2, llama])
def test_an_id_beyond_the_vocabulary_is_told_once_and_texts_are_encoded(tmp_path: Path, kind: Any, key: str) -> None:
    if (kind, key) == (gpt2, "unknown_token_id"):
        return  # which byte-level vocabularies do not need
    usual = read(tmp_path / "usual.gguf", kind())
    with warnings.catch_warnings(record=True) as told:
        warnings.simplefilter("default")
        tokenizer = read(tmp_path / "odd.gguf", kind(**{key: 70000}))
    assert [str(one.message).partition(": ")[2] for one in told] == [
        f"{PREFIX}{key} names token 70000, which the model does not have"
    ]
    assert tokenizer.encode("hello", add_special_tokens=False) == usual.encode("hello", add_special_tokens=False)
    with warnings.catch_warnings():
        warnings.simplefilter("error")  # this is how files write "none"
        read(tmp_path / "none.gguf", kind(**{key: 0xFFFFFFFF}))


@pytest.mark.clause("TEXT-51")
def test_a_beginning_that_is_asked_for_and_not_named_is_told() -> None:
    with pytest.warns(ModelWarning, match="sets tokenizer.ggml.add_bos_token and names no such token"):
        tokenizer = tokenizer_from_gguf(dict(gpt2(bos_token_id=None, add_bos_token=True)))
    assert tokenizer.encode("hello", add_special_tokens=True) == tokenizer.encode("hello", add_special_tokens=False)


@pytest.mark.clause("TEXT-54")
@pytest.mark.parametrize(
    ("more", "shown"),
    [
        (["x y"], "'x y'"),
        (["zz qq", "x y"], "2 of 7"),
        (["hello"], "'hello'"),
        (["h e l"], "'h e l'"),
    ],
)
def test_merges_that_make_no_token_are_told(more: list[str], shown: str) -> None:
    usual = dict(gpt2())[PREFIX + "merges"]
    with pytest.warns(ModelWarning, match=f"merges are ignored.*{shown}|{shown} merges are ignored"):
        tokenizer = tokenizer_from_gguf(dict(gpt2(merges=[*usual, *more])))
    assert len(tokenizer.encode("hello", add_special_tokens=False)) == 1


@pytest.mark.clause("LOAD-58")
def test_every_key_of_a_gguf_tokenizer_is_read_or_known_to_be_harmless() -> None:
    keys = {key for key in json.loads(KEYS.read_text())["gguf"] if key.startswith("tokenizer.")}
    known = {PREFIX + key for key in GGUF_READ | GGUF_HARMLESS}
    others = {"tokenizer.chat_template", "tokenizer.chat_template.{name}", "tokenizer.chat_templates"}
    assert keys - known == others | {"tokenizer.huggingface.json", "tokenizer.rwkv.world"}
    assert not GGUF_READ & GGUF_HARMLESS


@pytest.mark.clause("LOAD-58")
def test_tokens_that_are_to_be_suppressed_are_told(tmp_path: Path) -> None:
    with pytest.warns(ModelWarning, match="suppress_tokens is not followed"):
        read(tmp_path / "model.gguf", gpt2(suppress_tokens=[3, 4]))


@pytest.mark.clause("LOAD-58")
@pytest.mark.parametrize("key", ["ggml.eos_token_ids", "ggml.mystery", "mystery"])
def test_a_key_of_words_that_nothing_is_known_of_is_told(tmp_path: Path, key: str) -> None:
    with pytest.warns(ModelWarning, match=f"ignored: 'tokenizer.{key}'"):
        read(tmp_path / "model.gguf", [*gpt2(), (f"tokenizer.{key}", 5)])


@pytest.mark.clause("LOAD-52")
def test_a_template_has_the_beginning_and_the_end_that_the_tokenizer_has(tmp_path: Path) -> None:
    source = "{{ bos_token }}[{{ messages[0].content }}]{{ eos_token }}"
    named = llama()
    silent = llama(bos_token_id=None, eos_token_id=None)
    for pairs, expected in ((named, "<s>[hi]</s>"), (silent, "<s>[hi]</s>"), (gpt2(bos_token_id=None), "[hi]</s>")):
        place = tmp_path / "model.gguf"
        place.write_bytes(gguf_bytes([*pairs, ("tokenizer.chat_template", source)]))
        template = open_model(place).vocabulary.chat_template()
        assert template is not None and template.render([{"role": "user", "content": "hi"}]) == expected

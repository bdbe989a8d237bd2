"""TEXT-40 to TEXT-47: hostile tokenizers, and hostile texts."""

from __future__ import annotations

import base64
import json
import os
import subprocess
import sys
import threading
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import tokenizers
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import normalizers

from ferrum.errors import FerrumError, NotFound, RequestValidation, TokenizerError
from ferrum.text import tokenizer_json
from ferrum.text.character_rules import growth_of_rules
from ferrum.text.native import ask
from ferrum.text.tokenizer import Tokenizer
from ferrum.text.tokenizer_steps import LARGEST_TEXT, growth_of
from tests.text.hostile_steps import changed, replace, rules, sequence, split
from tests.text.small_tokenizers import byte_level, byte_level_json, metaspace_backend, sentencepiece
from tests.text.test_gguf_sentencepiece import GOLDENS

ROOT = Path(__file__).resolve().parents[2]
TEXTS = ["hello world", "", "a" * 30 + "c", "é海😀<|im_start|>", " " * 300 + "x"]
RULES = base64.b64decode(GOLDENS["models"]["t5"]["metadata"]["precompiled_charsmap"])


def around(*pieces: dict[str, Any], ids: list[int]) -> dict[str, Any]:
    special = {"<s>": {"id": "<s>", "ids": ids, "tokens": ["<s>"] * len(ids)}}
    return {"type": "TemplateProcessing", "single": list(pieces), "pair": [], "special_tokens": special}


def bert(sep: int, cls: int) -> dict[str, Any]:
    return {"type": "BertProcessing", "sep": ["a", sep], "cls": ["b", cls]}


TEXT_A = {"Sequence": {"id": "A", "type_id": 0}}
START = {"SpecialToken": {"id": "<s>", "type_id": 0}}
OTHER = {"SpecialToken": {"id": "other", "type_id": 0}}
ADDED = {"id": 0, "content": "x", "single_word": False, "lstrip": False, "rstrip": False, "normalized": True}

PREPEND = {"type": "Prepend", "prepend": "xx"}
WORDPIECE = {"type": "WordPiece", "unk_token": "a", "continuing_subword_prefix": "##", "vocab": {"a": 0}}

REFUSED: dict[str, dict[str, Any]] = {
    "rules of three bytes": {"normalizer": rules(b"\0\0\0")},
    "rules without a trie": {"normalizer": rules(b"\0\0\0\0abc\0")},
    "rules in a sequence": {"normalizer": sequence({"type": "NFC"}, sequence(rules(b"\3\0\0\0\1\2\3")))},
    "rules larger than they are": {"normalizer": rules(b"\0\0\0\xf0" + bytes(100))},
    "rules that are no base64": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": "!!"}},
    "rules that are no text": {"normalizer": {"type": "Precompiled", "precompiled_charsmap": [1]}},
    "a prefix of subwords": {"model": {"continuing_subword_prefix": "aaaaaa"}},
    "a prefix that cuts characters": {"model": {"continuing_subword_prefix": "\0"}},
    "a long suffix": {"model": {"end_of_word_suffix": "x" * 1000}},
    "nothing replaced": {"normalizer": replace("", "x")},
    "a token that is not defined": {"post_processor": around(OTHER, TEXT_A, ids=[1])},
    "a token beyond the vocabulary": {"post_processor": around(START, TEXT_A, ids=[10**6])},
    "a separator beyond the vocabulary": {
        "post_processor": {"type": "BertProcessing", "sep": ["a", 1], "cls": ["b", 10**6]}
    },
    "too much around a text": {"post_processor": around(START, TEXT_A, ids=[1] * 5000)},
    "too many copies": {"post_processor": around(*[TEXT_A] * 5000, ids=[1])},
    "a text that is not there": {"post_processor": around(START, ids=[1])},
    "another text": {"post_processor": around(TEXT_A, {"Sequence": {"id": "B", "type_id": 0}}, ids=[1])},
    "tokens around twice": {"post_processor": {"type": "Sequence", "processors": [bert(1, 2), around(TEXT_A, ids=[])]}},
    "pieces of no length": {"pre_tokenizer": {"type": "FixedLength", "length": 0}},
    "nested growth": {"normalizer": sequence(*[replace("a", "aaaaaaaaaa")] * 5)},
    "growth in nested sequences": {"normalizer": sequence(*[sequence(replace("a", "a" * 70))] * 2)},
    "growth by an expression": {"normalizer": replace("a?", "x" * 5000, "Regex")},
    "growth of a text in front": {
        "normalizer": sequence({"type": "Prepend", "prepend": "xx"}, replace("x", "x" * 3000))
    },
    "growth by a long text in front": {"normalizer": {"type": "Prepend", "prepend": "x" * 5000}},
    "too many steps": {"normalizer": sequence(*[{"type": "NFC"}] * 100)},
    "an added token that vanishes": {"normalizer": replace("x", ""), "added_tokens": [ADDED | {"special": False}]},
    "added tokens that grow": {
        "normalizer": replace("x", "x" * 4000),
        "added_tokens": [ADDED | {"content": "x" * 2000, "special": False}],
    },
    "a step without a type": {"normalizer": {"prepend": "x"}},
    "a step that is a list": {"normalizer": ["x"]},
    "a step of an unknown type": {"normalizer": {"type": "Nonsense"}},
    "words without end": {"added_tokens": [], "model": WORDPIECE | {"max_input_chars_per_word": 10**9}},
    "long tokens of every length": {
        "added_tokens": [],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["a" * length, -1.0] for length in range(1, 200)]},
    },
    "a long token of escapes": {
        "added_tokens": [],
        "model": {"type": "Unigram", "unk_id": 0, "vocab": [["a", -1.0], ['"' * 5000, -1.0]]},
    },
    "nested groups": {"pre_tokenizer": split("(a+)+$")},
    "equal alternatives": {"pre_tokenizer": split("(a|a)*$")},
    "an expression that replaces": {"normalizer": replace("([a-z]+)*$", "", "Regex")},
}


@pytest.mark.clause("TEXT-40")
@pytest.mark.clause("TEXT-41")
@pytest.mark.clause("TEXT-43")
@pytest.mark.clause("TEXT-44")
@pytest.mark.parametrize("parts", REFUSED.values(), ids=REFUSED)
def test_what_does_harm_is_refused_when_it_is_read(parts: dict[str, Any], capfd: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(TokenizerError) as caught:
        Tokenizer.from_json(changed(**parts))
    assert "\n" not in str(caught.value)
    assert capfd.readouterr().err == ""  # where the library fails, it says so there


@pytest.mark.clause("TEXT-40")
@pytest.mark.parametrize("key", ["\\u006eormalizer", "normalizer"])
def test_a_step_behind_the_model_is_found(key: str) -> None:
    hostile = json.dumps(rules(b"\3\0\0\0\1\2\3"))
    with pytest.raises(TokenizerError, match=r"precompiled_charsmap is malformed|twice"):
        Tokenizer.from_json(byte_level_json().rstrip().removesuffix("}") + f', "{key}": {hostile}}}')
    described = json.loads(byte_level_json())
    del described["normalizer"]
    with pytest.raises(TokenizerError, match="precompiled_charsmap is malformed"):
        Tokenizer.from_json(json.dumps(described).removesuffix("}") + f', "{key}": {hostile}}}')
    hidden = byte_level_json().replace('"normalizer"', '"normaliz\\u0065r"', 1).replace("null", "null", 1)
    assert Tokenizer.from_json(hidden).encode("a", add_special_tokens=False)


FAILING: list[dict[str, Any]] = [
    {"model": {"unk_token": "not there"}},
    {"model": {"unk_token": "not there", "vocab": {"a": 0}, "merges": []}},
    {"model": {"type": "WordPiece", "unk_token": "[UNK]", "max_input_chars_per_word": 100, "vocab": {"a": 0}}},
    {"model": {"type": "WordLevel", "unk_token": "[UNK]", "vocab": {"a": 0}}},
    {"model": {"type": "Unigram", "unk_id": None, "vocab": [["a", -1.0]]}},
    {"normalizer": replace("", "x", "Regex")},
    {"normalizer": replace("$", "x", "Regex")},
    {"pre_tokenizer": {"type": "UnicodeScripts"}},
]


@pytest.mark.clause("TEXT-40")
@pytest.mark.parametrize("parts", FAILING, ids=range(len(FAILING)))
def test_whatever_fails_is_an_error_of_ours(parts: dict[str, Any]) -> None:
    if "type" in parts.get("model", {}):
        parts = parts | {"added_tokens": []}
    try:
        tokenizer = Tokenizer.from_json(changed(**parts))
    except FerrumError:
        return
    for text in TEXTS:
        try:
            tokenizer.encode(text, add_special_tokens=True)
        except FerrumError as error:
            assert "\n" not in str(error)


class PanicException(BaseException):
    """An error with the name of the one that pyo3 raises for a panic."""


@pytest.mark.clause("TEXT-40")
def test_panics_and_exceptions_are_turned_and_interrupts_pass() -> None:
    def fail(error: BaseException) -> Callable[[], None]:
        def function() -> None:
            raise error

        return function

    for error in (PanicException("a\nb \x1b"), ValueError("a b"), TypeError(), Exception("x" * 5000)):
        with pytest.raises(TokenizerError) as caught:
            ask(TokenizerError, fail(error))
        assert str(caught.value).isprintable() and 0 < len(str(caught.value)) < 300
    for passing in (KeyboardInterrupt(), SystemExit(), RequestValidation("x")):
        with pytest.raises(type(passing)):
            ask(TokenizerError, fail(passing))
    with pytest.raises(TokenizerError, match="cannot encode this text"):
        Tokenizer.from_json(changed(normalizer=replace("", "x", "Regex"))).encode("a", add_special_tokens=False)


@pytest.mark.clause("TEXT-40")
def test_ids_and_tokens_that_cannot_be() -> None:
    assert byte_level().token_bytes(10**12) == b""
    assert byte_level().token_id("\ud800") is None
    for text in ("\ud800", "a" * 20_000 + "\udfff"):
        with pytest.raises(RequestValidation, match="surrogate"):
            byte_level().encode(text, add_special_tokens=False)
    with pytest.raises(RequestValidation, match="must be a str"):
        byte_level().encode(b"a", add_special_tokens=False)  # type: ignore[arg-type]


@pytest.mark.clause("TEXT-41")
def test_rules_that_are_whole_are_taken() -> None:
    assert growth_of_rules(RULES, "the rules") == 3
    tokenizer = Tokenizer.from_json(changed(normalizer=rules(RULES)))
    assert tokenizer.decode(tokenizer.encode("hello", add_special_tokens=False)) == "hello"


@pytest.mark.clause("TEXT-41")
@given(st.lists(st.tuples(st.integers(0, len(RULES) - 1), st.integers(0, 255)), max_size=8), st.integers(8, len(RULES)))
def test_rules_that_are_taken_never_fail(changes: list[tuple[int, int]], length: int) -> None:
    content = bytearray(RULES)
    for position, value in changes:
        content[position] = value
    try:
        growth = growth_of_rules(bytes(content[:length]), "the rules")
    except TokenizerError:
        return
    normalizer = ask(TokenizerError, normalizers.Precompiled, bytes(content[:length]))
    for character in map(chr, [*range(1, 0x3000, 7), *range(0xA000, 0xD000, 97), 0x1F600]):
        assert len(ask(AssertionError, normalizer.normalize_str, character)) <= growth  # type: ignore[arg-type]


UP_AND_DOWN = sequence(replace("a", "aaaa"), replace("a", ""))  # large only on the way


@pytest.mark.clause("TEXT-42")
def test_only_added_tokens_begin_stretches_of_their_own() -> None:
    step = {"type": "Prepend", "prepend": "▁▁"}
    assert [growth_of(step, None, shortest).around for shortest in (None, 1, 3)] == [1.0, 2.0, 1.5]


@pytest.mark.clause("TEXT-42")
def test_a_text_is_refused_before_it_takes_memory(monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(RequestValidation, match=f"takes {LARGEST_TEXT} characters at most"):
        byte_level().encode("a" * (LARGEST_TEXT + 1), add_special_tokens=False)
    monkeypatch.setattr("ferrum.text.tokenizer_steps.LARGEST_TEXT", 1000)
    refused: list[tuple[Tokenizer, str, str]] = [
        (byte_level(), "a" * 1000, "a" * 1001),
        (byte_level(), "海" * 333, "海" * 334),  # as many as it has bytes
        (sentencepiece(), "a" * 750, "a" * 1000),  # where each stretch between tokens has a space in front
        (Tokenizer.from_json(changed(normalizer=replace("a", "aaaa"))), "b" * 990 + "a", "b" * 990 + "aaa"),
        (Tokenizer.from_json(changed(normalizer=UP_AND_DOWN)), "b" * 900 + "a" * 20, "b" * 900 + "a" * 30),
        (Tokenizer.from_json(changed(normalizer={"type": "NFKC"})), "b" * 900, "b" * 900 + "ﷺ" * 10),
        (Tokenizer.from_json(changed(normalizer=rules(RULES))), "b" * 1000, "b" * 1001),
    ]
    for tokenizer, most, more in refused:
        tokenizer.encode(most, add_special_tokens=True)
        with pytest.raises(RequestValidation, match="too long for the model's tokenizer"):
            tokenizer.encode(more, add_special_tokens=True)


@pytest.mark.clause("TEXT-42")
@pytest.mark.parametrize("make", [byte_level, sentencepiece, lambda: Tokenizer(metaspace_backend("always"))])
def test_a_long_text_is_encoded_as_a_short_one(make: Callable[[], Tokenizer]) -> None:
    piece = "hello the lazy dog 123 é\n"
    ids = make().encode(piece * 1000, add_special_tokens=False)
    assert make().decode(ids) == piece * 1000
    assert make().encode(piece * 10, add_special_tokens=False)[:50] == ids[:50]


@pytest.mark.clause("TEXT-46")
def test_other_threads_run_while_a_long_text_is_encoded() -> None:
    gaps, done = [0.0], threading.Event()

    def look() -> None:
        before = time.perf_counter()
        while not done.wait(0.001):
            now = time.perf_counter()
            gaps.append(now - before)
            before = now

    watcher = threading.Thread(target=look)
    watcher.start()
    started = time.perf_counter()
    byte_level().encode("the lazy dog 12 " * 40_000, add_special_tokens=False)
    taken = time.perf_counter() - started
    done.set()
    watcher.join()
    assert max(gaps) < max(0.1, taken / 2)


@pytest.mark.clause("TEXT-47")
def test_only_regular_files_of_a_plausible_size_are_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "device").symlink_to("/dev/zero")
    (tmp_path / "large").write_text(byte_level_json())
    for name, reason in [("pipe", "not a regular file"), ("device", "not a regular file"), ("large", "larger than")]:
        monkeypatch.setattr(tokenizer_json, "LARGEST", 100)
        with pytest.raises(TokenizerError, match=reason):
            Tokenizer.from_json(tmp_path / name)
    with pytest.raises(NotFound):
        Tokenizer.from_json(tmp_path / "missing")


@pytest.mark.clause("TEXT-42")
def test_growth_without_end_takes_no_memory() -> None:
    """Runs in another process with a small limit of memory."""
    program = f"""
import resource
from ferrum.errors import FerrumError
from ferrum.text.tokenizer import Tokenizer
resource.setrlimit(resource.RLIMIT_AS, (3 << 30, 3 << 30))
for source in {[changed(normalizer=replace("a", "a" * 4000)), changed(**REFUSED["rules larger than they are"])]!r}:
    try:
        Tokenizer.from_json(source).encode("a" * 100_000, add_special_tokens=False)
    except FerrumError as error:
        print(type(error).__name__)
"""
    ran = subprocess.run([sys.executable, "-c", program], capture_output=True, text=True, cwd=ROOT, timeout=120)
    assert (ran.returncode, ran.stdout.split(), ran.stderr) == (0, ["RequestValidation", "TokenizerError"], "")


@pytest.mark.clause("TEXT-43")
def test_long_texts_that_are_no_tokens_are_not_taken_for_tokens() -> None:
    """The character rules of published models have hundreds of thousands of characters."""
    vocabulary = [("<unk>", 0.0), ("a", -1.0), ("\u2581a", -1.5)]
    backend = tokenizers.Tokenizer(tokenizers.models.Unigram(vocabulary, 0, False))
    backend.decoder = tokenizers.decoders.Metaspace()
    plain = backend.to_str()
    rules = {"type": "Precompiled", "precompiled_charsmap": base64.b64encode(RULES + bytes(300_000)).decode()}
    described = json.loads(plain) | {"normalizer": rules}
    for text in (json.dumps(described), json.dumps(described, indent=1)):
        found = Tokenizer.from_json(text).encode("aa", add_special_tokens=False)
        assert found == Tokenizer.from_json(plain).encode("aa", add_special_tokens=False)

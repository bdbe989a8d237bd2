"""TEXT-10, TEXT-11, TEXT-37: where each family cuts text, by llama.cpp's answers (see tests/goldens)."""

from __future__ import annotations

import json

import pytest

from ferrum.errors import ModelWarning, Unsupported
from ferrum.text.gguf_tokenizer import build_pre_tokenizer, tokenizer_from_gguf
from ferrum.text.pre_tokenizers import PRE_TOKENIZERS
from tests.house.source import ROOT

GOLDEN = json.loads((ROOT / "tests/goldens/pre_tokenizers.json").read_text(encoding="utf-8"))
FAMILIES = {name: family["ids"] for family in GOLDEN["families"] for name in family["names"]}
BESIDE = {"tiny_aya", "cohere2moe"}  # llama.cpp cuts digits beside letters otherwise than the published expression


@pytest.mark.clause("TEXT-11")
@pytest.mark.parametrize("name", sorted(PRE_TOKENIZERS.keys() - BESIDE))
def test_a_family_cuts_as_llama_cpp_does(name: str) -> None:
    assert encoded({"pre": name}) == FAMILIES[name]


def encoded(more: dict[str, str]) -> list[list[int]]:
    """The texts of the golden, by its vocabulary."""
    vocabulary = {"tokens": GOLDEN["tokens"], "merges": GOLDEN["merges"], "token_type": [1] * len(GOLDEN["tokens"])}
    metadata = {f"tokenizer.ggml.{key}": value for key, value in {"model": "gpt2", **vocabulary, **more}.items()}
    tokenizer = tokenizer_from_gguf(metadata)
    return [tokenizer.encode(text, add_special_tokens=False) for text in GOLDEN["texts"]]


@pytest.mark.clause("TEXT-10")
def test_a_file_that_names_none_is_read_as_llama_cpp_reads_it_with_a_warning() -> None:
    for unnamed in ({}, {"pre": ""}):
        with pytest.warns(ModelWarning, match="tokenizer.ggml.pre"):
            assert encoded(unnamed) == FAMILIES["default"]
    for name in ("no-such-family", "Llama-bpe", "\x1b[2J"):
        with pytest.raises(Unsupported, match="pre-tokenizer"):
            encoded({"pre": name})


@pytest.mark.clause("TEXT-11")
@pytest.mark.parametrize(
    ("name", "text", "expected"),
    [
        ("tiny_aya", "ab 1234567 x", "ab| |1|234|567| x"),
        ("tiny_aya", "12ab 123456789", "12|ab| |123|456|789"),  # no boundary behind 12: not from the right
        ("afmoe", "1234567 12 123", "1|234|567| |12| |123"),
        ("superbpe", "12345678", "12|345|678"),
        ("exaone-moe", "the red fox 12", "the red fox| |1|2"),
        ("kimi-k2", "ab漢字cd", "ab|漢字|cd"),
        ("viking", "a,b 12", "a|,|b| |1|2"),
    ],
)
def test_cuts_that_make_a_family(name: str, text: str, expected: str) -> None:
    cuts = build_pre_tokenizer(PRE_TOKENIZERS[name]).pre_tokenize_str(text)
    assert "|".join(text[start:end] for _, (start, end) in cuts) == expected


@pytest.mark.clause("TEXT-37")
@pytest.mark.parametrize(
    ("name", "takes"), [("Phi3", True), ("microsoft Phi-3-mini", True), ("Phi 2", False), (7, False)]
)
def test_special_tokens_of_one_family_take_the_white_space_behind_them(name: object, takes: bool) -> None:
    tokens = [*"▁abc", "\n", "<unk>", "<s>", "</s>", "<|end|>", "<tool>"]
    metadata = {
        "general.name": name,
        "tokenizer.ggml.model": "llama",
        "tokenizer.ggml.tokens": tokens,
        "tokenizer.ggml.scores": [0.0] * len(tokens),
        "tokenizer.ggml.token_type": [1, 1, 1, 1, 1, 2, 3, 3, 3, 4],
        "tokenizer.ggml.add_space_prefix": False,
    }

    def encoded(text: str) -> list[str]:
        return [tokens[one] for one in tokenizer_from_gguf(metadata).encode(text, add_special_tokens=False)]

    for marker in ("</s>", "<|end|>", "<tool>"):
        assert encoded(f"a {marker} \n b") == ["a", "▁", marker, *([] if takes else ["▁", "\n", "▁"]), "b"]
    assert encoded("<s> a<unk>\n") == ["<s>", "▁", "a", "<unk>", "\n"]

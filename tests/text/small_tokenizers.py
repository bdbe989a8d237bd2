"""Small tokenizers for the tests of this room: byte-level and SentencePiece, made on the spot."""

from __future__ import annotations

import json
from functools import cache
from typing import Any

import tokenizers
from tokenizers import decoders, models, normalizers, pre_tokenizers, trainers

from ferrum.text.gguf_tokenizer import build_pre_tokenizer
from ferrum.text.gguf_tokens import TokenType
from ferrum.text.pre_tokenizers import PRE_TOKENIZERS
from ferrum.text.token_bytes import BYTE_ALPHABET
from ferrum.text.tokenizer import Tokenizer

CORPUS = [
    "The quick brown fox jumps over the lazy dog, and the dog does not mind it at all.",
    "    return x + 1  # 2024, 12345\n\n\tfor i in range(10):\n",
    "Zażółć gęślą jaźń. Übergrößenträger. Ελληνικά. Русский язык.",
    "日本語のテキスト、日本語。中文文本。한국어 문장입니다.",
    "😀 😀 👍🏽 👩‍👩‍👧‍👦 naïve café — “quotes” …",
]
SPECIAL = ["<|endoftext|>", "<|im_start|>", "<|im_end|>"]
USER_DEFINED = ["<think>", "é·à", "  \n"]  # one of plain ASCII, one of byte symbols only, one with spaces


@cache
def byte_level_json() -> str:
    """A trained byte-level BPE as tokenizer.json: all 256 bytes, some hundred merges, special and added tokens."""
    backend = tokenizers.Tokenizer(models.BPE())
    backend.pre_tokenizer = build_pre_tokenizer(PRE_TOKENIZERS["smollm"])
    backend.decoder = decoders.ByteLevel()
    backend.train_from_iterator(
        CORPUS * 4,
        trainers.BpeTrainer(
            vocab_size=600, special_tokens=SPECIAL, initial_alphabet=list(BYTE_ALPHABET), show_progress=False
        ),
    )
    backend.add_tokens([tokenizers.AddedToken(text, normalized=False) for text in USER_DEFINED])
    return backend.to_str()


@cache
def byte_level() -> Tokenizer:
    return Tokenizer.from_json(byte_level_json(), bos_token_id=1, eos_token_ids=(2, 0))


def gguf_metadata(**changes: Any) -> dict[str, Any]:
    """`byte_level` as GGUF metadata; a change replaces `tokenizer.ggml.<name>`, None removes it."""
    model = json.loads(byte_level_json())
    vocabulary = model["model"]["vocab"] | {token["content"]: token["id"] for token in model["added_tokens"]}
    tokens = sorted(vocabulary, key=vocabulary.__getitem__)
    kinds = dict.fromkeys(SPECIAL, TokenType.CONTROL) | dict.fromkeys(USER_DEFINED, TokenType.USER_DEFINED)
    values = {
        "model": "gpt2",
        "pre": "smollm",
        "tokens": tokens,
        "token_type": [int(kinds.get(text, TokenType.NORMAL)) for text in tokens],
        "merges": [" ".join(pair) for pair in model["model"]["merges"]],
        "bos_token_id": 1,
        "eos_token_id": 2,
        "eot_token_id": 0,
    } | changes
    return {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}


def bytes_only_metadata(pre: str) -> dict[str, Any]:
    """GGUF metadata of a vocabulary that is the 256 bytes, under one family's rules."""
    tokens = [*BYTE_ALPHABET, "<s>"]
    return gguf_metadata(
        pre=pre,
        tokens=tokens,
        merges=[],
        token_type=[1] * 256 + [3],
        bos_token_id=256,
        eos_token_id=256,
        eot_token_id=256,
    )


@cache
def sentencepiece() -> Tokenizer:
    """A SentencePiece-like BPE: "▁" for space, one put in front, bytes as "<0x0A>"."""
    return Tokenizer(sentencepiece_backend(), bos_token_id=1, eos_token_ids=(2,))


def sentencepiece_backend() -> tokenizers.Tokenizer:
    pieces = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256)), "▁", *"abehlotw", "é", "▁▁"]
    merges = [("h", "e"), ("l", "l"), ("he", "ll"), ("hell", "o"), ("▁", "hello"), ("▁", "t"), ("▁", "▁")]
    vocabulary = {piece: position for position, piece in enumerate(pieces)}
    for left, right in merges:
        vocabulary.setdefault(left + right, len(vocabulary))
    backend = tokenizers.Tokenizer(
        models.BPE(vocab=vocabulary, merges=merges, unk_token="<unk>", fuse_unk=True, byte_fallback=True)
    )
    backend.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), normalizers.Replace(" ", "▁")])
    backend.decoder = decoders.Sequence(
        [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse(), decoders.Strip(" ", 1, 0)]
    )
    backend.add_special_tokens(["<unk>", "<s>", "</s>"])
    return backend


def metaspace_backend(prepend_scheme: str) -> tokenizers.Tokenizer:
    """The same vocabulary with a Metaspace pre-tokenizer and decoder."""
    backend = sentencepiece_backend()
    backend.normalizer = None
    backend.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prepend_scheme)
    backend.decoder = decoders.Sequence([decoders.ByteFallback(), decoders.Metaspace(prepend_scheme=prepend_scheme)])
    return backend


def sentencepiece_metadata(**changes: Any) -> dict[str, Any]:
    """The same vocabulary as GGUF metadata of the model "llama", with a user-defined token; merges as listed above come
    first. A change replaces `tokenizer.ggml.<name>`, None removes it."""
    vocabulary = sentencepiece_backend().get_vocab()
    tokens = [*sorted(vocabulary, key=vocabulary.__getitem__), "<think>"]
    kinds = {"<unk>": TokenType.UNKNOWN, "<s>": TokenType.CONTROL, "</s>": TokenType.CONTROL}
    kinds |= {"<think>": TokenType.USER_DEFINED}
    kinds |= {f"<0x{byte:02X}>": TokenType.BYTE for byte in range(256)}
    values = {
        "model": "llama",
        "tokens": tokens,
        "scores": [-float(position) for position in range(len(tokens))],
        "token_type": [int(kinds.get(token, TokenType.NORMAL)) for token in tokens],
        "unknown_token_id": 0,
        "bos_token_id": 1,
        "eos_token_id": 2,
    } | changes
    return {f"tokenizer.ggml.{name}": value for name, value in values.items() if value is not None}


def with_tokens(metadata: dict[str, Any], tokens: list[str], kind: TokenType, score: float) -> dict[str, Any]:
    """The same metadata with more tokens at the end."""
    more = {"tokens": tokens, "scores": [score] * len(tokens), "token_type": [int(kind)] * len(tokens)}
    added = {f"tokenizer.ggml.{name}": metadata[f"tokenizer.ggml.{name}"] + values for name, values in more.items()}
    return metadata | added

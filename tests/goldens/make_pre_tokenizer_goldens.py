"""Regenerates pre_tokenizers.json: tokens of some texts under every pre-tokenizer of GGUF files, by llama.cpp.

The vocabulary is trained here, without any cuts, so that merges cross every place where a family cuts. Needs
llama-cpp-python 0.3.36 and gguf. Left out of the texts is what llama.cpp is known to approximate: letters with cases
outside of ASCII, and spaces outside of it.
"""

from __future__ import annotations

import json
import random
import tempfile
from collections import Counter
from itertools import pairwise
from pathlib import Path

import gguf
import llama_cpp
import tokenizers

from ferrum.text.pre_tokenizers import PRE_TOKENIZERS

TARGET = Path(__file__).with_name("pre_tokenizers.json")
APPROXIMATED = ("tiny_aya", "cohere2moe")  # digits beside letters
POOLS = (
    "abcXYZ' ",
    "0123456789 ",
    "'s't'LL 'Re",
    "日本語漢字 ",
    "한국어 각",
    "ไทย",
    "   \n\n\r\n\t",
    "<>=+-*/(){}[]_`~^|$.,!?",
)
FIXED = (
    "HTMLParser's 12345678 items\n\n  x",
    " 12 345,678.90",
    "I'll DON'T we'Re",
    "a  b   c    d\t\t\n x",
    "if (x<=1) { y[i]+= 'a'; }\r\n",
    "<sentinel:12> IMGIMGABZ",
    "日本語 한국어 ไทย。",
)


def texts() -> list[str]:
    source = random.Random(5)
    made = []
    for _ in range(24):
        pools = source.sample(POOLS, source.randint(1, 4))
        made.append("".join(source.choice(source.choice(pools)) for _ in range(source.randint(2, 16))))
    return [*FIXED, *made]


def train(corpus: list[str]) -> tuple[list[str], list[str]]:
    """Tokens and merges of a byte-level vocabulary that was never cut."""
    alphabet = sorted(tokenizers.pre_tokenizers.ByteLevel.alphabet())
    spell = tokenizers.pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False).pre_tokenize_str
    words = ["".join(piece for piece, _ in spell(text)) for text in corpus if text]
    parts, merges, tokens = [list(word) for word in words], [], list(alphabet)
    for _ in range(260):
        pairs = Counter(pair for word in parts for pair in pairwise(word))
        pair = max(pairs, key=lambda one: (pairs[one], one), default=None)
        if pair is None:
            break
        merges.append(" ".join(pair))
        if "".join(pair) not in tokens:
            tokens.append("".join(pair))
        parts = [_merged(word, pair) for word in parts]
    return tokens, merges


def _merged(word: list[str], pair: tuple[str, str]) -> list[str]:
    made: list[str] = []
    for part in word:
        if made and (made[-1], part) == pair:
            made[-1] += part
        else:
            made.append(part)
    return made


def main() -> None:
    corpus = texts()
    tokens, merges = train(corpus)
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "vocabulary.gguf"
        writer = gguf.GGUFWriter(path, "llama")
        writer.add_context_length(64)
        writer.add_embedding_length(8)
        writer.add_block_count(1)
        writer.add_feed_forward_length(8)
        writer.add_head_count(1)
        writer.add_layer_norm_rms_eps(1e-5)
        writer.add_tokenizer_model("gpt2")
        writer.add_tokenizer_pre("default")
        writer.add_token_list(tokens)
        writer.add_token_types([1] * len(tokens))
        writer.add_token_merges(merges)
        writer.write_header_to_file()
        writer.write_kv_data_to_file()
        writer.write_tensors_to_file()
        writer.close()
        found = {name: encoded(path, name, corpus) for name in PRE_TOKENIZERS if name not in APPROXIMATED}
    families: dict[str, list[str]] = {}
    for name, ids in found.items():
        families.setdefault(json.dumps(ids), []).append(name)
    golden = {
        "tokens": tokens, "merges": merges, "texts": corpus,
        "families": [{"names": names, "ids": json.loads(ids)} for ids, names in families.items()],
    }  # fmt: skip
    TARGET.write_text(json.dumps(golden, separators=(",", ":")) + "\n")


def encoded(path: Path, name: str, corpus: list[str]) -> list[list[int]]:
    model = llama_cpp.Llama(str(path), vocab_only=True, verbose=False, kv_overrides={"tokenizer.ggml.pre": name})
    return [model.tokenize(text.encode(), add_bos=False, special=False) for text in corpus]


if __name__ == "__main__":
    main()

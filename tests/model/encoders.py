"""Small random encoders, rebuilt from tests/goldens/encoders/.

A golden is two files. NAME.json has config.json, the names, shapes and types of the tensors, a seed and token ids;
NAME.npz has float32 [tokens, hidden], what transformers' last layer gives. Weights are drawn from the seed, the same
ones for the maker (tests/goldens/make_encoder_goldens.py) and for the tests.
"""

from __future__ import annotations

import json
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np

from tests.model.families import DTYPES, Arrays, Tensors, write_weights

FOLDER = Path(__file__).resolve().parents[1] / "goldens" / "encoders"
WORDS = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "the", "fox", "##es", "jump", "##ed", ",", "."]


@dataclass(frozen=True)
class Encoder:
    """A model, and the vectors that transformers computes with it."""

    name: str
    config: dict[str, Any]
    tensors: Tensors
    seed: int
    tokens: list[int]

    @cached_property
    def vectors(self) -> np.ndarray:
        """float32 [tokens, hidden]"""
        with np.load(FOLDER / f"{self.name}.npz") as file:
            return file["vectors"]

    def weights(self) -> Arrays:
        """The tensors by name, drawn in the order of their names."""
        random = np.random.RandomState(self.seed)
        drawn = {}
        for name, (dtype, shape) in sorted(self.tensors.items()):
            centre, scale = spread(name, shape)
            drawn[name] = (centre + scale * random.standard_normal(shape)).astype(np.float32).astype(DTYPES[dtype])
        return drawn


def spread(name: str, shape: tuple[int, ...]) -> tuple[float, float]:
    """The mean and the standard deviation of a tensor's numbers, so large that wrong attention changes the result."""
    if name.endswith("bias"):
        return 0.0, 0.3
    if "LayerNorm" in name:
        return 1.0, 0.3
    if "embeddings" in name:
        return 0.0, 0.5
    return 0.0, (2.0 if "query" in name or "key" in name else 1.0) / shape[-1] ** 0.5


def read_encoder(path: Path) -> Encoder:
    told = json.loads(path.read_text())
    told["tensors"] = {name: (dtype, tuple(shape)) for name, (dtype, shape) in told["tensors"].items()}
    return Encoder(path.stem, **told)


ENCODERS = {path.stem: read_encoder(path) for path in sorted(FOLDER.glob("*.json"))}


def write_encoder(encoder: Encoder, folder: Path) -> Path:
    """config.json, model.safetensors and a tokenizer of a few pieces of words."""
    folder.mkdir(parents=True, exist_ok=True)
    (folder / "tokenizer.json").write_text(json.dumps(word_pieces()))
    (folder / "config.json").write_text(json.dumps(encoder.config, indent=2) + "\n")
    write_weights(encoder.weights(), folder / "model.safetensors")
    return folder


def word_pieces() -> dict[str, Any]:
    """A tokenizer.json like that of BERT, with [CLS] before every text and [SEP] behind it."""
    ids = {word: number for number, word in enumerate(WORDS)}
    special = [
        {"id": ids[word], "content": word, "special": True, "single_word": False, "lstrip": False, "rstrip": False,
         "normalized": False}
        for word in WORDS[:4]
    ]  # fmt: skip
    around = [{"SpecialToken": {"id": word, "type_id": 0}} for word in ("[CLS]", "[SEP]")]
    return {
        "version": "1.0",
        "truncation": {"max_length": 4, "strategy": "LongestFirst", "stride": 0, "direction": "Right"},
        "added_tokens": special,
        "normalizer": {"type": "BertNormalizer", "clean_text": True, "handle_chinese_chars": True,
                       "strip_accents": None, "lowercase": True},
        "pre_tokenizer": {"type": "BertPreTokenizer"},
        "post_processor": {
            "type": "TemplateProcessing",
            "single": [around[0], {"Sequence": {"id": "A", "type_id": 0}}, around[1]],
            "pair": [around[0], {"Sequence": {"id": "A", "type_id": 0}}, around[1]],
            "special_tokens": {word: {"id": word, "ids": [ids[word]], "tokens": [word]} for word in ("[CLS]", "[SEP]")},
        },
        "decoder": {"type": "WordPiece", "prefix": "##", "cleanup": True},
        "model": {"type": "WordPiece", "unk_token": "[UNK]", "continuing_subword_prefix": "##",
                  "max_input_chars_per_word": 100, "vocab": ids},
    }  # fmt: skip

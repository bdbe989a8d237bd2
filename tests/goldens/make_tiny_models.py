"""Makes tests/goldens/tiny/: small random Llama and Mistral models, and what Hugging Face transformers says of them.

    python tests/goldens/make_tiny_models.py

Every model is a directory (config.json, safetensors) with a golden.npz: random token ids and the float32 logits
[tokens, vocab] of transformers' eager float32 forward pass over the weights as they are stored.
Random weights are large on purpose: with the usual 0.02, wrong attention hardly shows in the logits. Biases and norm
weights are random too, and sequences run well past the trained length where RoPE scaling is on trial.
Needs torch and transformers (extra `oracle`). `make_tiny_ggufs.py` makes GGUF files of the same kind.
"""

from __future__ import annotations

import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from transformers import AutoModelForCausalLM, LlamaConfig, LlamaForCausalLM, MistralConfig, MistralForCausalLM

OUT = Path(__file__).parent / "tiny"
LLAMA3 = {
    "rope_type": "llama3",
    "rope_theta": 500.0,
    "factor": 8.0,
    "low_freq_factor": 1.0,
    "high_freq_factor": 4.0,
    "original_max_position_embeddings": 16,
}
YARN = {"rope_type": "yarn", "rope_theta": 1000.0, "factor": 4.0, "original_max_position_embeddings": 16}

# ramps that start after the first dimension, and that end in the upper half of them
STEEP_YARN = {**YARN, "rope_theta": 10.0, "beta_fast": 1.0, "beta_slow": 0.25}
WIDE_YARN = {**YARN, "rope_theta": 2.0, "factor": 8.0, "attention_factor": 0.9}


@dataclass(frozen=True)
class Tiny:
    """One model: fields of its config, how it is stored, how many tokens its golden has."""

    name: str
    config: dict[str, Any]
    mistral: bool = False
    dtype: torch.dtype = torch.float32
    shard: str | None = None  # largest shard
    old_dialect: bool = False  # rope_theta, rope_scaling and torch_dtype, as transformers 4 wrote them
    tokens: int = 40


BASE = {
    "vocab_size": 67,
    "hidden_size": 48,
    "intermediate_size": 40,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "num_key_value_heads": 4,
    "max_position_embeddings": 128,
    "rms_norm_eps": 1e-5,
    "tie_word_embeddings": False,
    "bos_token_id": 1,
    "eos_token_id": 2,
}
WIDE = {**BASE, "hidden_size": 64, "intermediate_size": 64, "num_key_value_heads": 2}
MODELS = (
    Tiny("llama-tied", {**BASE, "tie_word_embeddings": True}),
    Tiny("llama-biases", {**BASE, "num_key_value_heads": 2, "attention_bias": True, "mlp_bias": True}),
    Tiny(
        "llama-ratio3",
        {**BASE, "num_attention_heads": 6, "num_key_value_heads": 2, "head_dim": 8, "rms_norm_eps": 1e-2},
        dtype=torch.bfloat16,
    ),
    Tiny("llama-multiquery-bf16", {**WIDE, "num_key_value_heads": 1, "head_dim": 20}, dtype=torch.bfloat16),
    Tiny(
        "llama-linear",
        {**BASE, "rope_parameters": {"rope_type": "linear", "rope_theta": 1000.0, "factor": 4.0}},
        tokens=90,
        dtype=torch.float16,
    ),
    Tiny(
        "llama-llama3-sharded-bf16", {**WIDE, "rope_parameters": LLAMA3}, dtype=torch.bfloat16, shard="60KB", tokens=90
    ),
    Tiny(
        "llama-llama3-old",
        {**BASE, "num_key_value_heads": 2, "rope_parameters": LLAMA3},
        old_dialect=True,
        tokens=90,
        dtype=torch.float16,
    ),
    Tiny("llama-yarn", {**BASE, "num_key_value_heads": 1, "rope_parameters": STEEP_YARN}, tokens=64),
    Tiny(
        "llama-yarn-old",
        {
            **BASE,
            "num_key_value_heads": 2,
            "head_dim": 16,
            "rope_parameters": WIDE_YARN,
        },
        old_dialect=True,
        tokens=90,
    ),
    Tiny("mistral-window-f16", {**WIDE, "sliding_window": 9, "head_dim": 24}, mistral=True, dtype=torch.float16),
    Tiny(
        "mistral-window-old",
        {**BASE, "num_key_value_heads": 2, "sliding_window": 5, "tie_word_embeddings": True},
        mistral=True,
        old_dialect=True,
    ),
    Tiny(
        "mistral-full-sharded",
        {**BASE, "num_key_value_heads": 2, "sliding_window": None},
        mistral=True,
        shard="20KB",
        dtype=torch.bfloat16,
    ),
)

Model = Any  # a transformers causal language model


def random_model(tiny: Tiny, seed: int) -> Model:
    """The model with weights that make positions, heads and biases matter."""
    generator = torch.Generator().manual_seed(seed)
    config = (MistralConfig if tiny.mistral else LlamaConfig)(**tiny.config)
    model = (MistralForCausalLM if tiny.mistral else LlamaForCausalLM)(config)
    with torch.no_grad():
        for name, parameter in sorted(model.named_parameters()):
            noise = torch.randn(parameter.shape, generator=generator)
            if "norm" in name:
                parameter.copy_(1 + 0.3 * noise)
            elif name.endswith("bias"):
                parameter.copy_(0.5 * noise)
            elif "embed" in name:
                parameter.copy_(0.3 * noise)
            else:
                sharp = 1.5 if "q_proj" in name or "k_proj" in name else 1.0
                parameter.copy_(sharp * noise / parameter.shape[1] ** 0.5)
    return model.to(tiny.dtype)


def logits_of(folder: Path, tokens: list[int]) -> np.ndarray:
    """float32 [tokens, vocab] of the model that is stored in `folder`, teacher forced."""
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, attn_implementation="eager")
    with torch.no_grad():
        return model(torch.tensor([tokens])).logits[0].numpy().astype(np.float32)


def random_tokens(tiny: Tiny, seed: int) -> list[int]:
    return np.random.default_rng(seed).integers(0, tiny.config["vocab_size"], tiny.tokens).tolist()


def save_golden(path: Path, tokens: list[int], logits: np.ndarray) -> None:
    spread = logits.std()
    assert 0.3 < spread < 5, f"{path}: logits of spread {spread} hide or exaggerate errors"
    np.savez_compressed(path, token_ids=np.array(tokens, np.int32), logits=logits)


def to_old_dialect(folder: Path) -> None:
    """config.json as transformers 4 wrote it."""
    path = folder / "config.json"
    config = json.loads(path.read_text())
    rope = config.pop("rope_parameters")
    config["rope_theta"] = rope.pop("rope_theta")
    config["rope_scaling"] = rope if rope["rope_type"] != "default" else None
    if rope["rope_type"] == "yarn":
        rope["type"] = rope.pop("rope_type")  # the older name of the same key
    config["torch_dtype"] = config.pop("dtype")
    config["transformers_version"] = "4.50.0"
    path.write_text(json.dumps(config, indent=2, sort_keys=True) + "\n")


def make_directory(tiny: Tiny, seed: int) -> Path:
    folder = OUT / tiny.name
    shutil.rmtree(folder, ignore_errors=True)
    random_model(tiny, seed).save_pretrained(folder, max_shard_size=tiny.shard or "1GB")
    (folder / "generation_config.json").unlink(missing_ok=True)
    tokens = random_tokens(tiny, seed)
    logits = logits_of(folder, tokens)
    if tiny.old_dialect:
        to_old_dialect(folder)
        assert np.array_equal(logits_of(folder, tokens), logits), f"{folder}: the old dialect says something else"
    save_golden(folder / "golden.npz", tokens, logits)
    return folder


def main() -> None:
    OUT.mkdir(exist_ok=True)
    torch.set_num_threads(1)
    for seed, tiny in enumerate(MODELS):
        folder = make_directory(tiny, seed)
        print(folder.name, sum(file.stat().st_size for file in folder.iterdir()) // 1000, "kB")


if __name__ == "__main__":
    main()

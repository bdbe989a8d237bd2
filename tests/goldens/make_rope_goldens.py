"""Makes rope_tables.json: the rotary frequencies that transformers computes for rotary parameters at random.

    python tests/goldens/make_rope_goldens.py

Every case is what config.json says of them, in either dialect or in both at once, the frequencies, and the factor of
cosines and sines; null where transformers refuses it. Needs torch and transformers (extra `oracle`).
"""

from __future__ import annotations

import json
import random
from pathlib import Path
from typing import Any

from transformers import LlamaConfig, logging
from transformers.models.llama.modeling_llama import LlamaRotaryEmbedding

OUT = Path(__file__).parent / "rope_tables.json"
CASES = 400
CHOICES: dict[str, list[Any]] = {
    "factor": [1.0, 2, 4.0, 8, 32.0, 0.5],
    "low_freq_factor": [1.0, 1, 2.0],
    "high_freq_factor": [4.0, 4, 8.0],
    "original_max_position_embeddings": [16, 64, 512, 512.0, 8192],
    "beta_fast": [32.0, 32, 8.0, None],
    "beta_slow": [1.0, 1, 0.5, None],
    "attention_factor": [1.0, 1.25, None],
    "mscale": [1.0, 0.707, 2, None],
    "mscale_all_dim": [1.0, 0.5, None],
    "truncate": [True, False],
    "rope_theta": [10000.0, 500000, 100.0],
    "finetuned": [True],
}
READ = {
    "default": [],
    "linear": ["factor"],
    "llama3": ["factor", "low_freq_factor", "high_freq_factor"],
    "yarn": ["factor"],
}
MAYBE = {
    "default": ["factor", "rope_theta"],
    "linear": ["rope_theta", "original_max_position_embeddings"],
    "llama3": ["rope_theta", "original_max_position_embeddings", "beta_fast"],
    "yarn": [key for key in CHOICES if "freq" not in key and key != "factor"],
}


def rope_object(rng: random.Random) -> dict[str, Any]:
    kind = rng.choice(list(READ))
    keys = READ[kind] + [key for key in MAYBE[kind] if rng.random() < 0.5]
    named = rng.choice(["rope_type", "rope_type", "type"])
    return {named: kind, **{key: rng.choice(CHOICES[key]) for key in keys}}


def config_keys(rng: random.Random) -> dict[str, Any]:
    keys: dict[str, Any] = {"head_dim": rng.choice([8, 16, 64]), "max_position_embeddings": rng.choice([512, 8192])}
    for key, chance in (("rope_parameters", 0.5), ("rope_scaling", 0.6)):
        if rng.random() < chance:
            keys[key] = rng.choice([rope_object(rng), rope_object(rng), rope_object(rng), {}, None])
    for key in ("rope_theta", "original_max_position_embeddings"):
        if rng.random() < 0.3:
            keys[key] = rng.choice(CHOICES[key])
    return keys


def main() -> None:
    logging.set_verbosity_error()
    rng = random.Random(1)
    lines = []
    while len(lines) < CASES:
        keys = config_keys(rng)
        try:
            config = LlamaConfig(hidden_size=64, num_attention_heads=4, **json.loads(json.dumps(keys)))
            rotary = LlamaRotaryEmbedding(config)
            found = [float(f"{number:.7g}") for number in rotary.inv_freq.tolist()]
            answer: Any = [found, float(rotary.attention_scaling)]
        except Exception:  # whatever it raises
            answer = None
        lines.append(json.dumps([keys, answer]))
    OUT.write_text("[\n" + ",\n".join(lines) + "\n]\n")


if __name__ == "__main__":
    main()

"""config.json of published models, and the same models small enough to be made.

tests/goldens/real_configs.json holds them: what a file says, where the copy is from, and what transformers makes of it
(tests/goldens/make_real_configs.py asks). A `source` names the public repository with a copy of the file; where it is
"remembered", the keys are those of the model's page as people who use it know them, and lists of LongRoPE factors are
stand-ins. Imported by the maker as well, which has no ferrum; so this imports nothing of it.
"""

from __future__ import annotations

import copy
import json
from pathlib import Path
from typing import Any

PATH = Path(__file__).parents[1] / "goldens" / "real_configs.json"
REAL: dict[str, dict[str, Any]] = json.loads(PATH.read_text())
"""Name -> source, config, and means: sizes and frequencies; null where this project does not run the model."""
VOCAB, WINDOW = 160, 16
TOKENS = [(7 * i * i + 3 * i + 5) % VOCAB for i in range(3 * WINDOW)]

_SMALL = {
    ("intermediate_size", "n_inner"): 96,
    ("moe_intermediate_size", "shared_expert_intermediate_size", "shared_intermediate_size"): 48,
    ("num_experts", "num_local_experts"): 8,
    ("num_experts_per_tok", "experts_per_token"): 3,
    ("sliding_window", "sliding_window_size"): WINDOW,
    ("vocab_size",): VOCAB,
    ("bos_token_id", "pad_token_id"): 1,
}
_OWN_WIDTH = ("ernie4_5", "gemma", "gemma2", "gemma3_text", "glm", "glm4", "qwen3", "seed_oss")
"""Families whose heads are as wide as they are, whatever hidden_size is."""
_LEFT_OUT = {"gemma3_text": {"num_attention_heads": 8, "num_key_value_heads": 4, "vocab_size": VOCAB}}
"""What files leave to the class, and a small model cannot."""


def text_of(config: dict[str, Any]) -> dict[str, Any]:
    """What a file says of text, where the model also sees."""
    inner = config.get("text_config")
    return config if inner is None else {"model_type": "mistral", **inner}


def shrunk(config: dict[str, Any]) -> dict[str, Any]:
    """The same file with few layers, few narrow matrices and a short window; heads are as wide as they are."""
    small = {**_LEFT_OUT.get(config["model_type"], {}), **copy.deepcopy(config)}
    for keys, most in _SMALL.items():
        for key in keys:
            if isinstance(small.get(key), int):
                small[key] = min(small[key], most)
    for key in ("dtype", "torch_dtype"):
        small |= {key: "float32"} if key in small else {}
    for key in ("quantization", "quantization_config"):
        small.pop(key, None)
    small["eos_token_id"] = 2
    _shrink_layers(small)
    _shrink_heads(small)
    return small


def _shrink_layers(small: dict[str, Any]) -> None:
    key = "n_layer" if "n_layer" in small else "num_hidden_layers"
    lists = [name for name in ("layer_types", "no_rope_layers") if small.get(name)]
    small[key] = min(small[key], 7 if lists or "sliding_window_pattern" in small else 3)
    small |= {name: small[name][: small[key]] for name in lists}


def _shrink_heads(small: dict[str, Any]) -> None:
    count, hidden = ("n_head", "n_embd") if "n_embd" in small else ("num_attention_heads", "hidden_size")
    shared = next((key for key in ("num_key_value_heads", "num_kv_heads") if key in small), None)
    width, heads = small[hidden] // small[count], small[count]
    ratio = 1 if shared is None else heads // small[shared]
    kv_heads = 1 if ratio == heads else 2
    small[count] = 3 if shared is None else kv_heads * min(ratio, 4)
    small |= {} if shared is None else {shared: kv_heads}
    free = "head_dim" in small or small["model_type"] in _OWN_WIDTH
    small[hidden] = small[count] * (32 if free else width)

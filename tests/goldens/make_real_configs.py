"""Fills real_configs.json in: what Hugging Face transformers makes of config.json of published models.

    python -m tests.goldens.make_real_configs

To add a model: give it a source and a config in the file, and run this. Sizes are read from the configuration's class;
frequencies from a small model of the same file, whose heads are as wide. Needs torch and transformers (extra `oracle`).
"""

from __future__ import annotations

import json
from typing import Any

from torch import nn
from transformers import AutoModelForCausalLM, PreTrainedConfig
from transformers.models.auto.configuration_auto import CONFIG_MAPPING

from tests.load.real_configs import PATH, REAL, shrunk, text_of

SIZES = {
    "hidden_size": ("hidden_size",),
    "layers": ("num_hidden_layers",),
    "heads": ("num_attention_heads",),
    "vocab_size": ("vocab_size",),
    "max_positions": ("max_position_embeddings",),
    "norm_epsilon": ("rms_norm_eps", "layer_norm_eps", "layer_norm_epsilon", "norm_epsilon"),
    "tie_embeddings": ("tie_word_embeddings",),
}


def make_config(config: dict[str, Any]) -> PreTrainedConfig:
    """As `from_pretrained` does, without code of the repository."""
    told = {key: value for key, value in config.items() if key != "auto_map"}
    return CONFIG_MAPPING[told["model_type"]].from_dict(told)


def sizes(config: PreTrainedConfig, told: dict[str, Any]) -> dict[str, Any]:
    found = {ours: next(getattr(config, key) for key in keys if hasattr(config, key)) for ours, keys in SIZES.items()}
    if config.model_type == "starcoder2":  # a key that its class passes over has the usual name
        found["norm_epsilon"] = config.norm_epsilon
    if config.model_type == "falcon":
        own = config.new_decoder_architecture or not config.multi_query
        found["kv_heads"] = config.num_kv_heads if own else 1
    else:
        found["kv_heads"] = getattr(config, "num_key_value_heads", None) or config.num_attention_heads
    found["head_dim"] = getattr(config, "head_dim", None) or config.hidden_size // config.num_attention_heads
    kinds = getattr(config, "layer_types", None)
    if kinds and getattr(config, "sliding_window", None):
        found["windows"] = [number for number, kind in enumerate(kinds) if kind == "sliding_attention"]
    return found


def frequencies(config: dict[str, Any]) -> dict[str, list[float]]:
    """By kind of layer the first, the middle and the last frequency, and what cosine and sine are multiplied with."""
    model = AutoModelForCausalLM.from_config(make_config(shrunk(config)))
    found: dict[str, list[float]] = {}
    for module in model.modules():
        if type(module).__name__.endswith("RotaryEmbedding"):
            found |= of_module(module)
    return found


def of_module(module: nn.Module) -> dict[str, list[float]]:
    found = {}
    for name, buffer in module.named_buffers(recurse=False):
        if name.endswith("inv_freq") and "original" not in name:
            kind, numbers = name.removesuffix("inv_freq"), buffer.double().tolist()
            shown = [numbers[0], numbers[len(numbers) // 2], numbers[-1], getattr(module, f"{kind}attention_scaling")]
            found[kind.strip("_") or "all"] = [float(f"{number:.6g}") for number in shown]
    return found


def main() -> None:
    rows = []
    for name, case in REAL.items():
        if case["means"] is not None:
            told = text_of(case["config"])
            case["means"] = {**sizes(make_config(told), told), "rope": frequencies(told)}
        rows.append(f"{json.dumps(name)}: {json.dumps(case)}")
    PATH.write_text("{\n" + ",\n".join(rows) + "\n}\n")
    print(len(rows), "models")


if __name__ == "__main__":
    main()

"""What the configuration classes of transformers assume: tests/goldens/class_defaults.json."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

FILE = Path(__file__).parents[1] / "goldens" / "class_defaults.json"
SIZES = {"num_hidden_layers": 3, "num_attention_heads": 32, "hidden_size": 2048, "intermediate_size": 256,
         "vocab_size": 70}  # fmt: skip
"""What was said besides, in transformers' own words; 32 heads, which all the defaults of key/value heads divide."""
UNSAID = ("num_local_experts", "num_experts", "num_experts_per_tok", "moe_intermediate_size",
          "shared_expert_intermediate_size", "shared_intermediate_size")  # fmt: skip
"""Sizes of experts, which ferrum wants to be told."""


def class_defaults() -> dict[str, dict[str, Any]]:
    """By model_type."""
    found: dict[str, dict[str, Any]] = json.loads(FILE.read_text())
    return found

"""The sizes of known models, without weights: enough to measure speed, since no kernel's time depends on values.

Owns: the table. It leaves out what changes no time: rotary scaling, and the tokens that end a text. Refuses to know:
weights. Source: config.json of each model.
Specs: CLI-43, CLI-44. Next: `ferrum.load.random_model`.
"""

from __future__ import annotations

from ferrum.config import ModelConfig, RopeConfig
from ferrum.errors import InvalidParameter

SHAPES: dict[str, ModelConfig] = {
    "smollm2-135m": ModelConfig(
        architecture="llama",
        vocab_size=49152,
        hidden_size=576,
        intermediate_size=1536,
        layers=30,
        heads=9,
        kv_heads=3,
        head_dim=64,
        max_positions=8192,
        norm_epsilon=1e-5,
        rope=RopeConfig(theta=100000.0, rotary_dim=64),
        tie_embeddings=True,
    ),
    "llama-3.2-1b": ModelConfig(
        architecture="llama",
        vocab_size=128256,
        hidden_size=2048,
        intermediate_size=8192,
        layers=16,
        heads=32,
        kv_heads=8,
        head_dim=64,
        max_positions=131072,
        norm_epsilon=1e-5,
        rope=RopeConfig(theta=500000.0, rotary_dim=64),
        tie_embeddings=True,
    ),
    "llama-3.2-3b": ModelConfig(
        architecture="llama",
        vocab_size=128256,
        hidden_size=3072,
        intermediate_size=8192,
        layers=28,
        heads=24,
        kv_heads=8,
        head_dim=128,
        max_positions=131072,
        norm_epsilon=1e-5,
        rope=RopeConfig(theta=500000.0, rotary_dim=128),
        tie_embeddings=True,
    ),
    "llama-3.1-8b": ModelConfig(
        architecture="llama",
        vocab_size=128256,
        hidden_size=4096,
        intermediate_size=14336,
        layers=32,
        heads=32,
        kv_heads=8,
        head_dim=128,
        max_positions=131072,
        norm_epsilon=1e-5,
        rope=RopeConfig(theta=500000.0, rotary_dim=128),
    ),
}
"""By name, the smallest first."""


def find_shape(name: str) -> ModelConfig:
    """Raises InvalidParameter for a name that is not in `SHAPES`; the error lists those that are."""
    if name not in SHAPES:
        raise InvalidParameter("shape", f"must be one of {', '.join(SHAPES)}, not {name!r}")
    return SHAPES[name]

"""Model families as data: where each file format keeps each tensor of ours, and which config keys apply.

Owns: the tables that a new family adds rows to. Refuses to know: how files are read.
Specs: LOAD-22 to LOAD-24, LOAD-30. Next: `ferrum.load.limits`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

from ferrum.config import ModelConfig
from ferrum.load.layout import Layout

HUGGING_FACE_LAYOUT = Layout(
    embedding="model.embed_tokens",
    norm="model.norm",
    head="lm_head",
    layer={
        "attention_norm": "model.layers.{layer}.input_layernorm",
        "query": "model.layers.{layer}.self_attn.q_proj",
        "key": "model.layers.{layer}.self_attn.k_proj",
        "value": "model.layers.{layer}.self_attn.v_proj",
        "output": "model.layers.{layer}.self_attn.o_proj",
        "mlp_norm": "model.layers.{layer}.post_attention_layernorm",
        "gate": "model.layers.{layer}.mlp.gate_proj",
        "up": "model.layers.{layer}.mlp.up_proj",
        "down": "model.layers.{layer}.mlp.down_proj",
    },
    derived={
        **dict.fromkeys(("rotary_emb.inv_freq", "rotary_emb.original_inv_freq", "inv_freq", "rope.freqs"), 1),
        **dict.fromkeys(("rotary_emb.cos_cached", "rotary_emb.sin_cached", "rotary_emb.cos_sin_cache", "freqs_cis"), 2),
        **dict.fromkeys(("attn.bias", "self_attn.bias", "attn.mask", "causal_mask"), 2),  # a bias proper has one
        **dict.fromkeys(("attn.masked_bias", "self_attn.masked_bias", "masked_bias"), 0),
        "position_ids": 1,
    },
    prefix="model.",
)

ATTENTION_LINEARS = ("query", "key", "value", "output")
MLP_LINEARS = ("gate", "up", "down")


@dataclass(frozen=True)
class HuggingFaceFamily:
    """One `model_type` of config.json. Defaults are those of the transformers class, for keys the file leaves out."""

    name: str
    causal_class: str  # the entry of `architectures` that this project can run, however it is capitalised
    base_class: str  # the same without a head, under which some save a whole model
    layout: Layout = HUGGING_FACE_LAYOUT
    max_positions: int = 2048
    kv_heads: int | None = None  # None: as many as heads
    has_window: bool = False  # does the family read sliding_window?
    sliding_window: int | None = None
    bias_flags: Mapping[str, tuple[str, ...]] = field(default_factory=dict)  # config key -> linears it gives a bias

    @property
    def classes(self) -> tuple[str, str]:
        """Names in `architectures` that mean this family."""
        return self.causal_class, self.base_class


@dataclass(frozen=True)
class Description:
    """What a model's files say of it: what is computed, where each tensor is, and which linears have a bias (None:
    those for which there is one)."""

    config: ModelConfig
    layout: Layout
    biases: frozenset[str] | None


HUGGING_FACE_FAMILIES: dict[str, HuggingFaceFamily] = {
    "llama": HuggingFaceFamily(
        "llama",
        "LlamaForCausalLM",
        "LlamaModel",
        bias_flags={"attention_bias": ATTENTION_LINEARS, "mlp_bias": MLP_LINEARS},
    ),
    "mistral": HuggingFaceFamily(
        "mistral",
        "MistralForCausalLM",
        "MistralModel",
        max_positions=131072,
        kv_heads=8,
        has_window=True,
        sliding_window=4096,
    ),
}

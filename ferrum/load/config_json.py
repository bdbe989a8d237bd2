"""config.json of Hugging Face transformers as a `ModelConfig`.

Owns: both dialects of the file (rope_theta + rope_scaling, and transformers 5's rope_parameters), the defaults of its
classes, and the refusal of everything that would change the mathematics unseen.
Refuses to know: tensors.
Specs: LOAD-20 to LOAD-26, LOAD-29. Source: transformers' configuration classes and `modeling_rope_utils`.
Next: `ferrum.load.config_gguf`.
"""

from __future__ import annotations

import math
import os
from pathlib import Path

from ferrum.config import ModelConfig, RopeConfig, RopeScaling
from ferrum.errors import InvalidFormat, Unsupported
from ferrum.fields import Fields, read_json
from ferrum.load.families import HUGGING_FACE_FAMILIES, Description, HuggingFaceFamily
from ferrum.load.limits import LARGEST_HEAD, checked_rope, epsilon, positions
from ferrum.load.token_ids import NO_IDS, TokenIds, json_token_ids

_REFUSED = (
    "quantization_config",
    "compression_config",
    "num_local_experts",
    "num_experts",
    "n_routed_experts",
    "moe_num_experts",
    "attn_logit_softcapping",
    "final_logit_softcapping",
    "query_pre_attn_scalar",
)
"""Keys whose presence changes what is computed, in ways not implemented here."""


def read_config_json(folder: Path) -> Description:
    """config.json, and the ids of generation_config.json beside it. Raises `NotFound`, `InvalidFormat` or `Unsupported`,
    naming the file and the key."""
    fields = read_json(folder / "config.json")
    return describe(fields, token_ids(folder, fields))


def token_ids(folder: Path, fields: Fields) -> TokenIds:
    """The ids that begin and end a text: those of config.json, `fields`, and of generation_config.json beside it."""
    generation = folder / "generation_config.json"
    return json_token_ids([fields, *([read_json(generation)] if os.path.lexists(generation) else [])])


def describe(fields: Fields, ids: TokenIds) -> Description:
    """The keys of config.json -> what is computed. Raises `InvalidFormat` or `Unsupported`, naming the key."""
    family = _family(fields)
    biases = {name for flag, linears in family.bias_flags.items() if fields.flag(flag, False) for name in linears}
    return Description(parse_config(fields, family, ids), family.layout, frozenset(biases))


def architecture(fields: Fields) -> str | None:
    """What config.json calls the architecture, whether it is supported or not."""
    value = fields.get("model_type")
    return value if isinstance(value, str) else None


def parse_config(fields: Fields, family: HuggingFaceFamily, ids: TokenIds = NO_IDS) -> ModelConfig:
    """The keys of config.json -> ModelConfig."""
    _refuse_unknown(fields)
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    head_dim = head_dimension(fields, "head_dim", "hidden_size", hidden, heads)
    max_positions = positions(fields, "max_position_embeddings", family.max_positions)
    kv_default = heads if "num_key_value_heads" in fields.values else family.kv_heads or heads  # null means heads
    kv_heads = fields.integer("num_key_value_heads", kv_default)
    check_heads(fields, heads, kv_heads, "num_key_value_heads")
    return ModelConfig(
        architecture=family.name,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        layers=fields.integer("num_hidden_layers"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_positions=max_positions,
        norm_epsilon=epsilon(fields, "rms_norm_eps", 1e-6),
        rope=_rope(fields, head_dim, max_positions),
        sliding_window=_window(fields, family),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        eos_token_ids=ids.eos_token_ids,
        bos_token_id=ids.bos_token_id,
    )


def head_dimension(fields: Fields, key: str, hidden_key: str, hidden: int, heads: int) -> int:
    """The width of a head: as given under `key`, else hidden / heads. It must be even, for rotary embedding pairs."""
    if key not in fields and hidden % heads:
        raise InvalidFormat(f"{fields.where}: {fields.prefix}{hidden_key} {hidden} is not a multiple of {heads} heads")
    head_dim = fields.integer(key, hidden // heads)
    if head_dim % 2 or not 0 < head_dim <= LARGEST_HEAD:
        raise InvalidFormat(f"{fields.where}: the width of a head, {head_dim}, must be even and at most {LARGEST_HEAD}")
    return head_dim


def check_heads(fields: Fields, heads: int, kv_heads: int, key: str) -> None:
    """Every key/value head serves the same number of query heads."""
    if heads % kv_heads:
        raise InvalidFormat(f"{fields.where}: {fields.prefix}{key} {kv_heads} does not divide {heads} heads")


def _family(fields: Fields) -> HuggingFaceFamily:
    classes = fields.value("architectures", [])
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise fields.wrong("architectures", "a list of names")
    known = {family.causal_class: name for name, family in HUGGING_FACE_FAMILIES.items()}
    unknown = [name for name in classes if name not in known]
    if unknown:
        raise fields.refused("architectures", known)
    model_type = fields.text("model_type", known[classes[0]] if classes else None)
    if model_type not in HUGGING_FACE_FAMILIES:
        raise fields.refused("model_type", HUGGING_FACE_FAMILIES)
    return HUGGING_FACE_FAMILIES[model_type]


def _refuse_unknown(fields: Fields) -> None:
    for key in _REFUSED:
        if key in fields:
            raise fields.refused(key)
    if fields.text("hidden_act", "silu") not in ("silu", "swish"):
        raise fields.refused("hidden_act", ["silu"])


def _window(fields: Fields, family: HuggingFaceFamily) -> int | None:
    """Positions a query sees, or None for all of them. An absent key takes the family's default, null means none."""
    kinds = set(_layer_types(fields))
    if not fields.flag("use_sliding_window", True) or kinds == {"full_attention"}:
        return None
    window = family.sliding_window
    if "sliding_window" in fields.values:
        window = fields.optional_integer("sliding_window", low=1)
    if window is not None and not family.has_window:
        raise fields.refused("sliding_window")  # transformers ignores it in this family, others do not
    if window is None and kinds:
        raise InvalidFormat(f"{fields.where}: layer_types asks for sliding_attention, but there is no sliding_window")
    return window


def _layer_types(fields: Fields) -> list[str]:
    kinds = fields.value("layer_types", [])
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds):
        raise fields.wrong("layer_types", "a list of names")
    if len(set(kinds)) > 1 or not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise fields.refused("layer_types", ["all full_attention", "all sliding_attention"])
    return kinds


def _rope(fields: Fields, head_dim: int, max_positions: int) -> RopeConfig:
    rope = fields.inner("rope_parameters" if "rope_parameters" in fields else "rope_scaling")
    if any(isinstance(value, dict) for value in rope.values.values()):
        raise Unsupported(f"{rope.where}: parameters that differ between kinds of layers are not supported")
    for place in (fields, rope):
        if place.number("partial_rotary_factor", 1.0) != 1.0:
            raise place.refused("partial_rotary_factor")
    kind = rope.text("rope_type", rope.text("type", "default"))
    if kind not in _SCALINGS:
        raise rope.refused("rope_type" if "rope_type" in rope else "type", _SCALINGS)
    theta = rope.number("rope_theta", fields.number("rope_theta", 10000.0))
    return checked_rope(_SCALINGS[kind](rope, theta, head_dim, max_positions), fields.where, _rope_keys(rope))


def _rope_keys(rope: Fields) -> dict[str, str]:
    """What the file calls the fields of `RopeConfig`."""
    own = {field: field for field in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")}
    own["original_max_positions"] = "original_max_position_embeddings"
    own["attention_factor"] = "attention_factor" if "attention_factor" in rope else "mscale"
    return {"theta": "rope_theta", **own}


def _rope_default(rope: Fields, theta: float, head_dim: int, max_positions: int) -> RopeConfig:
    return RopeConfig(theta, head_dim)


def _rope_linear(rope: Fields, theta: float, head_dim: int, max_positions: int) -> RopeConfig:
    return RopeConfig(theta, head_dim, RopeScaling.LINEAR, rope.number("factor"))


def _rope_llama3(rope: Fields, theta: float, head_dim: int, max_positions: int) -> RopeConfig:
    return RopeConfig(
        theta,
        head_dim,
        RopeScaling.LLAMA3,
        rope.number("factor"),
        original_max_positions=rope.integer("original_max_position_embeddings", max_positions),
        low_freq_factor=rope.number("low_freq_factor"),
        high_freq_factor=rope.number("high_freq_factor"),
    )


def _rope_yarn(rope: Fields, theta: float, head_dim: int, max_positions: int) -> RopeConfig:
    original = rope.integer("original_max_position_embeddings", max_positions)
    factor = rope.number("factor", max_positions / original)
    return RopeConfig(
        theta,
        head_dim,
        RopeScaling.YARN,
        factor,
        original_max_positions=original,
        beta_fast=rope.number("beta_fast", 32.0),
        beta_slow=rope.number("beta_slow", 1.0),
        attention_factor=_yarn_attention(rope, factor),
        truncate=rope.flag("truncate", True),
    )


def _yarn_attention(rope: Fields, factor: float) -> float | None:
    """attention_factor, or the ratio that mscale and mscale_all_dim stand for, or None for the paper's default."""
    if "attention_factor" in rope or not rope.get("mscale") or not rope.get("mscale_all_dim"):
        return rope.optional_number("attention_factor")
    scales = [0.1 * rope.number(key) * math.log(max(factor, 1.0)) + 1.0 for key in ("mscale", "mscale_all_dim")]
    return scales[0] / scales[1]


_SCALINGS = {"default": _rope_default, "linear": _rope_linear, "llama3": _rope_llama3, "yarn": _rope_yarn}

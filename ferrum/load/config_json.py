"""config.json of Hugging Face transformers as a `ModelConfig`.

Owns: the family that a file names, the defaults of its class, and sizes. Refuses to know: tensors, keys that are not
read (`known_keys`), rotary parameters (`rope_json`).
Specs: LOAD-20 to LOAD-26, LOAD-29, LOAD-85. Source: transformers' configuration classes.
Next: `ferrum.load.config_gguf`.
"""

from __future__ import annotations

import os
from pathlib import Path

from ferrum.config import ModelConfig
from ferrum.errors import InvalidFormat, Unsupported, quoted, warn
from ferrum.fields import Fields, read_json
from ferrum.load.families import HUGGING_FACE_FAMILIES, Description, HuggingFaceFamily
from ferrum.load.known_keys import (
    CONFIG_HARMLESS,
    CONFIG_NEUTRAL,
    CONFIG_READ,
    GENERATION_HARMLESS,
    GENERATION_READ,
    Neutral,
    check_keys,
    check_requests,
)
from ferrum.load.limits import LARGEST_HEAD, epsilon, positions
from ferrum.load.rope_json import parse_rope
from ferrum.load.token_ids import NO_IDS, TokenIds


def config_fields(folder: Path) -> Fields:
    """config.json as it is: null is a value that only some keys may have."""
    fields = read_json(folder / "config.json")
    return Fields(fields.values, fields.where, null_is_absent=False)


def generation_fields(folder: Path) -> Fields:
    """generation_config.json; without one, or where it cannot be understood, which is told, it says nothing."""
    path = folder / "generation_config.json"
    try:
        fields = read_json(path) if os.path.lexists(path) else Fields({}, str(path))
    except InvalidFormat as error:
        if not os.path.isfile(path):  # a pipe, a device: nothing that somebody has edited
            raise
        warn(f"passed over: {error}")
        fields = Fields({}, str(path))
    check_keys(fields, GENERATION_READ, {}, GENERATION_HARMLESS)
    check_requests(fields)
    return fields


def describe(fields: Fields, ids: TokenIds) -> Description:
    """The keys of config.json -> what is computed. Raises `InvalidFormat` or `Unsupported`, naming the key."""
    family = find_family(fields)
    biases = {name for flag, linears in family.bias_flags.items() if fields.flag(flag, False) for name in linears}
    return Description(parse_config(fields, family, ids), family.layout, frozenset(biases))


def architecture(fields: Fields) -> str | None:
    """What config.json calls the architecture, whether it is supported or not."""
    value = fields.get("model_type")
    return value if isinstance(value, str) else None


def parse_config(fields: Fields, family: HuggingFaceFamily, ids: TokenIds = NO_IDS) -> ModelConfig:
    """The keys of config.json -> ModelConfig."""
    check_keys(fields, CONFIG_READ | family.bias_flags.keys(), _neutral(family), CONFIG_HARMLESS)
    check_requests(fields)
    if fields.text("hidden_act", "silu") not in ("silu", "swish"):
        raise fields.refused("hidden_act", ["silu"])
    heads, hidden = fields.integer("num_attention_heads"), fields.integer("hidden_size")
    head_dim = head_dimension(fields, "head_dim", "hidden_size", hidden, heads)
    max_positions = positions(fields, "max_position_embeddings", family.max_positions)
    kv_default = heads if "num_key_value_heads" in fields.values else family.kv_heads or heads  # null means heads
    kv_heads = fields.optional_integer("num_key_value_heads", low=1) or kv_default
    layers = fields.integer("num_hidden_layers")
    check_heads(fields, heads, kv_heads, "num_key_value_heads")
    return ModelConfig(
        architecture=family.name,
        vocab_size=fields.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=fields.integer("intermediate_size"),
        layers=layers,
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_positions=max_positions,
        norm_epsilon=epsilon(fields, "rms_norm_eps", 1e-6),
        rope=parse_rope(fields, head_dim, max_positions),
        sliding_window=_window(fields, family, layers),
        tie_embeddings=fields.flag("tie_word_embeddings", False),
        eos_token_ids=ids.eos_token_ids,
        bos_token_id=ids.bos_token_id,
    )


def head_dimension(fields: Fields, key: str, hidden_key: str, hidden: int, heads: int) -> int:
    """The width of a head: as given under `key`, else hidden / heads. It must be even, for rotary embedding pairs."""
    if key not in fields and hidden % heads:
        raise InvalidFormat(f"{fields.where}: {fields.prefix}{hidden_key} {hidden} is not a multiple of {heads} heads")
    head_dim = fields.optional_integer(key, low=1) or hidden // heads
    if head_dim % 2 or not 0 < head_dim <= LARGEST_HEAD:
        raise InvalidFormat(f"{fields.where}: the width of a head, {head_dim}, must be even and at most {LARGEST_HEAD}")
    return head_dim


def check_heads(fields: Fields, heads: int, kv_heads: int, key: str) -> None:
    """Every key/value head serves the same number of query heads."""
    if heads % kv_heads:
        raise InvalidFormat(f"{fields.where}: {fields.prefix}{key} {kv_heads} does not divide {heads} heads")


def find_family(fields: Fields) -> HuggingFaceFamily:
    """The family that model_type names, or architectures where there is none. A class that is not known is told, since
    it may compute something else; one that does not write texts is refused."""
    classes = fields.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise fields.wrong("architectures", "a list of names")
    known = {name.casefold(): kind for kind, f in HUGGING_FACE_FAMILIES.items() for name in f.classes}
    found = [known[name.casefold()] for name in classes if name.casefold() in known]
    kind = fields.text("model_type") if "model_type" in fields or not classes else next(iter(found), "")
    writes_on = any(name.endswith("ForCausalLM") for name in classes)
    if classes and not found and not (writes_on and kind in HUGGING_FACE_FAMILIES):
        raise fields.refused("architectures", [f.causal_class for f in HUGGING_FACE_FAMILIES.values()])
    if kind not in HUGGING_FACE_FAMILIES:
        raise fields.refused("model_type", HUGGING_FACE_FAMILIES)
    family = HUGGING_FACE_FAMILIES[kind]
    if classes and kind not in found:
        named = ", ".join(map(quoted, classes[:3]))
        warn(f"{fields.where}: architectures names {named}; it is run as {family.causal_class}, as model_type says")
    return family


def _neutral(family: HuggingFaceFamily) -> Neutral:
    return {key: values for key, values in CONFIG_NEUTRAL.items() if key not in family.bias_flags}


def _window(fields: Fields, family: HuggingFaceFamily, layers: int) -> int | None:
    """Positions a query sees, or None for all of them. An absent key takes the family's default, null means none."""
    kinds = set(_layer_types(fields, layers))
    if kinds == {"full_attention"}:
        return None
    window = family.sliding_window
    if "sliding_window" in fields.values:
        window = fields.optional_integer("sliding_window", low=1)
    if window is not None and not family.has_window:  # transformers ignores it in this family, others do not
        raise Unsupported(f"{fields.refused('sliding_window')} in this family; null says that there is none")
    if window is not None and not fields.flag("use_sliding_window", True):  # likewise
        raise Unsupported(
            f"{fields.refused('use_sliding_window')} beside a window; sliding_window null says that there is none"
        )
    if window is None and kinds:
        raise InvalidFormat(f"{fields.where}: layer_types asks for sliding_attention, but there is no sliding_window")
    return window


def _layer_types(fields: Fields, layers: int) -> list[str]:
    kinds = fields.get("layer_types")
    if kinds is None:
        return []
    if not isinstance(kinds, list) or not all(isinstance(kind, str) for kind in kinds) or len(kinds) != layers:
        raise fields.wrong("layer_types", f"a list of names, one for each of {layers} layers")
    if len(set(kinds)) > 1 or not set(kinds) <= {"full_attention", "sliding_attention"}:
        raise fields.refused("layer_types", ["all full_attention", "all sliding_attention"])
    return kinds

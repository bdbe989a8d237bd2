"""config.json of Hugging Face transformers as a `ModelConfig`.

Owns: the family that a file names, the default values of its class, and sizes. Refuses to know: tensors, keys that are
ignored (`known_keys`), rotary parameters (`rope_json`).
Specs: LOAD-20 to LOAD-26, LOAD-29, LOAD-85. Source: transformers' configuration classes. Next: `ferrum.load.text_part`.
"""

from __future__ import annotations

import os
from dataclasses import replace
from pathlib import Path
from typing import Any

from ferrum.config import ExpertsConfig, LayerKind, ModelConfig, RopeScaling
from ferrum.errors import InvalidFormat, quoted, warn
from ferrum.fields import Fields, read_json
from ferrum.load.families import HUGGING_FACE_FAMILIES
from ferrum.load.families_encoders import ENCODER_FAMILIES
from ferrum.load.family import COUNTS, HuggingFaceFamily
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
from ferrum.load.layer_rules import rotating, sliding_layers, sliding_window
from ferrum.load.layout import Description
from ferrum.load.limits import LARGEST_POSITION, check_heads, depth, epsilon, head_dimension, numbers, positions
from ferrum.load.rope_json import Ropes, parse_ropes
from ferrum.load.token_ids import NO_IDS, TokenIds

ACTIVATION_NAMES = {
    "silu": "silu",
    "swish": "silu",
    "gelu": "gelu",
    "gelu_python": "gelu",
    "gelu_new": "gelu_tanh",
    "gelu_fast": "gelu_tanh",
    "gelu_pytorch_tanh": "gelu_tanh",
    "quick_gelu": "quick_gelu",
    "relu": "relu",
}
"""Activations: the names of transformers, and ours."""


FAMILIES = {**HUGGING_FACE_FAMILIES, **ENCODER_FAMILIES}


def config_fields(folder: Path) -> Fields:
    """The values of config.json as they are. null is allowed for some keys only."""
    fields = read_json(folder / "config.json")
    return Fields(fields.values, fields.where, null_is_absent=False)


def generation_fields(folder: Path) -> Fields:
    """The values of generation_config.json; empty if the file is missing, or cannot be read, which is logged as a
    warning."""
    path = folder / "generation_config.json"
    try:
        fields = read_json(path) if os.path.lexists(path) else Fields({}, str(path))
    except InvalidFormat as error:
        if not os.path.isfile(path):  # a pipe or a device, not a file that was edited
            raise
        warn(f"ignored: {error}")
        fields = Fields({}, str(path))
    check_keys(fields, GENERATION_READ, {}, GENERATION_HARMLESS)
    check_requests(fields)
    return fields


def describe(fields: Fields, ids: TokenIds) -> Description:
    """The keys of config.json -> a description of what the model computes. Raises `InvalidFormat` or `Unsupported`,
    with the key."""
    family = find_family(fields)
    config = parse_config(fields, family, ids)
    flagged = (linears for key, (default, linears) in family.bias_flags.items() if fields.flag(key, default))
    missing = (parts for key, parts in family.part_flags.items() if not fields.flag(key, False))
    layout = family.layout.without({part for parts in missing for part in parts})
    return Description(config, layout, frozenset([*family.biases, *(name for linears in flagged for name in linears)]))


def architecture(fields: Fields) -> str | None:
    """The name of the architecture in config.json, supported or not; None if it is missing."""
    value = fields.get("model_type")
    return value if isinstance(value, str) else None


def parse_config(fields: Fields, family: HuggingFaceFamily, ids: TokenIds = NO_IDS) -> ModelConfig:
    """The keys of config.json -> ModelConfig."""
    check_keys(fields, CONFIG_READ | family.keys, _neutral(family), CONFIG_HARMLESS | family.harmless)
    check_requests(fields)
    sizes = _Sizes(fields, family)
    heads, layers = (
        sizes.integer("num_attention_heads"),
        depth(fields, family.word("num_hidden_layers"), family.defaults.get("num_hidden_layers")),
    )
    hidden = sizes.integer("hidden_size")
    head_dim = sizes.head_dim(hidden, heads)
    max_positions = sizes.max_positions()
    kv_heads = family.constants.get("kv_heads") or sizes.kv_heads(heads)
    check_heads(fields, heads, kv_heads, family.word("num_key_value_heads"))
    scales = numbers(fields, family.numbers)
    options: dict[str, Any] = {"hidden_activation": sizes.activation(), **scales, **family.constants}
    if "rope" not in options:
        options |= _layers(fields, family, layers, sizes.rope(head_dim, max_positions))
    rope = options["rope"]
    if rope is not None and rope.scaling is RopeScaling.DYNAMIC:
        max_positions = min(int(rope.factor * max_positions), LARGEST_POSITION)
    return ModelConfig(
        architecture=family.name,
        vocab_size=sizes.integer("vocab_size"),
        hidden_size=hidden,
        intermediate_size=sizes.intermediate(hidden),
        layers=layers,
        heads=heads,
        head_dim=head_dim,
        max_positions=max_positions,
        norm_epsilon=sizes.epsilon(),
        tie_embeddings=sizes.flag("tie_word_embeddings"),
        experts=_experts(fields, family),
        eos_token_ids=ids.eos_token_ids,
        bos_token_id=ids.bos_token_id,
        **{"kv_heads": kv_heads, **options},
    )


class _Sizes:
    """The sizes of a model, asked for by Llama's names, whatever the family calls them."""

    def __init__(self, fields: Fields, family: HuggingFaceFamily) -> None:
        self.fields, self.family = fields, family

    def integer(self, word: str) -> int:
        return self.fields.integer(self.family.word(word), self.family.defaults.get(word))

    def flag(self, word: str) -> bool:
        return self.fields.flag(self.family.word(word), self.family.defaults.get(word, False))

    def head_dim(self, hidden: int, heads: int) -> int:
        default = self.family.defaults.get("head_dim")
        if default is not None and "head_dim" not in self.fields.values:
            return int(default)
        return head_dimension(self.fields, "head_dim", self.family.word("hidden_size"), hidden, heads)

    def kv_heads(self, heads: int) -> int:
        key = self.family.word("num_key_value_heads")
        default = None if key in self.fields.values else self.family.defaults.get("num_key_value_heads")
        return self.fields.optional_integer(key, low=1) or default or heads  # null means heads

    def intermediate(self, hidden: int) -> int:
        key, factor = self.family.word("intermediate_size"), self.family.intermediate_factor
        if factor:
            return self.fields.optional_integer(key, low=1) or factor * hidden
        return self.integer("intermediate_size")

    def max_positions(self) -> int:
        default = self.family.defaults.get("max_position_embeddings", 2048)
        key, first = self.family.word("max_position_embeddings"), self.family.layout.first_position
        rows = positions(self.fields, key, default)
        if rows <= first:
            raise self.fields.wrong(key, f"a number above {first}")
        return rows - first

    def epsilon(self) -> float:
        return epsilon(self.fields, self.family.word("rms_norm_eps"), self.family.defaults.get("rms_norm_eps", 1e-6))

    def activation(self) -> str:
        key = self.family.word("hidden_act")
        name = self.fields.text(key, self.family.defaults.get("hidden_act", "silu"))
        names = {**ACTIVATION_NAMES, **self.family.activations}
        if name not in names:
            raise self.fields.refused(key, names)
        return names[name]

    def rope(self, head_dim: int, max_positions: int) -> Ropes:
        return parse_ropes(self.fields, self.family, head_dim, max_positions)


def _layers(fields: Fields, family: HuggingFaceFamily, layers: int, ropes: Ropes) -> dict[str, Any]:
    """The fields of `ModelConfig` about kinds of layers: one value if all layers are alike, else one for each."""
    rules = family.rules
    window = sliding_window(fields, rules)
    slides = sliding_layers(fields, rules, layers, window)
    turns = [True] * layers if rules is None else rotating(fields, rules, slides)
    sparse = [family.experts is not None and (rules is None or rules.sparse(fields, layer)) for layer in range(layers)]
    kinds = tuple(
        LayerKind((ropes.sliding if slide else ropes.full) if turn else None, window if slide else None, has_experts)
        for slide, turn, has_experts in zip(slides, turns, sparse, strict=True)
    )
    if len(set(kinds)) > 1 or kinds[0].sparse != (family.experts is not None):
        return {"rope": ropes.full, "layer_kinds": kinds}
    return {"rope": kinds[0].rope, "sliding_window": kinds[0].window}


def _experts(fields: Fields, family: HuggingFaceFamily) -> ExpertsConfig | None:
    keys = family.experts
    if keys is None:
        return None
    count_keys = [key for key in COUNTS if key in fields] or [COUNTS[0]]
    count, chosen = fields.integer(count_keys[0]), fields.integer("num_experts_per_tok")
    if fields.integer(count_keys[-1]) != count:
        raise InvalidFormat(
            f"{fields.where}: {count_keys[0]} is {count}, but {count_keys[-1]} is {fields.get(count_keys[-1])}"
        )
    if chosen > count:
        raise InvalidFormat(f"{fields.where}: num_experts_per_tok is {chosen}, but there are {count} experts")
    shared = 0 if keys.shared_size is None else fields.optional_integer(keys.shared_size) or 0
    normalised = fields.flag(keys.normalised, False) if isinstance(keys.normalised, str) else keys.normalised
    return ExpertsConfig(
        count, chosen, fields.integer(keys.size), normalised, shared, shared > 0 and keys.shared_weight
    )


def find_family(fields: Fields) -> HuggingFaceFamily:
    """The family that model_type names, or else the one that architectures names. If architectures has no class of this
    family, a warning says so, since the class may compute something else; if it has no class of any family and none
    called …ForCausalLM, the file is refused."""
    classes = fields.get("architectures") or []
    if not isinstance(classes, list) or not all(isinstance(name, str) for name in classes):
        raise fields.wrong("architectures", "a list of names")
    kinds = {name.casefold(): kind for kind, f in FAMILIES.items() for name in f.classes}
    matches = [kinds[name.casefold()] for name in classes if name.casefold() in kinds]
    kind = fields.text("model_type") if "model_type" in fields or not classes else next(iter(matches), "")
    matches = [each for each in matches if (each in ENCODER_FAMILIES) == (kind in ENCODER_FAMILIES)]
    writes_on = any(name.endswith("ForCausalLM") for name in classes)
    if classes and not matches and not (writes_on and kind in HUGGING_FACE_FAMILIES):
        raise fields.refused("architectures", [f.causal_class for f in FAMILIES.values()])
    if kind not in FAMILIES:
        raise fields.refused("model_type", FAMILIES)
    family = FAMILIES[kind]
    if classes and kind not in matches:
        names = ", ".join(map(quoted, classes[:3]))
        warn(f"{fields.where}: architectures names {names}; it is run as {family.causal_class}, as model_type says")
    return _variant(fields, family)


def _neutral(family: HuggingFaceFamily) -> Neutral:
    neutral = {key: values for key, values in CONFIG_NEUTRAL.items() if key not in family.keys | family.harmless}
    return {**neutral, **family.neutral}


def _variant(fields: Fields, family: HuggingFaceFamily) -> HuggingFaceFamily:
    """The row of the family that this file follows: a key may select another one."""
    for key, value, variant in family.variants:
        if fields.get(key) == value:
            return _variant(fields, replace(variant, harmless=variant.harmless | family.harmless | {key}))
    return family

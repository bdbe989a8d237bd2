"""GGUF metadata as a `ModelConfig`.

Owns: the metadata keys of a language model, and facts that GGUF states by the presence of tensors: a tied head
(no `output.weight`), the vocabulary (rows of `token_embd.weight`), llama3 RoPE scaling (`rope_freqs.weight`).
Refuses to know: how the file is read.
Specs: LOAD-22, LOAD-24 to LOAD-29. Source: the GGUF format document, section on standardised keys; llama.cpp's
`llama-model.cpp`. Next: `ferrum.load.families_gguf`.
"""

from __future__ import annotations

from dataclasses import replace

import numpy as np

from ferrum.config import ModelConfig, RopeConfig, RopeScaling
from ferrum.errors import ModelError, Unsupported
from ferrum.fields import Fields
from ferrum.load.config_json import check_heads, head_dimension
from ferrum.load.families import Description
from ferrum.load.families_gguf import GGUF_FAMILIES, GGUFFamily
from ferrum.load.gguf import GGUFFile
from ferrum.load.known_keys import (
    GGUF_FOREIGN,
    GGUF_HARMLESS,
    GGUF_NEUTRAL,
    GGUF_OTHER_TYPES,
    GGUF_READ,
    check_keys,
    is_neutral,
)
from ferrum.load.limits import checked_rope, epsilon, positions
from ferrum.load.quants import floats_of
from ferrum.load.token_ids import TokenIds, gguf_token_ids


def token_ids(file: GGUFFile) -> TokenIds:
    """The ids that begin and end a text."""
    return gguf_token_ids(Fields(file.metadata, str(file.path)))


def architecture(file: GGUFFile) -> str | None:
    """What the file calls the architecture, whether it is supported or not."""
    value = file.metadata.get("general.architecture")
    return value if isinstance(value, str) else None


def describe(file: GGUFFile, ids: TokenIds) -> Description:
    """Metadata and tensor table -> what is computed. Raises `InvalidFormat`, `ModelError` or `Unsupported`, naming the
    key."""
    fields = Fields(file.metadata, str(file.path))
    family = _family(fields)
    model = Fields(file.metadata, fields.where, family.name + ".")
    check_keys(model, GGUF_READ, GGUF_NEUTRAL, GGUF_HARMLESS)
    heads, hidden = model.integer("attention.head_count"), model.integer("embedding_length")
    head_dim = head_dimension(model, "attention.key_length", "embedding_length", hidden, heads)
    if model.integer("attention.value_length", head_dim) != head_dim:
        raise Unsupported(f"{fields.where}: value heads wider or narrower than key heads are not supported")
    kv_heads = model.integer("attention.head_count_kv", heads)
    check_heads(model, heads, kv_heads, "attention.head_count_kv")
    config = ModelConfig(
        architecture=family.name,
        vocab_size=_vocabulary(file, family),
        hidden_size=hidden,
        intermediate_size=model.integer("feed_forward_length"),
        layers=model.integer("block_count"),
        heads=heads,
        kv_heads=kv_heads,
        head_dim=head_dim,
        max_positions=positions(model, "context_length"),
        norm_epsilon=epsilon(model, "attention.layer_norm_rms_epsilon"),
        rope=_rope(file, model, head_dim),
        sliding_window=model.optional_integer("attention.sliding_window") or None,  # 0 says none as well
        tie_embeddings=f"{family.layout.head}.weight" not in file.tensors,
        eos_token_ids=ids.eos_token_ids,
        bos_token_id=ids.bos_token_id,
    )
    return Description(config, family.layout, None)


def _family(fields: Fields) -> GGUFFamily:
    architecture = fields.text("general.architecture")
    if architecture not in GGUF_FAMILIES:
        raise fields.refused("general.architecture", GGUF_FAMILIES)
    if str(fields.get("general.type")) in GGUF_OTHER_TYPES:
        raise fields.refused("general.type", ["model"])
    for key in fields.values:
        if key.startswith(GGUF_FOREIGN) and not is_neutral(fields.get(key), (0, "", False)):
            raise fields.refused(key)
    return GGUF_FAMILIES[architecture]


def _vocabulary(file: GGUFFile, family: GGUFFamily) -> int:
    name = f"{family.layout.embedding}.weight"
    if name not in file.tensors:
        raise ModelError(f"{file.path}: tensor {name} is missing")
    return file.tensors[name].shape[0]


def _rope(file: GGUFFile, model: Fields, head_dim: int) -> RopeConfig:
    rotary_dim = model.integer("rope.dimension_count", head_dim)
    if rotary_dim != head_dim:
        raise model.refused("rope.dimension_count", [f"{head_dim}, the width of a head"])
    kind = model.text("rope.scaling.type", "linear")
    if kind not in ("none", "linear", "yarn"):
        raise model.refused("rope.scaling.type", ["none", "linear", "yarn"])
    plain = RopeConfig(model.number("rope.freq_base", 10000.0), rotary_dim)
    keys = {field: model.prefix + key for field, key in _ROPE_KEYS.items()}
    return checked_rope(_scaled_rope(file, model, plain, kind), model.where, {**keys, "factors": _FACTORS})


_FACTORS = "rope_freqs.weight"
_ROPE_KEYS = {
    "theta": "rope.freq_base",
    "factor": "rope.scaling.factor",
    "original_max_positions": "rope.scaling.original_context_length",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
}
"""What the file calls the fields of `RopeConfig`."""


def _scaled_rope(file: GGUFFile, model: Fields, plain: RopeConfig, kind: str) -> RopeConfig:
    factor = 1.0 if kind == "none" else _stretch(model)
    if kind == "yarn" and _FACTORS in file.tensors:
        raise Unsupported(f"{file.path}: {_FACTORS} together with yarn scaling is not supported")
    if _FACTORS in file.tensors:
        return _rope_factors(file, plain, factor)
    if kind == "yarn":
        return _rope_yarn(model, replace(plain, scaling=RopeScaling.YARN, factor=factor))
    return plain if factor == 1 else replace(plain, scaling=RopeScaling.LINEAR, factor=factor)


def _stretch(model: Fields) -> float:
    """By what positions are divided; neither key, or 0, says that they are not."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in model else "rope.scale_linear"
    is_nought = isinstance(model.get(key), float) and not model.get(key)
    return 1.0 if key not in model or is_nought else model.number(key)


def _rope_factors(file: GGUFFile, plain: RopeConfig, factor: float) -> RopeConfig:
    """llama3 scaling, which the converter writes out as one divisor per frequency."""
    found, expected = file.tensors[_FACTORS].shape, (plain.rotary_dim // 2,)
    if found != expected:
        raise ModelError(f"{file.path}: tensor {_FACTORS} has shape {list(found)}, expected {list(expected)}")
    factors = factor * floats_of(file.tensors[_FACTORS]).astype(np.float64)
    return replace(plain, scaling=RopeScaling.FACTORS, factors=tuple(factors.tolist()))


def _rope_yarn(model: Fields, rope: RopeConfig) -> RopeConfig:
    context = model.integer("context_length")
    return replace(
        rope,
        original_max_positions=model.integer("rope.scaling.original_context_length", context, low=0) or context,
        beta_fast=model.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=model.number("rope.scaling.yarn_beta_slow", 1.0),
    )

"""GGUF metadata as a `ModelConfig`.

Owns: the metadata keys of a language model, and facts that a GGUF file states by the presence of tensors: a tied head
(no `output.weight`), the vocabulary (rows of `token_embd.weight`), parts that share a tensor. Refuses to know: how the
file is read; rotary keys (`rope_gguf`).
Specs: LOAD-22, LOAD-24 to LOAD-29, LOAD-130 to LOAD-136. Source: the GGUF format document, section on standardised
keys; llama.cpp's `llama-model.cpp`. Next: `ferrum.load.families_gguf`.
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ferrum.config import ExpertsConfig, LayerKind, ModelConfig, RopeConfig
from ferrum.errors import InvalidFormat, ModelError, Unsupported
from ferrum.fields import Fields
from ferrum.load.families_encoders import GGUF_ENCODERS
from ferrum.load.families_gguf import (
    CHOSEN,
    EXPERT_WIDTH,
    EXPERTS,
    GGUF_FAMILIES,
    LAYER_NORM_EPSILON,
    PATTERN,
    RMS_NORM_EPSILON,
    SHARED_WIDTH,
    WINDOW,
    GGUFFamily,
)
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
from ferrum.load.layout import Description, Layout
from ferrum.load.limits import check_heads, depth, epsilon, head_dimension, numbers, positions
from ferrum.load.pooling import gguf_pooling
from ferrum.load.rope_gguf import read_rope, rope_of_windows
from ferrum.load.token_ids import TokenIds, gguf_token_ids

FAMILIES = {**GGUF_FAMILIES, **GGUF_ENCODERS}


def token_ids(file: GGUFFile) -> TokenIds:
    """The ids that begin and end a text."""
    return gguf_token_ids(Fields(file.metadata, str(file.path)))


def architecture(file: GGUFFile) -> str | None:
    """The name of the architecture in the file, supported or not; None if it is missing."""
    value = file.metadata.get("general.architecture")
    return value if isinstance(value, str) else None


def describe(file: GGUFFile, ids: TokenIds) -> Description:
    """Metadata and tensor table -> a description of what the model computes. Raises `InvalidFormat`, `ModelError` or
    `Unsupported`, with the key."""
    fields = Fields(file.metadata, str(file.path))
    name, family = _family(fields)
    model = Fields(file.metadata, fields.where, name + ".")
    read_keys = GGUF_READ | family.read_keys
    neutral = {key: values for key, values in GGUF_NEUTRAL.items() if key not in read_keys}
    check_keys(model, read_keys, {**neutral, **family.neutral}, GGUF_HARMLESS)
    layout = family.fitted(file.tensors)
    sizes = _sizes(model)
    rope = None if layout.positions else read_rope(file, model, family, sizes["head_dim"])
    experts = _experts(model, family)
    options: dict[str, Any] = {"parallel": _is_parallel(model, family, layout), **family.always}
    options |= _scales(model, family, sizes) | _layers(model, family, sizes["layers"], rope, experts is not None)
    config = ModelConfig(
        architecture=name,
        vocab_size=_vocabulary(file, layout),
        **sizes,
        max_positions=positions(model, "context_length"),
        norm_epsilon=epsilon(model, LAYER_NORM_EPSILON if options.get("layer_norm") else RMS_NORM_EPSILON),
        **options,
        experts=experts,
        tie_embeddings=f"{layout.head}.weight" not in file.tensors,
        pooling=gguf_pooling(model),
        eos_token_ids=ids.eos_token_ids,
        bos_token_id=ids.bos_token_id,
    )
    return Description(config, layout, None)


def _family(fields: Fields) -> tuple[str, GGUFFamily]:
    architecture = fields.text("general.architecture")
    if architecture not in FAMILIES:
        raise fields.refused("general.architecture", FAMILIES)
    if str(fields.get("general.type")) in GGUF_OTHER_TYPES:
        raise fields.refused("general.type", ["model"])
    for key in fields.values:
        if key.startswith(GGUF_FOREIGN) and not is_neutral(fields.get(key), (0, "", False)):
            raise fields.refused(key)
    return architecture, FAMILIES[architecture]


def _vocabulary(file: GGUFFile, layout: Layout) -> int:
    name = f"{layout.embedding}.weight"
    if name not in file.tensors:
        raise ModelError(f"{file.path}: tensor {name} is missing")
    return file.tensors[name].shape[0]


def _sizes(model: Fields) -> dict[str, Any]:
    heads, hidden = model.integer("attention.head_count"), model.integer("embedding_length")
    head_dim = head_dimension(model, "attention.key_length", "embedding_length", hidden, heads)
    if model.integer("attention.value_length", head_dim) != head_dim:
        raise Unsupported(f"{model.where}: value heads wider or narrower than key heads are not supported")
    kv_heads = model.integer("attention.head_count_kv", heads)
    check_heads(model, heads, kv_heads, "attention.head_count_kv")
    middle, layers = model.integer("feed_forward_length"), depth(model, "block_count")
    return {
        "hidden_size": hidden, "intermediate_size": middle, "layers": layers, "heads": heads, "kv_heads": kv_heads,
        "head_dim": head_dim,
    }  # fmt: skip


def _experts(model: Fields, family: GGUFFamily) -> ExpertsConfig | None:
    if family.normalised is None or not model.integer(EXPERTS, 0, low=0):
        for key in (CHOSEN, SHARED_WIDTH):
            if not is_neutral(model.get(key), (0,)):
                raise model.refused(key, ["0, as there is no expert_count"])
        return None
    count, chosen = model.integer(EXPERTS), model.integer(CHOSEN)
    if chosen > count:
        raise InvalidFormat(f"{model.where}: {model.prefix}{CHOSEN} {chosen} is above {count} experts")
    if not is_neutral(model.get("expert_gating_func"), (0, 1, 3) if family.normalised else (0, 1)):
        raise model.refused("expert_gating_func", ["1, a softmax"])  # 3: over the chosen ones
    middle = model.integer("feed_forward_length")
    shared = model.integer(SHARED_WIDTH, middle if family.shared_weight else 0, low=0)
    width = model.optional_integer(EXPERT_WIDTH) or middle
    return ExpertsConfig(count, chosen, width, family.normalised, shared, shared > 0 and family.shared_weight)


def _layers(model: Fields, family: GGUFFamily, layers: int, rope: RopeConfig | None, sparse: bool) -> dict[str, Any]:
    """The fields of `ModelConfig` for rotary embedding and windows: one value for all layers, or one for each."""
    kinds, window = family.kinds, None
    if kinds.has_window:
        window = (model.integer(WINDOW, low=0) if WINDOW in model else kinds.window) or None  # 0 means none, too
    if not kinds.period or rope is None:
        return {"rope": rope, "sliding_window": window}
    local = rope if window is None else rope_of_windows(model, family, rope)
    last = LayerKind(rope if kinds.last_turns else None, None, sparse)
    sliding = LayerKind(local, window, sparse)
    layer_kinds = tuple(sliding if each else last for each in _windowed(model, family, layers))
    if len(set(layer_kinds)) > 1:
        return {"rope": rope, "layer_kinds": layer_kinds}
    return {"rope": layer_kinds[0].rope, "sliding_window": layer_kinds[0].window}


def _windowed(model: Fields, family: GGUFFamily, layers: int) -> list[bool]:
    """For each layer, whether it has a window: as the file lists it, or all but the last layer of each period."""
    value = model.get(PATTERN) if family.kinds.has_window else None
    if isinstance(value, np.ndarray):
        if value.shape != (layers,) or not set(value.tolist()) <= {0, 1}:
            raise model.wrong(PATTERN, f"true or false for each of {layers} layers")
        return [bool(each) for each in value]
    period = family.kinds.period if value is None else model.integer(PATTERN, low=0)
    return [not period or number % period < period - 1 for number in range(layers)]


def _scales(model: Fields, family: GGUFFamily, sizes: dict[str, int]) -> dict[str, float]:
    """The factors and caps of scores, embeddings, residuals and logits. 0 in the file means none."""
    scales = numbers(model, family.numbers, none=(0,))
    if sizes["layers"] == family.wide_at:
        scales["attention_scale"] = (sizes["hidden_size"] // sizes["heads"]) ** -0.5
    return scales


def _is_parallel(model: Fields, family: GGUFFamily, layout: Layout) -> bool:
    """True if attention and MLP read the same x. They do if one norm serves both."""
    if family.parallel_key:
        return model.flag(family.parallel_key, True)
    norm = layout.layer.get("attention_norm")
    return norm is not None and norm == layout.layer.get("mlp_norm")

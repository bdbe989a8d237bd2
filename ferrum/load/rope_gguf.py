"""The rotary metadata of a GGUF file as `RopeConfig`s.

Owns: the kinds of scaling, which metadata or tensors of divisors show, and llama.cpp's factor of cosine and sine.
Refuses to know: the rest of the file; what is computed with them (`ferrum.model.rope`).
Specs: LOAD-27 to LOAD-29, LOAD-133, LOAD-134. Source: llama.cpp's `llama-model.cpp` and `llama-context.cpp`.
Next: `ferrum.load.gguf`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np

from ferrum.config import RopeConfig, RopeScaling
from ferrum.errors import ModelError, Unsupported
from ferrum.fields import Fields
from ferrum.load.families_gguf import QUERY_GROWTH, WINDOW_BASE, YARN_DIVISOR, GGUFFamily
from ferrum.load.gguf import GGUFFile
from ferrum.load.known_keys import is_neutral
from ferrum.load.limits import checked_rope
from ferrum.load.quants import floats_of

DIVISORS, LONG, SHORT = "rope_freqs.weight", "rope_factors_long.weight", "rope_factors_short.weight"
ATTENTION, YARN_ATTENTION = "rope.scaling.attn_factor", "rope.scaling.yarn_attn_factor"
_KINDS = ("none", "linear", "yarn", "longrope")
_KEYS = {
    "theta": "rope.freq_base",
    "factor": "rope.scaling.factor",
    "original_max_positions": "rope.scaling.original_context_length",
    "beta_fast": "rope.scaling.yarn_beta_fast",
    "beta_slow": "rope.scaling.yarn_beta_slow",
    "attention_factor": ATTENTION,
    "query_growth": QUERY_GROWTH,
}
"""The file's names of the fields of `RopeConfig`."""


def read_rope(file: GGUFFile, model: Fields, family: GGUFFamily, head_dim: int) -> RopeConfig:
    """The rotary embedding of layers without a window."""
    rotary_dim = model.integer("rope.dimension_count", head_dim)
    if rotary_dim != head_dim and not family.partial:
        raise model.refused("rope.dimension_count", [f"{head_dim}, the width of a head"])
    if rotary_dim % 2 or rotary_dim > head_dim:
        raise model.wrong("rope.dimension_count", f"even and at most {head_dim}, the width of a head")
    kind = model.text("rope.scaling.type", "linear")
    if kind not in _KINDS:
        raise model.refused("rope.scaling.type", _KINDS)
    plain = RopeConfig(model.number("rope.freq_base", 10000.0), rotary_dim)
    rope = _scaled(file, model, family, plain, kind)
    _check_attention(model, _mscale(rope.factor) if rope.scaling is RopeScaling.YARN else 1.0)
    if QUERY_GROWTH in family.rope_keys and not is_neutral(model.get(QUERY_GROWTH), (0,)):
        rope = replace(rope, query_growth=model.number(QUERY_GROWTH), original_max_positions=_original(model))
    keys = {field: model.prefix + key for field, key in _KEYS.items()}
    return checked_rope(rope, model.where, {**keys, "factors": _tensor(file)})


def _check_attention(model: Fields, usual: float) -> None:
    """Checks a key that llama.cpp ignores: the converter writes there what the model's authors use."""
    factor = model.get(YARN_ATTENTION)
    is_usual = isinstance(factor, float) and math.isclose(factor, usual, rel_tol=1e-6)
    if not is_usual and not is_neutral(factor, (1, -1)):
        raise model.refused(YARN_ATTENTION, [f"{usual:.6g}"])


def rope_of_windows(model: Fields, family: GGUFFamily, rope: RopeConfig) -> RopeConfig:
    """The rotary embedding of layers with a window, in a model whose other layers have `rope`."""
    base = model.number(WINDOW_BASE, family.kinds.base or rope.theta)
    local = replace(rope, theta=base) if family.kinds.scaled else RopeConfig(base, rope.rotary_dim)
    return checked_rope(local, model.where, {"theta": model.prefix + WINDOW_BASE})


def _scaled(file: GGUFFile, model: Fields, family: GGUFFamily, plain: RopeConfig, kind: str) -> RopeConfig:
    factor, tensor = 1.0 if kind == "none" else _stretch(model), _tensor(file)
    if tensor in file.tensors and kind == "yarn":
        raise Unsupported(f"{file.path}: {tensor} together with yarn scaling is not supported")
    if tensor == LONG and DIVISORS in file.tensors:
        raise Unsupported(f"{file.path}: {LONG} and {SHORT} together with {DIVISORS} are not supported")
    if kind == "yarn":
        return _yarn(model, family, replace(plain, scaling=RopeScaling.YARN, factor=factor))
    if kind == "longrope" or tensor == LONG:
        return _longrope(file, model, plain, factor)
    if model.number(ATTENTION, 1.0) != 1:
        raise model.refused(ATTENTION, ["1"])
    if tensor in file.tensors:
        return replace(plain, scaling=RopeScaling.FACTORS, factors=_divisors(file, DIVISORS, plain, factor))
    return plain if factor == 1 else replace(plain, scaling=RopeScaling.LINEAR, factor=factor)


def _tensor(file: GGUFFile) -> str:
    """The name of the tensor of divisors that a file has, or should have."""
    return LONG if LONG in file.tensors or SHORT in file.tensors else DIVISORS


def _stretch(model: Fields) -> float:
    """The factor by which positions are divided; 1 if neither key is there, or it is 0."""
    key = "rope.scaling.factor" if "rope.scaling.factor" in model else "rope.scale_linear"
    is_nought = isinstance(model.get(key), float) and not model.get(key)
    return 1.0 if key not in model or is_nought else model.number(key)


def _divisors(file: GGUFFile, name: str, plain: RopeConfig, factor: float) -> tuple[float, ...]:
    """One divisor for each frequency. The converter writes llama3 scaling in this form."""
    if name not in file.tensors:
        raise ModelError(f"{file.path}: tensor {name} is missing")
    shape, expected = file.tensors[name].shape, (plain.rotary_dim // 2,)
    if shape != expected:
        raise ModelError(f"{file.path}: tensor {name} has shape {list(shape)}, expected {list(expected)}")
    numbers = factor * floats_of(file.tensors[name]).astype(np.float64)
    return tuple(numbers.tolist())


def _original(model: Fields) -> int:
    context = model.integer("context_length")
    return model.integer("rope.scaling.original_context_length", context, low=0) or context


def _longrope(file: GGUFFile, model: Fields, plain: RopeConfig, factor: float) -> RopeConfig:
    return replace(
        plain,
        scaling=RopeScaling.LONGROPE,
        original_max_positions=_original(model),
        factors=_divisors(file, SHORT, plain, factor),
        long_factors=_divisors(file, LONG, plain, factor),
        attention_factor=model.number(ATTENTION, 1.0),
    )


def _yarn(model: Fields, family: GGUFFamily, rope: RopeConfig) -> RopeConfig:
    multiplied, usual = model.number(ATTENTION, 1.0), _mscale(rope.factor)
    divided = YARN_DIVISOR in family.rope_keys and not is_neutral(model.get(YARN_DIVISOR), (0,))
    attention = usual / _mscale(rope.factor, model.number(YARN_DIVISOR)) if divided else usual
    return replace(
        rope,
        original_max_positions=_original(model),
        beta_fast=model.number("rope.scaling.yarn_beta_fast", 32.0),
        beta_slow=model.number("rope.scaling.yarn_beta_slow", 1.0),
        attention_factor=multiplied * attention if divided or multiplied != 1 else None,
    )


def _mscale(factor: float, multiplier: float = 1.0) -> float:
    return 1.0 if factor <= 1 else 0.1 * multiplier * math.log(factor) + 1

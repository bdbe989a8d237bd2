"""The rotary parameters of config.json as a `RopeConfig`.

Owns: both dialects (rope_theta + rope_scaling, and transformers 5's rope_parameters), and which place counts where a
number is given in two. Refuses to know: the rest of the file; what is computed with them (`ferrum.model.rope`).
Specs: LOAD-20, LOAD-22, LOAD-29, LOAD-84. Source: transformers' `modeling_rope_utils`. Next: `ferrum.load.config_json`.
"""

from __future__ import annotations

import math
from dataclasses import dataclass

from ferrum.config import RopeConfig, RopeScaling
from ferrum.errors import Unsupported
from ferrum.fields import Fields
from ferrum.load.known_keys import ROPE_HARMLESS, ROPE_NEUTRAL, ROPE_READ, check_keys
from ferrum.load.limits import checked_rope

ORIGINAL = "original_max_position_embeddings"
PARTIAL = "partial_rotary_factor"


@dataclass(frozen=True)
class _Place:
    """`rope` is the object with the parameters, `top` the whole file, in which some may stand as well."""

    rope: Fields
    top: Fields
    plain: RopeConfig
    max_positions: int

    def original(self) -> int:
        """The context before it was stretched. At the top of the file it goes before the one in the object."""
        for place in (self.top, self.rope):
            if ORIGINAL in place.values:
                return place.length(ORIGINAL)
        return self.max_positions


def parse_rope(fields: Fields, head_dim: int, max_positions: int) -> RopeConfig:
    """The rotary parameters of config.json. Raises `InvalidFormat` or `Unsupported`, naming the key."""
    rope = _rope_object(fields)
    if any(isinstance(value, dict) for value in rope.values.values()):
        raise Unsupported(f"{rope.where}: parameters that differ between kinds of layers are not supported")
    for part in (fields.optional_number(PARTIAL), rope.number(PARTIAL, 1.0)):  # null says nothing at the top only
        if part not in (None, 1.0):
            raise Unsupported(f"{fields.where}: {PARTIAL} {part:g} is not supported; supported: 1")
    named = "rope_type" if "rope_type" in rope.values else "type"
    kind = rope.text(named, "default")
    if kind not in _SCALINGS:
        raise rope.refused(named, _SCALINGS)
    check_keys(rope, ROPE_READ[kind], ROPE_NEUTRAL, ROPE_HARMLESS, f"which {named} {kind} does not use")
    place_of_theta = rope if "rope_theta" in rope.values else fields
    plain = RopeConfig(place_of_theta.number("rope_theta", 10000.0), head_dim)
    scaled = _SCALINGS[kind](_Place(rope, fields, plain, max_positions))
    return checked_rope(scaled, fields.where, _key_names(rope))


def _rope_object(fields: Fields) -> Fields:
    """rope_scaling, if it says anything, stands in place of rope_parameters: who lengthens a context adds it to a file
    that has the other."""
    empty = Fields({}, f"{fields.where}: rope_parameters", null_is_absent=False)
    parameters = fields.inner("rope_parameters") if "rope_parameters" in fields else empty
    return fields.inner("rope_scaling") if fields.get("rope_scaling") else parameters


def _key_names(rope: Fields) -> dict[str, str]:
    """What the file calls the fields of `RopeConfig`."""
    own = {field: field for field in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")}
    own["original_max_positions"] = ORIGINAL
    own["attention_factor"] = "attention_factor" if "attention_factor" in rope else "mscale"
    return {"theta": "rope_theta", **own}


def _default(place: _Place) -> RopeConfig:
    return place.plain


def _linear(place: _Place) -> RopeConfig:
    return RopeConfig(place.plain.theta, place.plain.rotary_dim, RopeScaling.LINEAR, place.rope.number("factor"))


def _llama3(place: _Place) -> RopeConfig:
    return RopeConfig(
        place.plain.theta,
        place.plain.rotary_dim,
        RopeScaling.LLAMA3,
        place.rope.number("factor"),
        original_max_positions=place.original(),
        low_freq_factor=place.rope.number("low_freq_factor"),
        high_freq_factor=place.rope.number("high_freq_factor"),
    )


def _yarn(place: _Place) -> RopeConfig:
    rope, original = place.rope, place.original()
    says_null = "factor" in rope.values and "factor" not in rope
    factor = place.max_positions / original if says_null else rope.number("factor")
    return RopeConfig(
        place.plain.theta,
        place.plain.rotary_dim,
        RopeScaling.YARN,
        factor,
        original_max_positions=original,
        beta_fast=rope.optional_number("beta_fast") or 32.0,
        beta_slow=rope.optional_number("beta_slow") or 1.0,
        attention_factor=_yarn_attention(rope, factor),
        truncate="truncate" not in rope.values or ("truncate" in rope and rope.flag("truncate", True)),
    )


def _yarn_attention(rope: Fields, factor: float) -> float | None:
    """attention_factor, or the ratio that mscale and mscale_all_dim stand for, or None for the paper's default."""
    if "attention_factor" in rope or not rope.get("mscale") or not rope.get("mscale_all_dim"):
        return rope.optional_number("attention_factor")
    scales = [0.1 * rope.number(key) * math.log(max(factor, 1.0)) + 1.0 for key in ("mscale", "mscale_all_dim")]
    return scales[0] / scales[1]


_SCALINGS = {"default": _default, "linear": _linear, "llama3": _llama3, "yarn": _yarn}

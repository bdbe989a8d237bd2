"""The rotary parameters of config.json as a `RopeConfig`.

Owns: both forms (rope_theta + rope_scaling, and transformers 5's rope_parameters), and which place is read if a number
stands in two. Refuses to know: the rest of the file; what is computed with them (`ferrum.model.rope`).
Specs: LOAD-20, LOAD-22, LOAD-29, LOAD-84. Source: transformers' `modeling_rope_utils`. Next: `ferrum.load.config_json`.
"""

from __future__ import annotations

import math
import sys
from dataclasses import dataclass, replace

from ferrum.config import RopeConfig, RopeScaling
from ferrum.errors import InvalidFormat, Unsupported
from ferrum.fields import Fields
from ferrum.load.family import HuggingFaceFamily
from ferrum.load.known_keys import ROPE_HARMLESS, ROPE_NEUTRAL, ROPE_READ, check_keys
from ferrum.load.layer_rules import FULL, SLIDING
from ferrum.load.limits import checked_rope

ORIGINAL = "original_max_position_embeddings"
PARTIAL = "partial_rotary_factor"


@dataclass(frozen=True)
class Ropes:
    """The rotary embedding of layers without a window, and of layers with one."""

    full: RopeConfig
    sliding: RopeConfig


@dataclass(frozen=True)
class _Place:
    """`rope` is the object with the parameters; `top` is the whole file, which may have some of them as well."""

    rope: Fields
    top: Fields
    plain: RopeConfig
    max_positions: int

    def original(self) -> int:
        """The original context, before it was extended. The number at the top of the file has priority over the one in
        the object."""
        for place in (self.top, self.rope):
            if ORIGINAL in place.values:
                return place.length(ORIGINAL)
        return self.max_positions

    def stretch(self) -> float:
        """`factor`, or, if it is null, the longest context divided by the original one."""
        says_null = "factor" in self.rope.values and "factor" not in self.rope
        return self.max_positions / self.original() if says_null else self.rope.number("factor")


def parse_ropes(fields: Fields, family: HuggingFaceFamily, head_dim: int, max_positions: int) -> Ropes:
    """The rotary parameters of config.json. Raises `InvalidFormat` or `Unsupported`, with the key."""
    rope, local = _rope_object(fields, family), None if family.rules is None else family.rules.local_theta
    kinds = {kind: value for kind, value in rope.values.items() if isinstance(value, dict)}
    if not kinds:
        full = _parse_rope(rope, fields, family, head_dim, max_positions)
        if local is None:
            return Ropes(full, full)
        theta = fields.number(*local) if local[0] in fields else family.defaults.get(local[0], local[1])
        plain = RopeConfig(theta, full.rotary_dim)
        return Ropes(full, checked_rope(plain, fields.where, {"theta": local[0]}))
    if set(kinds) != {FULL, SLIDING} or len(kinds) < len(rope.values) or local is None:
        raise Unsupported(f"{rope.where}: parameters that differ between these kinds of layers are not supported")
    full, sliding = (_parse_rope(rope.inner(kind), fields, family, head_dim, max_positions) for kind in (FULL, SLIDING))
    return Ropes(full, sliding)


def _parse_rope(
    rope: Fields, fields: Fields, family: HuggingFaceFamily, head_dim: int, max_positions: int
) -> RopeConfig:
    """One object of rotary parameters."""
    kind_key = "rope_type" if "rope_type" in rope.values else "type"
    kind = rope.text(kind_key, "default")
    if kind not in _SCALINGS:
        raise rope.refused(kind_key, _SCALINGS)
    neutral = {key: values for key, values in ROPE_NEUTRAL.items() if key not in ROPE_READ[kind]}
    check_keys(rope, ROPE_READ[kind], neutral, ROPE_HARMLESS, f"which {kind_key} {kind} does not use")
    theta_key = family.word("rope_theta")
    theta_place, key = (rope, "rope_theta") if "rope_theta" in rope.values else (fields, theta_key)
    theta = theta_place.number(key, family.defaults.get("rope_theta", 10000.0))
    plain = RopeConfig(theta, _rotary_dim(rope, fields, family, head_dim))
    scaled = _SCALINGS[kind](_Place(rope, fields, plain, max_positions))
    return checked_rope(scaled, fields.where, _key_names(rope))


def _rotary_dim(rope: Fields, fields: Fields, family: HuggingFaceFamily, head_dim: int) -> int:
    """The number of leading dimensions of a head that are rotated."""
    key = family.word(PARTIAL)
    part = fields.optional_number(key)  # null is allowed at the top only
    if PARTIAL in rope.values or part is None:
        part = rope.number(PARTIAL, family.defaults.get(PARTIAL, 1.0))
    if part != 1 and PARTIAL not in family.defaults:
        raise Unsupported(f"{fields.where}: {PARTIAL} {part:g} is not supported in this family; supported: 1")
    turning = min(head_dim * part, sys.float_info.max) // 1
    if turning > head_dim or turning < 2 or turning % 2:
        raise InvalidFormat(
            f"{fields.where}: {key} {part:g} of a head of {head_dim} leaves {turning:g} dimensions to turn; "
            "they must be an even number, at least 2 and at most the head"
        )
    return int(turning)


def _rope_object(fields: Fields, family: HuggingFaceFamily) -> Fields:
    """rope_scaling, if it is not empty, replaces rope_parameters: users who extend a context add it to a file that has
    the other."""
    default = family.defaults.get("rope_parameters", {})
    absent = Fields(default, f"{fields.where}: rope_parameters", null_is_absent=False)
    parameters = fields.inner("rope_parameters") if "rope_parameters" in fields else absent
    return fields.inner("rope_scaling") if fields.get("rope_scaling") else parameters


def _key_names(rope: Fields) -> dict[str, str]:
    """The file's names of the fields of `RopeConfig`."""
    same_names = {field: field for field in ("factor", "low_freq_factor", "high_freq_factor", "beta_fast", "beta_slow")}
    same_names["original_max_positions"] = ORIGINAL
    same_names["attention_factor"] = "attention_factor" if "attention_factor" in rope else "mscale"
    same_names["query_growth"] = "llama_4_scaling_beta"
    return {"theta": "rope_theta", "factors": "short_factor and long_factor", **same_names}


def _default(place: _Place) -> RopeConfig:
    return place.plain


def _linear(place: _Place) -> RopeConfig:
    return replace(place.plain, scaling=RopeScaling.LINEAR, factor=place.rope.number("factor"))


def _dynamic(place: _Place) -> RopeConfig:
    return replace(
        place.plain,
        scaling=RopeScaling.DYNAMIC,
        factor=place.rope.number("factor"),
        original_max_positions=place.max_positions,
    )


def _llama3(place: _Place) -> RopeConfig:
    return replace(
        place.plain,
        scaling=RopeScaling.LLAMA3,
        factor=place.rope.number("factor"),
        original_max_positions=place.original(),
        low_freq_factor=place.rope.number("low_freq_factor"),
        high_freq_factor=place.rope.number("high_freq_factor"),
    )


def _longrope(place: _Place) -> RopeConfig:
    original, rope = place.original(), place.rope
    short, long = (_factors(rope, key, place.plain.rotary_dim // 2) for key in ("short_factor", "long_factor"))
    return replace(
        place.plain,
        scaling=RopeScaling.LONGROPE,
        factor=rope.number("factor") if "factor" in rope else place.max_positions / original,
        original_max_positions=original,
        attention_factor=rope.optional_number("attention_factor"),
        factors=short,
        long_factors=long,
    )


def _factors(rope: Fields, key: str, count: int) -> tuple[float, ...]:
    """One number for each frequency."""
    values = rope.value(key)
    if not isinstance(values, list) or len(values) != count or not all(_is_number(value) for value in values):
        raise InvalidFormat(f"{rope.where}: {key} must be a list of {count} numbers, one for each frequency")
    return tuple(map(float, values))


def _is_number(value: object) -> bool:
    return isinstance(value, (int, float)) and not isinstance(value, bool) and math.isfinite(value)


def _yarn(place: _Place) -> RopeConfig:
    rope, factor = place.rope, place.stretch()
    return replace(
        place.plain,
        scaling=RopeScaling.YARN,
        factor=factor,
        original_max_positions=place.original(),
        beta_fast=rope.optional_number("beta_fast") or 32.0,
        beta_slow=rope.optional_number("beta_slow") or 1.0,
        attention_factor=_yarn_attention(rope, factor),
        truncate="truncate" not in rope.values or ("truncate" in rope and rope.flag("truncate", True)),
        query_growth=rope.number("llama_4_scaling_beta") if rope.get("llama_4_scaling_beta") else 0.0,
    )


def _yarn_attention(rope: Fields, factor: float) -> float | None:
    """attention_factor, or the ratio given by mscale and mscale_all_dim, or None for the paper's default."""
    if "attention_factor" in rope or not rope.get("mscale") or not rope.get("mscale_all_dim"):
        return rope.optional_number("attention_factor")
    scales = [0.1 * rope.number(key) * math.log(max(factor, 1.0)) + 1.0 for key in ("mscale", "mscale_all_dim")]
    return scales[0] / scales[1]


_SCALINGS = {
    "default": _default,
    "linear": _linear,
    "dynamic": _dynamic,
    "llama3": _llama3,
    "yarn": _yarn,
    "longrope": _longrope,
    "su": _longrope,  # Phi-3's first name of it
}

"""Ranges of numbers in a configuration: a number outside could divide by zero, overflow, or exhaust the memory.

Owns: the ranges, far wider than any model uses, within which every rotary table is finite; and how heads divide. All
are checked before a tensor is read. Refuses to know: the names of the numbers in the two file formats.
Specs: LOAD-29. Next: `ferrum.load.known_keys`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from ferrum.config import RopeConfig, RopeScaling
from ferrum.errors import InvalidFormat, quoted
from ferrum.fields import Fields
from ferrum.load.known_keys import is_neutral

LARGEST_HEAD = 1 << 16
"""The largest head dimension. Rotary frequencies are computed before a tensor can contradict it."""
LARGEST_POSITION = (1 << 31) - 1
"""The largest position: positions are int32 in a step."""
LARGEST_DEPTH = 1 << 12
"""The largest number of layers. A list of them is made before a tensor can contradict it."""

_EPSILON = (1e-20, 1.0)  # 1e-20 ** 2 is still a float32 above 0
_STRETCH = (1e-3, 1e6)
_SCALE = (1e-6, 1e6)
_RANGES: dict[str, tuple[float, float]] = {
    "theta": (1e-3, 1e30),
    "factor": _STRETCH,
    "original_max_positions": (1, LARGEST_POSITION),
    "low_freq_factor": _STRETCH,
    "high_freq_factor": _STRETCH,
    "beta_fast": _STRETCH,
    "beta_slow": _STRETCH,
    "attention_factor": (1e-3, 1e3),
    "query_growth": _SCALE,
}
"""The range of each field of `RopeConfig`."""
_USED = {
    RopeScaling.NONE: ("theta",),
    RopeScaling.FACTORS: ("theta",),
    RopeScaling.LINEAR: ("theta", "factor"),
    RopeScaling.DYNAMIC: ("theta", "factor", "original_max_positions"),
    RopeScaling.LONGROPE: ("theta", "factor", "original_max_positions", "attention_factor"),
    RopeScaling.LLAMA3: ("theta", "factor", "original_max_positions", "low_freq_factor", "high_freq_factor"),
    RopeScaling.YARN: ("theta", "factor", "original_max_positions", "beta_fast", "beta_slow", "attention_factor"),
}


def epsilon(fields: Fields, key: str, default: float | None = None) -> float:
    """The epsilon of a norm. Raises `InvalidFormat`."""
    value = fields.number(key, default)
    if not _EPSILON[0] <= value <= _EPSILON[1]:
        raise fields.wrong(key, _span(*_EPSILON))
    return value


@dataclass(frozen=True)
class NumberKey:
    """A key that gives a factor or cap of scores, embeddings, residuals or logits; its default if the key is absent;
    and the power to which the number is raised. For None, and for a number that means none in a file, the field keeps
    its default."""

    key: str
    default: float | None = None
    power: float = 1.0

    def read(self, fields: Fields, none: tuple[int, ...]) -> float | None:
        """Raises `InvalidFormat`."""
        is_present = fields.prefix + self.key in fields.values
        if is_present and is_neutral(fields.get(self.key), none):
            return None
        value = fields.number(self.key) if is_present else self.default
        if value is not None and not _SCALE[0] <= value <= _SCALE[1]:
            raise fields.wrong(self.key, _span(*_SCALE))
        return None if value is None else float(value) ** self.power


def numbers(fields: Fields, keys: Mapping[str, NumberKey], none: tuple[int, ...] = ()) -> dict[str, float]:
    """The numbers that a file gives, by field of `ModelConfig`. `none`: the values that mean none, beside null."""
    values = {name: each.read(fields, none) for name, each in keys.items()}
    return {name: value for name, value in values.items() if value is not None}


def positions(fields: Fields, key: str, default: int | None = None) -> int:
    """The longest context. Raises `InvalidFormat`."""
    value = fields.integer(key, default)
    if value > LARGEST_POSITION:
        raise fields.wrong(key, f"at most {LARGEST_POSITION}")
    return value


def depth(fields: Fields, key: str, default: int | None = None) -> int:
    """The number of layers. Raises `InvalidFormat`."""
    value = fields.integer(key, default)
    if value > LARGEST_DEPTH:
        raise fields.wrong(key, f"at most {LARGEST_DEPTH}")
    return value


def head_dimension(fields: Fields, key: str, hidden_key: str, hidden: int, heads: int) -> int:
    """The width of a head: the value of `key`, or else hidden / heads. It must be even, because rotary embedding works
    on pairs."""
    if key not in fields and hidden % heads:
        raise InvalidFormat(f"{fields.where}: {fields.prefix}{hidden_key} {hidden} is not a multiple of {heads} heads")
    head_dim = fields.optional_integer(key, low=1) or hidden // heads
    if head_dim % 2 or not 0 < head_dim <= LARGEST_HEAD:
        raise InvalidFormat(f"{fields.where}: the width of a head, {head_dim}, must be even and at most {LARGEST_HEAD}")
    return head_dim


def check_heads(fields: Fields, heads: int, kv_heads: int, key: str) -> None:
    """Checks that every key/value head serves the same number of query heads."""
    if heads % kv_heads:
        raise InvalidFormat(f"{fields.where}: {fields.prefix}{key} {kv_heads} does not divide {heads} heads")


def checked_rope(rope: RopeConfig, where: str, keys: Mapping[str, str]) -> RopeConfig:
    """The same object, if every number that its scaling uses is within its range. Raises `InvalidFormat` with the key:
    `keys` has the file's names of the fields of `RopeConfig`."""

    def refuse(field: str, expected: str) -> InvalidFormat:
        return InvalidFormat(f"{where}: {keys[field]} must be {expected}, not {quoted(getattr(rope, field))}")

    for field in (*_USED[rope.scaling], *(["query_growth"] if rope.query_growth else [])):
        value = getattr(rope, field)
        if value is not None and not _RANGES[field][0] <= value <= _RANGES[field][1]:
            raise refuse(field, _span(*_RANGES[field]))
    if rope.scaling is RopeScaling.YARN and rope.theta <= 1:
        raise refuse("theta", "above 1 with yarn, which divides by its logarithm")
    if rope.scaling is RopeScaling.YARN and rope.beta_fast < rope.beta_slow:
        raise refuse("beta_fast", f"at least {keys['beta_slow']}, {rope.beta_slow:g}")
    if rope.scaling is RopeScaling.LLAMA3 and rope.high_freq_factor <= rope.low_freq_factor:
        raise refuse("high_freq_factor", f"a number above {keys['low_freq_factor']}, {rope.low_freq_factor:g}")
    if rope.scaling is RopeScaling.DYNAMIC and (rope.rotary_dim < 4 or rope.factor < 1):
        raise refuse("factor", "at least 1 with dynamic, in heads of which at least 4 dimensions turn")
    if rope.scaling is RopeScaling.LONGROPE and rope.original_max_positions < 2:
        raise refuse("original_max_positions", "at least 2 with longrope, which divides by its logarithm")
    low, high = _STRETCH[0], _RANGES["theta"][1]
    if not all(low <= factor <= high for factor in (*rope.factors, *rope.long_factors)):
        # as for theta: 1e30 means no rotation
        raise InvalidFormat(f"{where}: {keys['factors']} must hold {_span(low, high)} everywhere")
    return rope


def _span(low: float, high: float) -> str:
    return f"a number from {low:g} to {high:g}"

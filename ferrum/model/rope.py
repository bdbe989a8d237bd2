"""Rotary frequencies and their tables.

Owns: the angle by which each pair of dimensions is rotated per position, for every scaling in `RopeScaling`. Computed
once, in float64, on the host. Refuses to know: how a vector is rotated (`Compositions.rope`). Papers: RoPE 2104.09864,
YaRN 2309.00071, LongRoPE 2402.13753.
Specs: MODEL. Next: `ferrum.model.params`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterable
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from ferrum.config import RopeConfig, RopeScaling
from ferrum.tensor.batch import RopeTables
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

Frequencies = NDArray[np.float64]  # [rotary_dim / 2], radians per position

POSITIONS = 1024
"""Positions computed at a time. All angles of a long context in float64 would take several times the memory of the
tables, and as much time to touch as the cosines take."""


def rotations(ops: TensorOps, ropes: Iterable[RopeConfig | None], positions: int) -> tuple[RopeTables | None, ...]:
    """The tables of each layer. Layers with equal rotations share one object."""
    ropes = tuple(ropes)
    tables = {rope: rope_tables(ops, rope, positions) for rope in dict.fromkeys(ropes) if rope is not None}
    return tuple(None if rope is None else tables[rope] for rope in ropes)


def rope_tables(ops: TensorOps, config: RopeConfig, positions: int) -> RopeTables:
    """cos and sin [positions, rotary_dim / 2] on the backend, times the scaling's attention factor."""
    frequencies, factor = rope_frequencies(config, positions), attention_factor(config)
    cos: list[Tensor] = []
    sin: list[Tensor] = []
    for start in range(0, positions, POSITIONS):
        angles = np.outer(np.arange(start, min(start + POSITIONS, positions), dtype=np.float64), frequencies)
        cos.append(ops.asarray(factor * np.cos(angles), ops.float_dtype))
        sin.append(ops.asarray(factor * np.sin(angles), ops.float_dtype))
    return RopeTables(ops.concat(cos, 0), ops.concat(sin, 0), _growth(ops, config, positions))


def _growth(ops: TensorOps, config: RopeConfig, positions: int) -> Tensor | None:
    """Factors of queries: 1 + growth ln(1 + ⌊position / original context⌋). They keep the size of scores over long
    contexts."""
    if not config.query_growth:
        return None
    turns = np.arange(positions) // config.original_max_positions
    return ops.asarray(1 + config.query_growth * np.log1p(turns), ops.float_dtype)


def rope_frequencies(config: RopeConfig, positions: int = 0) -> Frequencies:
    """theta^(-2 i / rotary_dim) for i = 0, 1, …, changed by the scaling. `positions` is the longest context that is
    served."""
    config = served(config, positions)
    exponents = np.arange(0, config.rotary_dim, 2) / config.rotary_dim
    return _STRETCH[config.scaling](config, np.power(config.theta, -exponents))


def served(config: RopeConfig, positions: int) -> RopeConfig:
    """The configuration with frequencies that do not depend on the length of a text. A scaling that depends on it uses
    the longest context that is served, for all texts: so a key that was rotated once stays right as its text grows."""
    if config.scaling is RopeScaling.DYNAMIC:
        return replace(config, scaling=RopeScaling.NONE, theta=_dynamic_theta(config, positions))
    if config.scaling is RopeScaling.LONGROPE and positions > config.original_max_positions:
        return replace(config, factors=config.long_factors)
    return config


def _dynamic_theta(config: RopeConfig, positions: int) -> float:
    """NTK-aware scaling: a larger base for the longest context, so that the slowest pair rotates as if positions were
    divided by the ratio of that context to the original one."""
    stretch = config.factor * max(positions / config.original_max_positions, 1.0) - (config.factor - 1)
    return float(config.theta * stretch ** (config.rotary_dim / (config.rotary_dim - 2)))


def attention_factor(config: RopeConfig) -> float:
    """The factor of cos and sin: by default 0.1 ln(factor) + 1 for YaRN, √(1 + ln(factor) / ln(original context)) for
    LongRoPE, and 1 for all others."""
    if config.scaling not in (RopeScaling.YARN, RopeScaling.LONGROPE):
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor
    if config.factor <= 1:
        return 1.0
    if config.scaling is RopeScaling.LONGROPE:
        return math.sqrt(1 + math.log(config.factor) / math.log(config.original_max_positions))
    return 0.1 * math.log(config.factor) + 1


def _unscaled(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    return frequencies


def _linear(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """Positions are divided by `factor`."""
    return frequencies / config.factor


def _factors(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """Each frequency is divided by its own factor."""
    return np.divide(frequencies, config.factors)


def _llama3(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """Low frequencies are divided by `factor`, high ones are kept, those between are blended by the number of full
    rotations within the original context."""
    turns = config.original_max_positions * frequencies / (2 * math.pi)  # full turns within the original context
    blend = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
    kept_share = np.clip(blend, 0, 1)
    stretched: Frequencies = frequencies * (kept_share + (1 - kept_share) / config.factor)
    return stretched


def _yarn(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """A linear ramp over the dimensions, from kept frequencies (at least beta_fast rotations within the original
    context) to divided ones (at most beta_slow rotations)."""

    def dimension(turns: float) -> float:
        length = config.original_max_positions / (turns * 2 * math.pi)
        return config.rotary_dim * math.log(length) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = float(math.floor(low)), float(math.ceil(high))  # of Python: a NumPy integer could overflow
    low, high = max(low, 0), min(high, config.rotary_dim - 1)
    span = max(high - low, 0.001)  # a ramp of width 0 is a step
    ramp = np.clip((np.arange(config.rotary_dim // 2) - low) / span, 0, 1)
    stretched: Frequencies = frequencies * (ramp / config.factor + 1 - ramp)
    return stretched


_STRETCH: dict[RopeScaling, Callable[[RopeConfig, Frequencies], Frequencies]] = {
    RopeScaling.NONE: _unscaled,
    RopeScaling.LINEAR: _linear,
    RopeScaling.LLAMA3: _llama3,
    RopeScaling.YARN: _yarn,
    RopeScaling.LONGROPE: _factors,
    RopeScaling.FACTORS: _factors,
}
"""The function of each scaling that `served` can return."""

"""Rotary frequencies and their tables.

Owns: how fast each pair of dimensions turns with the position, for every scaling in `RopeScaling`. Computed once, in
float64, on the host. Refuses to know: how a vector is turned (`Compositions.rope`).
Papers: RoPE 2104.09864, YaRN 2309.00071. Specs: MODEL. Next: `ferrum.model.params`.
"""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

from ferrum.config import RopeConfig, RopeScaling
from ferrum.tensor.batch import RopeTables
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor

Frequencies = NDArray[np.float64]  # [rotary_dim / 2], radians per position

POSITIONS = 1024
"""Positions computed at a time: a long context in float64 is several times the size of its tables, and to touch so much
memory takes as long as the cosines."""


def rope_tables(ops: TensorOps, config: RopeConfig, positions: int) -> RopeTables:
    """cos and sin [positions, rotary_dim / 2] on the backend, times the scaling's attention factor."""
    frequencies, factor = rope_frequencies(config), attention_factor(config)
    cos: list[Tensor] = []
    sin: list[Tensor] = []
    for start in range(0, positions, POSITIONS):
        angles = np.outer(np.arange(start, min(start + POSITIONS, positions), dtype=np.float64), frequencies)
        cos.append(ops.asarray(factor * np.cos(angles), ops.float_dtype))
        sin.append(ops.asarray(factor * np.sin(angles), ops.float_dtype))
    return RopeTables(ops.concat(cos, 0), ops.concat(sin, 0))


def rope_frequencies(config: RopeConfig) -> Frequencies:
    """theta^(-2 i / rotary_dim) for i = 0, 1, …, stretched by the scaling."""
    exponents = np.arange(0, config.rotary_dim, 2) / config.rotary_dim
    return _STRETCH[config.scaling](config, np.power(config.theta, -exponents))


def attention_factor(config: RopeConfig) -> float:
    """What cos and sin are multiplied with. Only YaRN has one: by default 0.1 ln(factor) + 1."""
    if config.scaling is not RopeScaling.YARN:
        return 1.0
    if config.attention_factor is not None:
        return config.attention_factor
    return 0.1 * math.log(config.factor) + 1 if config.factor > 1 else 1.0


def _unscaled(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    return frequencies


def _linear(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """Positions are squeezed by `factor`."""
    return frequencies / config.factor


def _factors(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """One explicit divisor per frequency."""
    return np.divide(frequencies, config.factors)


def _llama3(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """Long waves are stretched by `factor`, short ones kept, those between blended by how often they fit the original
    context."""
    turns = config.original_max_positions * frequencies / (2 * math.pi)  # full turns within the original context
    blend = (turns - config.low_freq_factor) / (config.high_freq_factor - config.low_freq_factor)
    kept = np.clip(blend, 0, 1)
    stretched: Frequencies = frequencies * (kept + (1 - kept) / config.factor)
    return stretched


def _yarn(config: RopeConfig, frequencies: Frequencies) -> Frequencies:
    """A linear ramp over the dimensions, from kept (many turns: beta_fast) to stretched (few turns: beta_slow)."""

    def dimension(turns: float) -> float:
        length = config.original_max_positions / (turns * 2 * math.pi)
        return config.rotary_dim * math.log(length) / (2 * math.log(config.theta))

    low, high = dimension(config.beta_fast), dimension(config.beta_slow)
    if config.truncate:
        low, high = float(math.floor(low)), float(math.ceil(high))  # as numbers of NumPy they could be too large
    low, high = max(low, 0), min(high, config.rotary_dim - 1)
    span = max(high - low, 0.001)  # a ramp of no width is a step
    ramp = np.clip((np.arange(config.rotary_dim // 2) - low) / span, 0, 1)
    stretched: Frequencies = frequencies * (ramp / config.factor + 1 - ramp)
    return stretched


_STRETCH: dict[RopeScaling, Callable[[RopeConfig, Frequencies], Frequencies]] = {
    RopeScaling.NONE: _unscaled,
    RopeScaling.LINEAR: _linear,
    RopeScaling.LLAMA3: _llama3,
    RopeScaling.YARN: _yarn,
    RopeScaling.FACTORS: _factors,
}

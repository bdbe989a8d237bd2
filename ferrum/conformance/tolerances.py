"""How much a result may differ from the oracle's.

Owns: one table of tolerances per float type, one comparison, and its messages.
Refuses to know: which operation is compared.
Specs: OPS. Next: `ferrum.conformance.strategies`.

The reasons for the numbers; u is the unit roundoff (2**-24 in float32):
- `relative`, 16 u of the magnitude: the worst documented elementary function of the usual libraries has an error of
  4 ulp (8 u); the rest is for the two or three roundings around it.
- Sums of K terms get relative * max(1, sqrt(K) / 4): any order of summation is within K u of the magnitude and random
  orders within a few sqrt(K) u, so 4 sqrt(K) u allows every reasonable order and no missing term.
- `l2`, the relative error of a whole tensor: roundings are independent, so a tensor is far better than its worst
  element. Careful float32 kernels are well below 2e-6.
- `absolute`: the error of underflow. An intermediate below the smallest normal number may be flushed to zero, and the
  error then be multiplied by a large factor.
"""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.conformance.oracles import Expected, exact


@dataclass(frozen=True)
class Tolerance:
    relative: float  # of the magnitude, elementwise
    l2: float  # of the magnitude, over the whole tensor
    absolute: float


TOLERANCES = {
    "float64": Tolerance(relative=16 * 2.0**-52, l2=4e-15, absolute=2.0**-1000),  # the oracle itself is float64
    "float32": Tolerance(relative=16 * 2.0**-24, l2=2e-6, absolute=2.0**-100),
    "float16": Tolerance(relative=4 * 2.0**-11, l2=1e-3, absolute=2.0**-13),
    "bfloat16": Tolerance(relative=4 * 2.0**-8, l2=5e-3, absolute=2.0**-100),
}


@dataclass(frozen=True)
class Closeness:
    """share: the largest error as a share of the tolerance, infinite if an error has no size; fault: what is wrong,
    empty if nothing is."""

    share: float
    fault: str = ""

    def check(self) -> None:
        if self.fault:  # not an assert, to which pytest would add the compared values
            raise AssertionError(self.fault)


def closeness(actual: NDArray[Any], expected: Expected | NDArray[Any], dtype: str) -> Closeness:
    """Compares the shape, the places of NaN and of both infinities, and all other elements within the tolerance of
    `dtype`."""
    reference = expected if isinstance(expected, Expected) else exact(expected)
    if actual.shape != reference.value.shape:
        return Closeness(math.inf, f"shape {actual.shape}, expected {reference.value.shape}")
    numbers = actual.astype(np.float64)
    special = ~np.isfinite(reference.value)
    agree = (numbers == reference.value) | (np.isnan(numbers) & np.isnan(reference.value))  # infinities also in sign
    misplaced = np.where(special, ~agree, ~np.isfinite(numbers))
    if misplaced.any():
        return Closeness(math.inf, f"nan or inf in the wrong place: {_worst(numbers, reference.value, misplaced)}")
    tolerance = TOLERANCES[dtype]
    finite, sizes = np.where(special, 0, reference.value), np.where(special, 0, reference.magnitude)
    error = np.abs(np.where(special, 0, numbers) - finite)
    size = np.maximum(sizes, np.abs(finite))
    allowed = tolerance.absolute + tolerance.relative * max(1.0, math.sqrt(reference.terms) / 4) * size
    shares = error / allowed
    if not (shares <= 1).all():
        worst = f"{_worst(numbers, reference.value, shares)}, allowed error: {_at_worst(allowed, shares):.2g}"
        return Closeness(float(shares.max()), f"an element is too far off: {worst}")
    limit = tolerance.absolute * math.sqrt(error.size) + tolerance.l2 * np.linalg.norm(size)
    length = np.linalg.norm(error)
    share = float(max(shares.max(initial=0.0), length / limit if limit else 0.0))
    if length <= limit:
        return Closeness(share)
    worst = f"{length:.2g}, allowed: {limit:.2g}; the largest part of it is {_worst(numbers, reference.value, error)}"
    return Closeness(share, f"the elements together are too far off (L2): {worst}")


def assert_close(actual: NDArray[Any], expected: Expected | NDArray[Any], dtype: str) -> float:
    """Raises AssertionError with the worst element. Returns the largest error as a share of the tolerance."""
    measure = closeness(actual, expected, dtype)
    measure.check()
    return measure.share


def assert_same(actual: NDArray[Any], expected: NDArray[Any]) -> None:
    """Equal in shape and in every element; NaN equals NaN."""
    actual_array, expected_array = (np.asarray(x) for x in (actual, expected))
    # NumPy cannot compare a NaN of bfloat16
    actual_array, expected_array = (
        x.astype(np.float32) if x.dtype.name == "bfloat16" else x for x in (actual_array, expected_array)
    )
    np.testing.assert_array_equal(actual_array, expected_array)
    assert actual_array.shape == expected_array.shape, f"shape {actual_array.shape}, expected {expected_array.shape}"


def _at_worst(values: NDArray[Any], badness: NDArray[Any]) -> float:
    return float(values[np.unravel_index(int(np.argmax(badness)), badness.shape)])


def _worst(numbers: NDArray[Any], reference: NDArray[Any], badness: NDArray[Any]) -> str:
    """The worst element, and where it is."""
    place = [int(i) for i in np.unravel_index(int(np.argmax(badness)), badness.shape)]
    comparison = f"{_at_worst(numbers, badness)}, expected {_at_worst(reference, badness)}"
    return f"at {place} of shape {list(numbers.shape)}: {comparison}"

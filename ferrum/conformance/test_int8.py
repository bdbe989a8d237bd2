"""Properties of products with `compute="int8"`, for every backend with the option.

Owns: the promises OPS-82 and OPS-83, as far as single operations can test them. Refuses to know: how a backend
multiplies whole numbers. Next: `ferrum.conformance.test_recorded`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance import calls, parts
from ferrum.conformance.harness import check, host
from ferrum.conformance.large import large_linear, normal
from ferrum.conformance.oracles import exact
from ferrum.conformance.strategies import FLOAT_KINDS, KINDS, Host, lay, layouts
from ferrum.conformance.test_determinism import check_rows, of_blocks
from ferrum.tensor.compositions import TensorOps

Variant = Callable[..., TensorOps]
"""The backend under test with options; the property is skipped where it does not take them."""

QUANTISED = tuple(kind for kind in KINDS if kind not in FLOAT_KINDS)
GROUP = 32


def near_steps(random: np.random.Generator, tokens: int, columns: int) -> tuple[Host, Host]:
    """-> rows, and the same rows with each group of 32 rounded to 127 steps of its largest number. No number is so near
    to the middle of two steps that the type of the arithmetic decides."""
    codes = random.integers(-127, 128, (tokens, columns // GROUP, GROUP)).astype(np.float64)
    deviations = random.uniform(-0.45, 0.45, codes.shape) * (np.abs(codes) < 127)
    codes[..., 0], deviations[..., 0] = 127 * random.choice([-1, 1], codes.shape[:2]), 0
    steps = 2.0 ** random.uniform(-20, 20, (*codes.shape[:2], 1))
    steps[random.random(steps.shape) < 0.1] = 0
    rows = ((codes + deviations) * steps).astype(np.float32)
    rounded = codes * (np.abs(rows[..., :1]).astype(np.float64) / 127)
    return rows.reshape(tokens, columns), rounded.reshape(tokens, columns)


@pytest.mark.clause("OPS-82")
@pytest.mark.parametrize("kind", QUANTISED)
@given(tokens=st.sampled_from([1, 2, 5, 9, 17]), rows=st.integers(1, 70), seed=st.integers(0, 99), layout=layouts)
def test_activations_are_rounded_in_groups(
    variant: Variant, kind: str, tokens: int, rows: int, seed: int, layout: Any
) -> None:
    ops = variant(compute="int8")
    assert ops.compute == "int8"
    linear, random = large_linear(kind, rows, 768, seed), np.random.default_rng(seed)
    x, rounded = near_steps(random, tokens, 768)
    check(ops, "linear", (lay(ops, x, layout), linear.place(ops)), parts.linear_of(exact(rounded), linear))


@pytest.mark.clause("OPS-82")
@pytest.mark.parametrize("kind", FLOAT_KINDS)
def test_products_of_dense_weights_are_not_rounded(variant: Variant, kind: str) -> None:
    ops, linear, x = variant(compute="int8"), large_linear(kind, 33, 256), normal(9, 256)
    check(ops, "linear", (lay(ops, x), linear.place(ops)), parts.linear_of(exact(x), linear))


@pytest.mark.clause("OPS-82")
@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("odd", [np.nan, np.inf, -np.inf])
def test_what_is_no_number_spoils_its_row(variant: Variant, kind: str, odd: float) -> None:
    ops, x = variant(compute="int8"), normal(3, 256)
    x[1, 77] = odd
    actual = host(ops, ops.linear(lay(ops, x), large_linear(kind, 20, 256).place(ops)))
    assert np.isnan(actual[1]).all() and np.isfinite(actual[[0, 2]]).all()


@pytest.mark.clause("OPS-83", "OPS-46")
@pytest.mark.parametrize("kind", QUANTISED)
@pytest.mark.parametrize("name", ["linear", "linear_add", "norm_linears", "norm_gated", "norm_experts"])
def test_a_row_of_a_rounded_product_has_the_bits_that_it_has_alone(variant: Variant, name: str, kind: str) -> None:
    check_rows(variant(deterministic=True, compute="int8"), of_blocks(kind)[name], calls.WIDTH)

"""OPS-83 with OPS-45: int8 models have the same bits beside any rows, in any chunks, on any threads, in replays."""

from __future__ import annotations

import functools
from random import Random
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.config import RopeConfig
from tests.backends.company import Model, check, in_company
from tests.backends.test_deterministic import CUTS, LONG, NATIVE, Variant, all_shared_out, check_short_texts, draw_texts
from tests.backends.under_target import stored

FEW = settings(max_examples=max(3, settings.default.max_examples // 10))
"""The number of examples is small, since each is a model with many steps."""

HALF = {"head_dim": 32, "rope": RopeConfig(10000.0, 32), "max_positions": LONG}
WIDE: dict[str, Any] = {**NATIVE, **HALF, "hidden_size": 256, "intermediate_size": 256, "heads": 8}
VARIANTS = {
    "q4_0, biases": Variant(NATIVE, functools.partial(stored, "q4_0"), biased=True),
    "q8_0, experts": Variant(NATIVE, functools.partial(stored, "q8_0"), expert_rows=96),
    "q4_1, q8_0 cache": Variant({**NATIVE, **HALF}, functools.partial(stored, "q4_1"), kv_dtype="q8_0"),
    "q4_k": Variant(WIDE, functools.partial(stored, "q4_k")),
    "q6_k, experts, q8_0 cache": Variant(WIDE, functools.partial(stored, "q6_k"), expert_rows=256, kv_dtype="q8_0"),
}
BACKENDS = {
    "numpy": lambda: NumpyOps(deterministic=True, compute="int8"),
    "numba-1": lambda: NumbaOps(1, deterministic=True, compute="int8"),
    "numba-2": lambda: NumbaOps(2, deterministic=True, compute="int8"),
}
__all__ = ["all_shared_out"]


@functools.cache
def model_of(backend: str, variant: str) -> Model:
    return VARIANTS[variant].model(BACKENDS[backend]())


@pytest.mark.clause("OPS-45", "OPS-83")
@pytest.mark.usefixtures("all_shared_out")
@pytest.mark.parametrize("variant", VARIANTS)
@FEW
@given(random=st.randoms())
def test_company_changes_no_bit_of_the_kernels(variant: str, random: Random) -> None:
    check_short_texts(model_of("numba-2", variant), model_of("numba-1", variant), random)


@pytest.mark.clause("OPS-45", "OPS-83")
@pytest.mark.parametrize("variant", ["q4_0, biases", "q8_0, experts"])
@FEW
@given(random=st.randoms())
def test_company_changes_no_bit_of_the_definition(variant: str, random: Random) -> None:
    model = model_of("numpy", variant)
    check(in_company(model, draw_texts(random, 96, 2, 8), random, range(1, 9)), model)


@pytest.mark.clause("OPS-45", "OPS-83")
@pytest.mark.parametrize("variant", ["q4_0, biases", "q6_k, experts, q8_0 cache"])
@FEW
@given(random=st.randoms(use_true_random=True))
def test_long_texts_in_long_and_short_chunks(variant: str, random: Random) -> None:
    """The chunks have more tokens than the largest tile, and more than fused operations take."""
    texts = draw_texts(random, 96, 2, LONG)
    check(in_company(model_of("numba-2", variant), texts, random, CUTS), model_of("numba-1", variant))

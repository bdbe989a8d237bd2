"""CUDA-61: the product of the deterministic mode."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.cuda.exact_products import matmul
from ferrum.backends.cupy_backend import CupyOps
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at


@pytest.mark.clause("CUDA-61")
@given(
    stack=st.sampled_from([(), (1,), (3,), (2, 2)]), rows=st.integers(0, 5), inner=st.integers(0, 70),
    columns=st.integers(0, 150), seed=st.integers(0, 99), layout=layouts,
)  # fmt: skip
def test_each_element_is_its_own_sum(
    stack: tuple[int, ...], rows: int, inner: int, columns: int, seed: int, layout: str
) -> None:
    random = np.random.default_rng(seed)
    x, y = (random.standard_normal((*stack, *size)).astype(np.float32) for size in ((rows, inner), (inner, columns)))
    out = at_every_schedule(lambda device: matmul(device, laid(device, x, layout), laid(device, y, layout)))
    wide = np.matmul(x.astype(np.float64), y.astype(np.float64))
    bound = np.matmul(np.abs(x).astype(np.float64), np.abs(y).astype(np.float64)) * (inner + 1) * 2.0**-24
    assert (np.abs(out - wide) <= bound).all()
    if out.size:  # an element alone has the same bits
        device, row, column = device_at(1), rows - 1, columns - 1
        alone = matmul(device, laid(device, x[..., row:, :]), laid(device, y[..., column:]))
        assert np.array_equal(alone[..., 0, 0], out[..., row, column])


@pytest.mark.clause("CUDA-61")
@given(shape=st.lists(st.integers(1, 40), min_size=1, max_size=3), data=st.data(), seed=st.integers(0, 99))
def test_sums_of_the_deterministic_mode_are_such_products(shape: list[int], data: st.DataObject, seed: int) -> None:
    ops, axis = CupyOps(device_at(1), deterministic=True), data.draw(st.integers(-len(shape), len(shape) - 1))
    x = np.random.default_rng(seed).standard_normal(shape).astype(np.float32)
    found = ops.to_numpy(ops.sum(ops.asarray(x, "float32"), axis))
    np.testing.assert_allclose(found, x.astype(np.float64).sum(axis, keepdims=True), rtol=1e-5, atol=1e-5)


@pytest.mark.clause("CUDA-61")
def test_other_operands_are_left_alone() -> None:
    device, x = device_at(1), np.ones((2, 3), np.float32)
    assert matmul(device, x.astype(np.float64), x.T) is None
    assert matmul(device, x[None], x.T) is None

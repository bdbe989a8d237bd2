"""OPS-90, OPS-91: the rounding of keys and values to eight bits."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as arrays
from numpy.typing import NDArray

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import q8_oracle
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.kv_q8 import dequantize, quantize

BACKENDS: dict[str, TensorOps] = {
    "float32": NumpyOps(), "float64": NumpyOps("float64"), "deterministic": NumpyOps(deterministic=True),
}  # fmt: skip
HALF_STEP = 2.0**-25
"""Of the smallest scale that there is."""

numbers = st.floats(width=32, allow_nan=True, allow_infinity=True)
heads = st.tuples(st.integers(0, 2), st.integers(1, 2), st.sampled_from([32, 64, 96]))
any_rows = heads.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=numbers, fill=numbers))
sizes = st.floats(-8e6, 8e6, width=32)
sound_rows = heads.flatmap(lambda shape: arrays.arrays(np.float32, shape, elements=sizes, fill=sizes))


def rounded(ops: TensorOps, x: NDArray[Any]) -> tuple[NDArray[Any], NDArray[Any], NDArray[Any]]:
    """The codes and scales of x, and the values that are read back."""
    codes, scales = quantize(ops, ops.asarray(x, ops.float_dtype))
    back = dequantize(ops, codes, scales)
    return ops.to_numpy(codes), ops.to_numpy(scales), ops.to_numpy(back)


@pytest.mark.clause("OPS-90", "OPS-91")
@pytest.mark.parametrize("name", BACKENDS)
@given(x=any_rows)
def test_the_bytes_are_those_of_the_oracle(name: str, x: NDArray[Any]) -> None:
    codes, scales, back = rounded(BACKENDS[name], x)
    expected = q8_oracle.quantized(x)
    assert codes.dtype == np.int8 and codes.tobytes() == expected[0].tobytes()
    assert scales.dtype == np.float16 and np.array_equal(scales, expected[1], equal_nan=True)
    assert np.array_equal(back, q8_oracle.rounded(x), equal_nan=True)


@pytest.mark.clause("OPS-90")
@given(x=sound_rows)
def test_a_number_moves_by_half_a_step_of_its_group_at_most(x: NDArray[Any]) -> None:
    codes, scales, back = rounded(BACKENDS["float32"], x)
    step = np.repeat(scales.astype(np.float64), 32, -1)
    most = np.repeat(np.abs(x.reshape(*scales.shape, 32)).max(-1), 32, -1)
    # the scale was rounded, so the largest number of a group may lie beyond the largest code
    assert (np.abs(back - x.astype(np.float64)) <= 0.5001 * step + most * 2.0**-11 + 127 * HALF_STEP).all()
    assert np.abs(codes.astype(np.int64)).max(initial=0) <= 127
    assert (np.sign(codes) * np.sign(x) >= 0).all()


@pytest.mark.clause("OPS-90")
@given(x=sound_rows)
def test_what_was_read_back_is_stored_as_it_was(x: NDArray[Any]) -> None:
    codes, scales, back = rounded(BACKENDS["float32"], x)
    sound = np.repeat(scales >= 2.0**-14, 32, -1)  # below, a scale has too few bits for the largest code to be 127
    again = rounded(BACKENDS["float32"], back)
    assert np.array_equal(again[0][sound], codes[sound])
    assert np.array_equal(again[2][sound], back[sound])


@pytest.mark.clause("OPS-90")
@given(x=sound_rows, data=st.data())
def test_a_group_is_rounded_by_itself(x: NDArray[Any], data: st.DataObject) -> None:
    order = data.draw(st.permutations(range(x.shape[2] // 32)))
    moved = x.reshape(*x.shape[:2], x.shape[2] // 32, 32)[:, :, order].reshape(x.shape)
    codes, scales, _ = rounded(BACKENDS["float32"], x)
    moved_codes, moved_scales, _ = rounded(BACKENDS["float32"], moved)
    assert np.array_equal(moved_scales, scales[..., order])
    assert np.array_equal(moved_codes, codes.reshape(*x.shape[:2], x.shape[2] // 32, 32)[:, :, order].reshape(x.shape))

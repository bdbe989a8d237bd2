"""Weights converted on load: ggml's rounding, bounded error, no second loss."""

from __future__ import annotations

import warnings
from pathlib import Path

import ml_dtypes
import numpy as np
import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferrum.errors import InvalidParameter, ModelError
from ferrum.load import conversion
from ferrum.load.conversion import BLOCK_TYPES, DTYPES, FLOAT_TYPES, convert, quantize, to_float32, type_name
from ferrum.tensor.weights import Dense

GOLDENS = np.load(Path(__file__).parents[1] / "goldens" / "quants.npz")
ROWS = hnp.array_shapes(min_dims=1, max_dims=1, max_side=3).map(lambda shape: (*shape, 64))


def matrices(limit: float = 100.0) -> st.SearchStrategy[np.ndarray]:
    """float32 [rows, 64]; magnitudes stay where float16 scales are neither subnormal nor infinite."""
    small = float(np.float32(1e-2))
    magnitudes = st.floats(small, limit, width=32)
    numbers = st.just(0.0) | magnitudes | magnitudes.map(lambda x: -x)
    return hnp.arrays(np.float32, ROWS, elements=numbers, fill=st.nothing())


def steps(values: np.ndarray, dtype: str) -> np.ndarray:
    """The step between neighbouring codes of every group, before it is rounded to float16: [rows, groups, 1]"""
    groups = values.reshape(len(values), -1, 32).astype(np.float64)
    if dtype == "q4_1":
        return (groups.max(-1, keepdims=True) - groups.min(-1, keepdims=True)) / 15
    return np.abs(groups).max(-1, keepdims=True) / {"q8_0": 127, "q4_0": 8}[dtype]


@pytest.mark.clause("QUANT-10")
@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_the_bytes_are_those_that_ggml_writes(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    expected = GOLDENS[f"{dtype.upper()}_written"]
    np.testing.assert_array_equal(quantize(GOLDENS["floats"], dtype, "t").data, expected)
    monkeypatch.setattr(conversion, "CHUNK_GROUPS", 5)
    np.testing.assert_array_equal(quantize(GOLDENS["floats"], dtype, "t").data, expected)


@pytest.mark.clause("QUANT-11")
@pytest.mark.parametrize("dtype", BLOCK_TYPES)
@given(values=matrices())
def test_what_was_quantised_once_stays_as_it_is(dtype: str, values: np.ndarray) -> None:
    once = to_float32(quantize(values, dtype, "t"))
    # Q4_1 adds two numbers: where the step is tiny beside the minimum, their float32 sum cannot hold both
    assume(dtype != "q4_1" or not ((steps(once, dtype) > 0) & (steps(once, dtype) < 1e-2)).any())
    np.testing.assert_array_equal(to_float32(quantize(once, dtype, "t")), once)


@pytest.mark.clause("QUANT-12")
@pytest.mark.parametrize("dtype", BLOCK_TYPES)
@given(values=matrices())
def test_no_number_moves_by_more_than_half_a_step(dtype: str, values: np.ndarray) -> None:
    groups = values.reshape(len(values), -1, 32).astype(np.float64)
    found = to_float32(quantize(values, dtype, "t")).reshape(groups.shape)
    step = steps(values, dtype)
    # half a step, and what rounding scale and minimum to float16 adds to the largest code
    codes = {"q8_0": 127, "q4_0": 8, "q4_1": 15}[dtype]
    slack = codes * step * 2**-11 + (np.abs(groups).max(-1, keepdims=True) * 2**-11 if dtype == "q4_1" else 0) + 1e-6
    bound = np.broadcast_to(step / 2 + slack, groups.shape).copy()
    if dtype == "q4_0":  # codes run from -8 to 7 times a step: the opposite of the largest magnitude is cut
        largest = np.take_along_axis(groups, np.abs(groups).argmax(-1, keepdims=True), -1)
        bound = np.where(groups * np.sign(largest) < -7.5 * step, step + slack, bound)
    assert (np.abs(found - groups) <= bound).all()


@pytest.mark.clause("QUANT-13")
@pytest.mark.parametrize("dtype", [dtype for dtype in DTYPES if dtype != "auto"])
def test_the_same_type_and_auto_are_the_same_object(dtype: str) -> None:
    weight = convert(Dense(GOLDENS["floats"]), dtype, "t")
    assert type_name(weight) == dtype
    assert convert(weight, dtype, "t") is weight
    assert convert(weight, "auto", "t") is weight


@pytest.mark.clause("QUANT-13")
@pytest.mark.parametrize("dtype", FLOAT_TYPES)
@pytest.mark.parametrize("stored", BLOCK_TYPES)
def test_a_quantised_weight_converts_through_its_values(dtype: str, stored: str) -> None:
    weight = quantize(GOLDENS["floats"], stored, "t")
    expected = to_float32(weight).astype(FLOAT_TYPES[dtype])
    np.testing.assert_array_equal(convert(weight, dtype, "t").data, expected)
    other = "q8_0" if stored != "q8_0" else "q4_1"
    np.testing.assert_array_equal(convert(weight, other, "t").data, quantize(to_float32(weight), other, "t").data)


@pytest.mark.clause("QUANT-14")
@pytest.mark.parametrize("dtype", BLOCK_TYPES)
def test_rows_that_do_not_divide_into_groups_stay_as_stored(dtype: str) -> None:
    weight = Dense(np.ones((2, 40), ml_dtypes.bfloat16))
    assert convert(weight, dtype, "t") is weight


@pytest.mark.clause("QUANT-15")
@pytest.mark.parametrize("dtype", ["float16", *BLOCK_TYPES])
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf, 1e9])
def test_a_value_that_the_type_cannot_store_is_an_error_that_names_the_tensor(dtype: str, value: float) -> None:
    values = np.ones((2, 32), np.float32)
    values[1, 5] = value
    with pytest.raises(ModelError, match=r"tensor some\.name holds a value"):
        convert(Dense(values), dtype, "some.name")


@pytest.mark.clause("QUANT-15")
@pytest.mark.parametrize("dtype", ["float16", "bfloat16", *BLOCK_TYPES])
@pytest.mark.parametrize("bits", [0x7F800001, 0xFF800001, 0x7FBFFFFF, 0x7FC00000, 0x7F800000])
def test_every_kind_of_nan_is_an_error_without_a_warning(dtype: str, bits: int) -> None:
    values = np.ones((2, 32), np.float32)
    values.view(np.uint32)[1, 5] = bits
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        with pytest.raises(ModelError, match="tensor t holds a value"):
            convert(Dense(values), dtype, "t")


@pytest.mark.clause("QUANT-15")
@pytest.mark.parametrize(("dtype", "limit"), [("q8_0", 65504 * 127), ("q4_0", 65504 * 8), ("q4_1", 65504)])
def test_the_largest_values_that_fit_are_stored(dtype: str, limit: float) -> None:
    values = np.full((1, 32), limit, np.float32)
    np.testing.assert_allclose(to_float32(convert(Dense(values), dtype, "t")), values, rtol=0.13)


@pytest.mark.clause("QUANT-16")
@pytest.mark.parametrize("dtype", ["fp32", "q5_0", "", "Q4_0", "int8"])
def test_an_unknown_dtype_is_refused_by_name(dtype: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^dtype must be one of auto, float32"):
        convert(Dense(np.ones((1, 32), np.float32)), dtype, "t")

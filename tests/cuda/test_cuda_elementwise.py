"""CUDA-40 to CUDA-42: operations on every element, copies without gaps, casts, rows by number."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from ferrum.backends.cuda.elementwise import BINARY, FLOATS, UNARY, binary, cast, contiguous, unary
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import oracles
from ferrum.conformance.oracles import Expected, exact
from ferrum.conformance.strategies import broadcastable, floats
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.ops import host_dtype
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

SPECIAL = [np.nan, -np.nan, np.inf, -np.inf, 0.0, -0.0, 3e38, -3e38, 1e-38, -1e-45, 89.0, -104.0]
ORACLES = {
    "exp": oracles.exp, "log": oracles.log, "rsqrt": oracles.rsqrt, "tanh": oracles.tanh, "erf": oracles.error_function,
    "cos": oracles.cos, "sin": oracles.sin,
}  # fmt: skip
PAIRS = {"add": np.add, "sub": np.subtract, "mul": np.multiply, "div": np.divide, "maximum": np.maximum}
dtypes = st.sampled_from(sorted(FLOATS))


def shapes(sides: int = 7) -> st.SearchStrategy[tuple[int, ...]]:
    """Of up to four axes, nothing among them, and some that no block of threads covers."""
    small = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=sides)
    return st.one_of(small, st.sampled_from([(1023,), (1025,), (3, 1027), (513, 5)]))


def domain(name: str, values: np.ndarray) -> np.ndarray:
    return np.abs(values) + np.float32(1e-3) if name in ("log", "rsqrt") else np.clip(values, -80, 80)


@pytest.mark.clause("CUDA-40")
@given(st.data(), st.sampled_from(sorted(UNARY)), layouts)
def test_a_function_of_every_element(data: Any, name: str, layout: str) -> None:
    values = domain(name, data.draw(floats(data.draw(shapes()))))
    actual = at_every_schedule(lambda device: unary(device, name, laid(device, values, layout)))
    assert_close(actual, ORACLES[name](values.astype(np.float64)), "float32")


@pytest.mark.clause("CUDA-40")
@pytest.mark.parametrize("name", sorted(UNARY))
def test_functions_of_what_is_no_number_are_those_of_numpy(name: str) -> None:
    values = np.float32([each for each in SPECIAL if abs(each) < 1e30 or name not in ("cos", "sin")])
    with np.errstate(all="ignore"):
        wanted = getattr(NumpyOps(), name)(values)
    assert_close(at_every_schedule(lambda device: unary(device, name, laid(device, values))), exact(wanted), "float32")


@pytest.mark.clause("CUDA-40")
@given(hnp.arrays(np.float64, hnp.array_shapes(max_dims=2, max_side=9), elements=st.floats(-6, 6)))
def test_erf_keeps_float64(values: np.ndarray) -> None:
    actual = at_every_schedule(lambda device: unary(device, "erf", laid(device, values)))
    assert actual.dtype == np.float64
    assert_close(actual, oracles.error_function(values), "float64")


@pytest.mark.clause("CUDA-40")
@given(st.data(), st.sampled_from(sorted(BINARY)), layouts, layouts)
def test_two_operands_of_shapes_that_go_together(data: Any, name: str, layout: str, other: str) -> None:
    shape = data.draw(shapes())
    few = data.draw(st.booleans())
    first, second = data.draw(broadcastable(2)) if few else (shape, data.draw(st.sampled_from([shape, shape[1:], ()])))
    x, y = (data.draw(floats(each)) for each in (first, second))
    with np.errstate(all="ignore"):
        wanted = np.asarray(PAIRS[name](x, y))
    actual = at_every_schedule(lambda device: binary(device, name, laid(device, x, layout), laid(device, y, other)))
    assert_same(actual, wanted)


@pytest.mark.clause("CUDA-40")
@pytest.mark.parametrize("name", sorted(BINARY))
def test_two_operands_that_are_no_numbers(name: str) -> None:
    x = np.float32(SPECIAL)
    with np.errstate(all="ignore"):
        wanted = PAIRS[name](x[:, None], x)
    assert_same(
        at_every_schedule(lambda device: binary(device, name, laid(device, x[:, None]), laid(device, x))), wanted
    )


@pytest.mark.clause("CUDA-40")
def test_operands_that_no_kernel_takes_are_refused() -> None:
    device = device_at(1)
    whole, half, other = (device.upload(np.ones(3, kind)) for kind in (np.int32, np.float16, np.float32))
    assert binary(device, "add", whole, whole) is None
    assert binary(device, "add", other, half) is None
    assert binary(device, "add", other, other[:2]) is None
    assert binary(device, "minimum", other, other) is None
    assert unary(device, "exp", half) is None
    assert unary(device, "exp", other.astype(np.float64)) is None
    assert cast(device, whole, "float32") is None
    scattered = np.ones((2,) * 10, np.float32)[::, ::-1, ::, ::-1, ::, ::-1, ::, ::-1]
    assert unary(device, "exp", laid(device, scattered)[:, ::-1, :, ::-1, :, ::-1, :, ::-1]) is None


@pytest.mark.clause("CUDA-41")
@given(st.data(), st.sampled_from(["float32", "float64", "bfloat16", "uint8", "int64", "bool"]), layouts)
def test_a_copy_without_gaps(data: Any, dtype: str, layout: str) -> None:
    shape = data.draw(st.one_of(shapes(), st.just((2, 3, 2, 2, 3, 2))))
    values = (np.arange(int(np.prod(shape))) % 251).astype(host_dtype(dtype)).reshape(shape)

    def run(device: Any) -> Any:
        x = laid(device, values, layout)
        copy = contiguous(device, x)
        assert copy.flags.c_contiguous
        assert (copy is x) == x.flags.c_contiguous
        return copy

    assert_same(at_every_schedule(run), values)


@pytest.mark.clause("CUDA-41")
def test_one_element_that_stands_for_many_becomes_many() -> None:
    device = device_at(1)
    row = device.upload(np.arange(5, dtype=np.float32))
    assert_same(
        contiguous(device, np.broadcast_to(row, (3, 5))), np.broadcast_to(np.arange(5, dtype=np.float32), (3, 5))
    )


@st.composite
def exacting(draw: st.DrawFn) -> np.ndarray:
    """float64 near the middle between two neighbours of a smaller type, and some too large or too small for it."""
    bits, exponent = draw(st.sampled_from([8, 11, 24])), draw(st.integers(-30, 20))
    steps = np.arange(1 << (bits - 1), (1 << (bits - 1)) + 9)[:, None]
    near = np.float64([0, 2.0**-45, -(2.0**-45), 2.0**-20, -(2.0**-20)])
    middles = np.ldexp(steps + 0.5 + near, exponent - bits)
    edges = [65519.999, 65520.0, 3.5e38, 3.4e38, 1e-40, 1e-46, 1e300, 2.0**-25, 2.0**-25 * 1.0000001, 5e-324]
    return np.concatenate([middles.ravel(), -middles.ravel(), edges, SPECIAL])


@pytest.mark.clause("CUDA-42")
@given(exacting(), dtypes, dtypes, layouts)
def test_casts_are_those_of_the_definition_bit_for_bit(
    values: np.ndarray, source: str, target: str, layout: str
) -> None:
    with np.errstate(all="ignore"):
        values = values.astype(host_dtype(source))
        wanted = values.astype(host_dtype(target))
    actual = at_every_schedule(lambda device: cast(device, laid(device, values, layout), target))
    assert actual.dtype == wanted.dtype
    assert_same(actual, wanted)
    same = ~np.isnan(wanted.astype(np.float64))
    assert actual[same].tobytes() == wanted[same].tobytes()  # zeros keep their sign


def test_the_oracles_know_every_function() -> None:
    assert set(ORACLES) == set(UNARY)
    assert set(PAIRS) == set(BINARY)
    assert isinstance(exact(1.0), Expected)

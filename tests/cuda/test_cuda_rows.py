"""CUDA-43 to CUDA-45, CUDA-49: norms, activations and softmax."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.rows import RowKernels
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import oracles
from ferrum.conformance.oracles import Expected, exact
from ferrum.conformance.strategies import floats
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.parts import ACTIVATIONS, GatedMlp, Norm
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

# a warp's rows and a block's, whole fours and others, one pass of a block of 1024 threads and more
widths = st.one_of(st.integers(1, 40), st.sampled_from([64, 127, 128, 255, 256, 257, 260, 576, 1023, 4096, 4100, 5000]))
counts = st.one_of(st.integers(0, 3), st.sampled_from([8, 9, 17]))
activations = st.sampled_from(ACTIVATIONS)
Floats = NDArray[np.float32]


def on(device: Device, norm: Norm) -> Norm:
    """The norm with its arrays on the device."""
    bias = None if norm.bias is None else device.upload(norm.bias)
    return Norm(device.upload(norm.weight), norm.epsilon, bias, norm.centred)


@st.composite
def norms(draw: st.DrawFn, heads: int, n: int) -> Norm:
    """Draws a norm with one weight for all heads or one for each, sometimes with a bias."""
    shape = draw(st.sampled_from([(n,), (heads, n)]))
    bias = draw(floats(shape, -10, 10)) if draw(st.booleans()) else None
    return Norm(draw(floats(shape, -10, 10)), draw(st.sampled_from([1e-6, 1e-5, 0.5])), bias, draw(st.booleans()))


def by_definition(x: Floats, norm: Norm, heads: int) -> Expected:
    """[tokens, heads * n] -> the same shape"""
    parts = x.astype(np.float64).reshape(len(x), heads, x.shape[1] // heads)
    bias = None if norm.bias is None else norm.bias.astype(np.float64)
    whole = oracles.norm_of(exact(parts), norm.weight.astype(np.float64), bias, norm.epsilon, norm.centred)
    return whole.reshape(*x.shape)


@pytest.mark.clause("CUDA-43")
@given(st.data(), counts, st.sampled_from([1, 2, 3, 9]), widths, layouts)
def test_a_norm_of_each_head(data: Any, tokens: int, heads: int, n: int, layout: str) -> None:
    n = min(n, 300) if heads > 1 else n
    x, norm = data.draw(floats((tokens, heads * n))), data.draw(norms(heads, n))
    run = lambda device: RowKernels(device).normed(laid(device, x, layout), on(device, norm), heads)  # noqa: E731
    assert_close(at_every_schedule(run), by_definition(x, norm, heads), "float32")


@pytest.mark.clause("CUDA-43")
@given(st.data(), counts, widths, layouts, layouts, st.sampled_from([1.0, 0.25, -2.5]))
def test_what_is_added_to_a_residual(data: Any, tokens: int, n: int, layout: str, other: str, scale: float) -> None:
    y, residual = data.draw(floats((tokens, n))), data.draw(floats((tokens, n)))
    norm = data.draw(st.none() | norms(1, n).filter(lambda norm: norm.weight.ndim == 1))
    known = exact(y) if norm is None else by_definition(y, norm, 1)
    scaled = Expected(scale * known.value, abs(scale) * known.magnitude, known.terms)

    def run(device: Device) -> Array:
        after = None if norm is None else on(device, norm)
        return RowKernels(device).residual_add(laid(device, y, layout), laid(device, residual, other), after, scale)

    assert_close(at_every_schedule(run), scaled.plus(residual.astype(np.float64)), "float32")


@pytest.mark.clause("CUDA-43")
@pytest.mark.parametrize("n", [5, 300])
@pytest.mark.parametrize("centred", [False, True])
@pytest.mark.parametrize("value", [math.nan, math.inf, -math.inf, 1e30])
def test_a_row_that_cannot_be_normalised_is_what_the_definition_says(n: int, centred: bool, value: float) -> None:
    x = np.ones((2, n), np.float32)
    x[1, n - 2] = value
    norm = Norm(np.ones(n, np.float32), 1e-5, None, centred)
    with np.errstate(all="ignore"):
        wanted = NumpyOps().normed(x, norm)
    assert_close(
        at_every_schedule(lambda device: RowKernels(device).normed(laid(device, x), on(device, norm))),
        wanted,
        "float32",
    )


@pytest.mark.clause("CUDA-43")
def test_norms_that_no_kernel_takes_are_refused() -> None:
    device = device_at(1)
    rows, x, ones = (
        RowKernels(device),
        device.upload(np.ones((2, 6), np.float32)),
        device.upload(np.ones(6, np.float32)),
    )
    assert rows.normed(x, Norm(ones[:3], 1e-5)) is None
    assert rows.normed(x, Norm(ones, 1e-5), 4) is None
    assert rows.normed(x, Norm(ones, 1e-5, ones[:3])) is None
    assert rows.normed(x, Norm(ones.astype(np.float16), 1e-5)) is None
    assert rows.normed(x, Norm(device.upload(np.ones(12, np.float32))[::2], 1e-5)) is None
    assert rows.normed(x.astype(np.float64), Norm(ones, 1e-5)) is None
    assert rows.residual_add(x, x[:1], None) is None
    assert rows.residual_add(x, x.astype(np.float64), None) is None


@pytest.mark.clause("CUDA-44")
@given(st.data(), st.sampled_from([(), (0, 3), (3, 5), (2, 3, 4), (1023,), (2, 1025)]), activations, layouts)
def test_activations(data: Any, shape: tuple[int, ...], name: str, layout: str) -> None:
    x = data.draw(floats(shape))
    actual = at_every_schedule(lambda device: RowKernels(device).activated(laid(device, x, layout), name))
    assert_close(actual, oracles.ACTIVATIONS[name](x.astype(np.float64)), "float32")


@pytest.mark.clause("CUDA-44")
@pytest.mark.parametrize("name", ACTIVATIONS)
def test_an_activation_is_finite_for_every_finite_number(name: str) -> None:
    x = np.float32([3e38, -3e38, 89.0, -89.0, -104.0, 1e20, -1e20, 1e-45, 0.0, math.nan, math.inf, -math.inf])
    with np.errstate(all="ignore"):
        wanted = NumpyOps().activated(x, name)
    actual = at_every_schedule(lambda device: RowKernels(device).activated(laid(device, x), name))
    assert np.isfinite(actual[:9]).all()
    assert_close(actual, wanted, "float32")


def gated_by_definition(gate: Floats, up: Floats, mlp: GatedMlp) -> Expected:
    limit = math.inf if mlp.limit is None else mlp.limit
    opened = oracles.activated(oracles.clipped(exact(gate), -math.inf, limit), mlp.activation)
    return oracles.times(opened, oracles.clipped(exact(up), -limit, limit).plus(np.float64(mlp.up_offset)))


@pytest.mark.clause("CUDA-44")
@given(st.data(), counts, widths, activations, layouts, layouts)
def test_a_gate(data: Any, tokens: int, n: int, name: str, layout: str, other: str) -> None:
    gate, up = (data.draw(floats((tokens, n), -50, 50)) for _ in range(2))
    none: Any = None
    limit, offset = data.draw(st.sampled_from([None, 7.0])), data.draw(st.sampled_from([0.0, 1.0]))
    mlp = GatedMlp(none, none, none, name, limit, offset)
    run = lambda device: RowKernels(device).gated(laid(device, gate, layout), laid(device, up, other), mlp)  # noqa: E731
    assert_close(at_every_schedule(run), gated_by_definition(gate, up, mlp), "float32")


@pytest.mark.clause("CUDA-44")
def test_gate_and_up_may_be_columns_of_one_product_and_are_not_copied() -> None:
    device, none = device_at(1), None
    both: Any = device.upload(np.arange(60, dtype=np.float32).reshape(3, 20) / 10)
    before = device.launches
    gated = RowKernels(device).gated(both[:, :10], both[:, 10:], GatedMlp(none, none, none))  # type: ignore[arg-type]
    assert device.launches == before + 1
    assert_close(gated, gated_by_definition(both[:, :10], both[:, 10:], GatedMlp(none, none, none)), "float32")  # type: ignore[arg-type]


@pytest.mark.clause("CUDA-44")
def test_a_limit_lets_nan_through() -> None:
    none: Any = None
    gate, up = np.float32([[math.nan, 9, -9, 1]]), np.float32([[1, -9, 9, math.nan]])
    mlp = GatedMlp(none, none, none, "relu", 7.0)
    run = lambda device: RowKernels(device).gated(laid(device, gate), laid(device, up), mlp)  # noqa: E731
    assert_close(at_every_schedule(run), np.float64([[math.nan, -49, 0, math.nan]]), "float32")


@pytest.mark.clause("CUDA-44")
def test_gates_that_no_kernel_takes_are_refused() -> None:
    none: Any = None
    rows, x = RowKernels(device_at(1)), np.ones((2, 6), np.float32)
    assert rows.gated(x, x, GatedMlp(none, none, none, "swish")) is None
    assert rows.gated(x, x[:, :3], GatedMlp(none, none, none)) is None
    assert rows.gated(x.astype(np.float64), x, GatedMlp(none, none, none)) is None
    assert rows.activated(x, "swish") is None
    assert rows.activated(x.astype(np.float16), "silu") is None
    assert rows.softcapped(x.astype(np.float64), 3.0) is None
    assert rows.softmax(x.astype(np.float64)) is None
    assert rows.softmax(np.float32(1).reshape(())) is None


@pytest.mark.clause("CUDA-44")
@given(st.data(), st.sampled_from([(0, 3), (3, 5), (2, 1025)]), st.sampled_from([0.5, 30.0]), layouts)
def test_a_softcap(data: Any, shape: tuple[int, ...], cap: float, layout: str) -> None:
    x = data.draw(floats(shape))
    x.flat[:1] = data.draw(st.sampled_from([1.0, math.inf, -math.inf, math.nan]))
    actual = at_every_schedule(lambda device: RowKernels(device).softcapped(laid(device, x, layout), cap))
    assert_close(actual, oracles.softcapped(x.astype(np.float64), cap), "float32")


@pytest.mark.clause("CUDA-45")
@given(st.data(), counts, widths, layouts, st.booleans())
def test_softmax_and_its_logarithm(data: Any, tokens: int, n: int, layout: str, is_log: bool) -> None:
    x = data.draw(floats((tokens, n), -60, 60)) + np.float32(data.draw(st.sampled_from([0, -200, 200])))
    masked = data.draw(st.sampled_from(["nothing", "some", "a row", "infinite", "nan"]))
    if tokens and masked != "nothing":
        random = np.random.default_rng(data.draw(st.integers(0, 99)))
        if masked == "some":
            x[random.random(x.shape) < 0.5] = -np.inf
        else:
            x[0, {"a row": slice(None), "infinite": 0, "nan": n - 1}[masked]] = {
                "a row": -np.inf,
                "infinite": np.inf,
            }.get(masked, np.nan)
    name = "log_softmax" if is_log else "softmax"
    with np.errstate(all="ignore"):
        wanted = getattr(oracles, name)(x.astype(np.float64))
    actual = at_every_schedule(lambda device: getattr(RowKernels(device), name)(laid(device, x, layout)))
    assert_close(actual, wanted, "float32")


@pytest.mark.clause("CUDA-49")
@given(st.data(), st.sampled_from([2, 9, 17]), st.sampled_from([3, 64, 257, 576, 4100]), layouts)
def test_a_row_does_not_notice_how_many_others_there_are(data: Any, tokens: int, n: int, layout: str) -> None:
    rows, device = RowKernels(device_at(1)), device_at(1)
    x, norm = data.draw(floats((tokens, n))), on(device, data.draw(norms(1, n)))
    row = data.draw(st.integers(0, tokens - 1))
    together, alone = laid(device, x, layout), laid(device, x[row : row + 1])
    for run in (lambda x: rows.normed(x, norm), rows.softmax, lambda x: rows.activated(x, "gelu")):
        assert run(together)[row].tobytes() == run(alone)[0].tobytes()

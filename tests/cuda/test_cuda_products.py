"""CUDA-20 to CUDA-25: stored weights, decoded to the bit, and their products with a few tokens."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import ml_dtypes
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.cuda.products import MOST_TOGETHER, Products
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import oracles
from ferrum.conformance.oracles import Expected
from ferrum.conformance.strategies import FLOAT_KINDS, KINDS, WEIGHT_TYPES, Host, block_size, floats, seeds
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.ops import host_dtype
from ferrum.tensor.parts import ACTIVATIONS, GatedMlp
from ferrum.tensor.weights import Dense, Linear, Weight
from ferrum.testing.blocks import random_blocks
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

kinds = st.sampled_from(KINDS)
token_counts = st.one_of(st.integers(1, 9), st.sampled_from([15, 16, 17, 25]))
# less than a sweep of a warp, all of it, more; a round of sweeps, more
blocks_of_a_row = {4: [1, 2, 31, 32, 33, 128, 130, 257], 32: [1, 2, 3, 4, 8, 9, 33], 256: [1, 2, 3, 4, 5]}
row_counts = st.one_of(st.integers(1, 9), st.integers(1, 70))


@dataclass(frozen=True)
class Stored:
    """A linear on the host: its weight as it is stored, and its bias."""

    kind: str
    data: Host
    bias: Host | None

    def values(self) -> Host:
        """The weight by its definition."""
        return np.asarray(self.weight(self.data).dequantize(NumpyOps(), self.data))

    def weight(self, data: Array) -> Weight:
        return (Dense if self.kind in FLOAT_KINDS else WEIGHT_TYPES[self.kind])(data)

    def on(self, device: Device) -> Linear:
        return Linear(self.weight(device.upload(self.data)), None if self.bias is None else device.upload(self.bias))

    def product(self, x: Host) -> Expected:
        values, bias = self.values().astype(np.float64), self.bias
        with np.errstate(invalid="ignore"):
            return oracles.linear(x, values, np.abs(values), None if bias is None else bias.astype(np.float64))


@st.composite
def stored(draw: st.DrawFn, kind: str, columns: int | None = None, rows: int | None = None) -> Stored:
    """Draws a linear with a weight of this kind and sometimes a bias."""
    random = np.random.default_rng(draw(seeds))
    block = max(block_size(kind), 4)
    columns = block * draw(st.sampled_from(blocks_of_a_row[block])) if columns is None else columns
    rows = draw(row_counts) if rows is None else rows
    if kind in FLOAT_KINDS:
        data: Host = random.standard_normal((rows, columns)).astype(host_dtype(kind))
    else:
        data = random_blocks(kind, (rows, columns), random, zeros=0.05)
    return Stored(kind, data, draw(floats((rows,), -10, 10)) if draw(st.booleans()) else None)


@st.composite
def siblings(draw: st.DrawFn, most: int = MOST_TOGETHER) -> list[Stored]:
    """Draws linears with one input: equal kinds and columns, any rows."""
    first = draw(stored(draw(kinds)))
    columns = first.values().shape[1]
    return [first, *(draw(stored(first.kind, columns)) for _ in range(draw(st.integers(0, most - 1))))]


def joined(parts: Sequence[Expected]) -> Expected:
    fields = ([getattr(part, name) for part in parts] for name in ("value", "magnitude"))
    return Expected(*(np.concatenate(field, -1) for field in fields), parts[0].terms)


def placed(device: Device, group: Sequence[Stored]) -> tuple[Linear, ...]:
    return tuple(each.on(device) for each in group)


# ---- weights in plain numbers


@pytest.mark.clause("CUDA-20")
@given(st.data(), kinds)
def test_a_decoded_weight_has_the_bits_of_its_definition(data: Any, kind: str) -> None:
    case = data.draw(stored(kind))
    wanted = case.values()
    for dtype in ("float32", "bfloat16"):
        actual = at_every_schedule(lambda device, to=dtype: Products(device).dequantized(case.on(device).weight, to))
        assert actual.tobytes() == wanted.astype(host_dtype(dtype)).tobytes()


@pytest.mark.clause("CUDA-20")
@pytest.mark.parametrize("kind", [kind for kind in KINDS if kind not in FLOAT_KINDS])
def test_any_bytes_are_decoded_like_the_definition(kind: str) -> None:
    """Infinite scales and those that are no number among them."""
    width = random_blocks(kind, (1, block_size(kind)), np.random.default_rng(0)).shape[1]
    case = Stored(kind, np.random.default_rng(1).integers(0, 256, (40, 3 * width), np.uint8), None)
    with np.errstate(invalid="ignore"):
        wanted = case.values()
    assert not np.isfinite(wanted).all()
    assert_same(
        at_every_schedule(lambda device: Products(device).dequantized(case.on(device).weight, "float32")), wanted
    )


@pytest.mark.clause("CUDA-25")
@given(st.data(), layouts)
def test_activations_are_rounded_to_nearest(data: Any, layout: str) -> None:
    x = data.draw(floats(data.draw(st.sampled_from([(1,), (3, 7), (2, 3, 100), (0, 4)]))))
    actual = at_every_schedule(lambda device: Products(device).rounded(laid(device, x, layout)))
    assert actual.tobytes() == x.astype(ml_dtypes.bfloat16).tobytes()


# ---- products


@pytest.mark.clause("CUDA-21")
@given(st.data(), siblings(), token_counts, layouts)
def test_products_of_linears_side_by_side(data: Any, group: list[Stored], tokens: int, layout: str) -> None:
    columns, rows = group[0].values().shape[1], sum(len(each.data) for each in group)
    x = data.draw(floats((tokens, columns), -100, 100))
    residual = data.draw(st.one_of(st.none(), floats((tokens, rows))))
    scale = data.draw(st.sampled_from([1.0, 0.25, -3.0]))

    def run(device: Device) -> Array:
        products, operand, linears = Products(device), laid(device, x, layout), placed(device, group)
        assert products.fits(operand, linears) or columns % 4 or tokens == 1  # one token in a gap may lie at any place
        operand = operand if products.fits(operand, linears) else laid(device, x)
        return products.few(operand, linears, None if residual is None else laid(device, residual, layout), scale)

    product = joined([each.product(x.astype(np.float64)) for each in group])
    wanted = Expected(product.value * scale, product.magnitude * abs(scale), product.terms)
    assert_close(at_every_schedule(run), wanted if residual is None else wanted.plus(residual), "float32")


@pytest.mark.clause("CUDA-21")
@given(st.data(), siblings(1), st.sampled_from([np.nan, np.inf, -np.inf]))
def test_what_is_no_number_stays_in_its_row(data: Any, group: list[Stored], odd: float) -> None:
    x = data.draw(floats((5, group[0].values().shape[1]), -100, 100))
    token, column = data.draw(st.integers(0, 4)), data.draw(st.integers(0, x.shape[1] - 1))
    x[token, column] = odd
    actual = at_every_schedule(lambda device: Products(device).few(laid(device, x), placed(device, group)))
    assert_close(actual, group[0].product(x.astype(np.float64)), "float32")


@pytest.mark.clause("CUDA-22")
@given(st.data(), siblings(), token_counts)
def test_a_token_and_a_row_do_not_see_the_others(data: Any, group: list[Stored], tokens: int) -> None:
    x = data.draw(floats((tokens, group[0].values().shape[1]), -100, 100))
    begin = data.draw(st.integers(0, tokens - 1))
    end = data.draw(st.integers(begin + 1, tokens))
    device = device_at(1)
    products, linears = Products(device), placed(device, group)
    together = products.few(laid(device, x), linears)
    some = products.few(laid(device, x[begin:end]), linears)
    assert some.tobytes() == together[begin:end].tobytes()
    apart = [products.few(laid(device, x), (each,)) for each in linears]
    assert np.concatenate(apart, 1).tobytes() == together.tobytes()


@pytest.mark.clause("CUDA-22")
def test_blocks_of_any_size_give_the_same_bits() -> None:
    """A product that is small for the device runs in small blocks."""
    x = np.random.default_rng(0).standard_normal((3, 64)).astype(np.float32)
    weight = np.random.default_rng(1).standard_normal((150, 64)).astype(np.float32)
    device = device_at(1)
    whole = Products(device).few(device.upload(x), (Linear(Dense(device.upload(weight))),))
    for row in (0, 3, 70, 149):
        alone = Products(device).few(device.upload(x), (Linear(Dense(device.upload(weight[row : row + 1]))),))
        assert alone.tobytes() == whole[:, row : row + 1].tobytes()


# ---- the gate of an MLP


@pytest.mark.clause("CUDA-23")
@given(st.data(), kinds, token_counts, st.sampled_from(ACTIVATIONS))
def test_gate_and_up_in_one_pass(data: Any, kind: str, tokens: int, activation: str) -> None:
    gate = data.draw(stored(kind))
    up = data.draw(stored(kind, gate.values().shape[1], len(gate.data)))
    limit, offset = data.draw(st.sampled_from([None, 7.0, 0.5])), data.draw(st.sampled_from([0.0, 1.0]))
    x = data.draw(floats((tokens, gate.values().shape[1]), -3, 3))
    down = Stored("float32", np.zeros((4, 4), np.float32), None)

    def run(device: Device) -> Array:
        products, operand = Products(device), laid(device, x)
        mlp = GatedMlp(*placed(device, (gate, up, down)), activation, limit, offset)
        assert products.fits_gated(operand, mlp)
        return products.gated(operand, mlp)

    opened, passed = gate.product(x.astype(np.float64)), up.product(x.astype(np.float64))
    if limit is not None:
        opened, passed = oracles.clipped(opened, -np.inf, limit), oracles.clipped(passed, -limit, limit)
    wanted = oracles.times(oracles.activated(opened, activation), passed.plus(np.asarray(offset)))
    assert_close(at_every_schedule(run), wanted, "float32")


@pytest.mark.clause("CUDA-23")
@pytest.mark.parametrize("activation", ACTIVATIONS)
def test_an_activation_is_finite_for_finite_numbers_and_keeps_nan(activation: str) -> None:
    x = np.zeros((9, 4), np.float32)
    x[:, 0] = [3e38, -3e38, 100, -100, -0.0, 1.25, -2.5, 0.01, np.nan]
    first, nothing = np.float32([[1, 0, 0, 0]]), np.zeros((1, 4), np.float32)

    def run(device: Device) -> Array:
        gate = Linear(Dense(device.upload(first)))
        one = Linear(Dense(device.upload(nothing)), device.upload(np.float32([1])))
        return Products(device).gated(laid(device, x), GatedMlp(gate, one, one, activation))

    with np.errstate(all="ignore"):
        wanted = NumpyOps().activated(x[:, :1], activation)
    actual = at_every_schedule(run)
    assert np.isfinite(actual[:-1]).all()
    np.testing.assert_allclose(actual, wanted, rtol=1e-5, atol=1e-37)


# ---- rows by token


@pytest.mark.clause("CUDA-24")
@given(st.data(), kinds, st.integers(0, 30), st.sampled_from([1.0, 12.5]))
def test_rows_of_a_table(data: Any, kind: str, tokens: int, scale: float) -> None:
    table = data.draw(stored(kind))
    vocab = len(table.data)
    ids = np.array(data.draw(st.lists(st.integers(-3, vocab + 2), min_size=tokens, max_size=tokens)), np.int32)
    layout = data.draw(layouts)

    def run(device: Device) -> Array:
        return Products(device).embed(table.on(device).weight, laid(device, ids, layout), scale)

    known = (ids >= 0) & (ids < vocab)
    rows = table.values()[np.where(known, ids, 0)] * np.float32(scale)
    assert_same(at_every_schedule(run), np.where(known[:, None], rows, np.float32(np.nan)))


# ---- what does not fit


@pytest.mark.clause("CUDA-25")
def test_what_kernels_cannot_read_does_not_fit() -> None:
    device = device_at(1)
    products = Products(device)

    def linear(columns: int, dtype: str = "float32", bias: Array | None = None) -> Linear:
        return Linear(Dense(device.upload(np.zeros((8, columns), host_dtype(dtype)))), bias)

    def x(columns: int, dtype: str = "float32") -> Array:
        return device.upload(np.zeros((2, columns), dtype))

    bias = device.upload(np.zeros(8, np.float32))
    assert products.fits(x(8), (linear(8, bias=bias),))
    assert products.fits(x(8), (linear(8),) * 3) and not products.fits(x(8), (linear(8),) * 4)
    assert not products.fits(x(8), ())
    assert not products.fits(x(6), (linear(6),)), "columns that are not whole blocks"
    assert not products.fits(x(8), (linear(12),)), "other columns"
    assert not products.fits(x(8, "float64"), (linear(8),)) and not products.fits(x(8), (linear(8, "float64"),))
    assert not products.fits(x(8), (linear(8), linear(8, "bfloat16"))), "two formats"
    assert not products.fits(x(8), (linear(8, bias=device.upload(np.zeros(8, np.float64))),))
    assert not products.fits(x(8), (linear(8, bias=device.upload(np.zeros(16, np.float32))[::2]),))
    wide = device.upload(np.zeros((8, 12), np.float32))
    assert not products.fits(x(8), (Linear(Dense(wide[:, 4:])),)), "a weight with gaps"
    assert not products.fits(x(8), (Linear(Dense(wide.reshape(-1)[1:65].reshape(8, 8))),)), "an odd address"
    assert products.fits(wide[:1, 1:9], (linear(8),)) and products.fits(wide[:2, 1:9], (linear(8),)), "it is copied"
    table, ids = linear(8).weight, np.zeros(2, np.int64)
    assert products.embed(table, device.upload(ids)) is None
    assert products.embed(linear(6).weight, device.upload(ids.astype(np.int32))) is None
    gate, other = linear(8), Linear(Dense(device.upload(np.zeros((4, 8), np.float32))))
    assert products.fits_gated(x(8), GatedMlp(gate, gate, gate))
    assert not products.fits_gated(x(8), GatedMlp(gate, other, gate))
    assert not products.fits_gated(x(8), GatedMlp(gate, gate, gate, activation="swish"))

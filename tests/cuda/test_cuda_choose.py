"""CUDA-46 to CUDA-49: the largest logits, how likely tokens are, and drawing one."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum.backends.cuda.choose import MOST_LARGEST, Choosing
from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance.strategies import floats
from ferrum.tensor.drawing import (
    GREEDY_BELOW,
    apply_min_p,
    apply_temperature,
    apply_top_k,
    apply_top_p,
    draw,
    weights_of,
)
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

# one warp and many, whole lines of 32 and others, one chunk and many
vocabularies = st.one_of(st.integers(1, 70), st.sampled_from([255, 256, 257, 1024, 2047, 2049, 4099, 9000]))
CLOSE = 1e-12
OPS = NumpyOps("float64")


@st.composite
def logits(draw: st.DrawFn, n: int, special: bool = True) -> NDArray[np.float32]:
    """[rows, n], some with many ties, with -inf, and where `special` with NaN and +inf."""
    x = draw(floats((draw(st.integers(1, 3)), n), -40, 40))
    kinds = [
        "plain",
        "pairs",
        "some masked",
        "zeros of both signs",
        *(["nan", "negative nan", "inf", "all masked"] if special else []),
    ]
    kind, random = draw(st.sampled_from(kinds)), np.random.default_rng(draw(st.integers(0, 999)))
    few = random.random(n) < 0.3
    few[random.integers(n)] = False
    if kind == "pairs":
        x = x[:, random.permutation(n) // 2]
    elif kind == "some masked":
        x[:, few] = -np.inf
    elif kind == "zeros of both signs":
        x[:, few] = -0.0
        x[:, random.random(n) < 0.3] = 0.0
    elif kind != "plain":
        value = {"nan": np.nan, "negative nan": -np.nan, "inf": np.inf, "all masked": -np.inf}[kind]
        x[0, slice(None) if kind == "all masked" else few] = value
    return x


def order(row: NDArray[np.float32]) -> list[int]:
    """Tokens, the best first: NaN before everything, then the largest, equal ones by id."""
    return sorted(range(len(row)), key=lambda id: (not math.isnan(row[id]), 0 if math.isnan(row[id]) else -row[id], id))


@pytest.mark.clause("CUDA-46")
@given(st.data(), vocabularies, layouts)
def test_the_largest_of_each_row_and_the_first_of_equal_ones(data: Any, n: int, layout: str) -> None:
    x = data.draw(logits(n))
    actual = at_every_schedule(lambda device: Choosing(device).argmax(laid(device, x, layout)))
    assert actual.dtype == np.int64
    assert actual.tolist() == np.argmax(x, -1).tolist()


@pytest.mark.clause("CUDA-46")
@pytest.mark.parametrize(
    "row", [[-0.0, 0.0], [0.0, -0.0], [1, np.nan, np.inf], [-np.nan, np.nan], [np.inf, -np.nan], [-np.inf] * 2]
)
def test_zeros_are_equal_and_nan_is_the_largest(row: list[float]) -> None:
    x = np.float32([row])
    assert at_every_schedule(lambda device: Choosing(device).argmax(laid(device, x))).tolist() == [np.argmax(row)]


@pytest.mark.clause("CUDA-46")
def test_the_largest_of_a_long_vocabulary_in_each_of_its_chunks() -> None:
    places = [0, 2047, 2048, 99_999, 149_999]
    x = np.zeros((len(places), 150_000), np.float32)
    x[range(len(places)), places] = 1
    assert at_every_schedule(lambda device: Choosing(device).argmax(laid(device, x))).tolist() == places


@pytest.mark.clause("CUDA-46")
def test_logits_that_no_kernel_takes_are_refused() -> None:
    device = device_at(1)
    choosing, x, ids = Choosing(device), np.ones((2, 6), np.float32), np.zeros(2, np.int64)
    for wrong in (x.astype(np.float64), x[0], x[:, :0]):
        assert choosing.argmax(wrong) is None
        assert choosing.top_k(wrong, 1) is None
        assert choosing.logsumexp(wrong) is None
        assert choosing.rank(wrong, ids) is None
    assert choosing.top_k(x, 7) is None
    assert choosing.top_k(x, 0) is None
    assert choosing.top_k(np.ones((1, 2000), np.float32), MOST_LARGEST + 1) is None
    assert choosing.rank(x, ids[:1]) is None
    assert choosing.rank(x, ids.astype(np.int32)) is None
    settings = np.ones((2, 5))
    assert choosing.choose(x, settings[:1]) is None
    assert choosing.choose(x, settings.astype(np.float32)) is None
    assert choosing.choose(x, settings[:, :4]) is None
    assert choosing.ranked(x, ids, 7) is None
    assert choosing.ranked(x, ids[:1], 2) is None


@pytest.mark.clause("CUDA-47")
@given(st.data(), vocabularies, layouts)
def test_the_largest_few_in_order(data: Any, n: int, layout: str) -> None:
    x = data.draw(logits(n))
    most = min(n, MOST_LARGEST)
    k = data.draw(st.one_of(st.integers(1, min(n, 20)), st.sampled_from([most, max(1, most - 1)])))
    values, ids = at_every_schedule(lambda device: Choosing(device).top_k(laid(device, x, layout), k))
    assert ids.tolist() == [order(row)[:k] for row in x]
    assert values.tobytes() == np.take_along_axis(x, ids, -1).tobytes()


@pytest.mark.clause("CUDA-47")
@given(st.data(), vocabularies, layouts)
def test_the_logarithm_of_all_weights(data: Any, n: int, layout: str) -> None:
    x = data.draw(logits(n))
    actual = at_every_schedule(lambda device: Choosing(device).logsumexp(laid(device, x, layout)))
    assert actual.dtype == np.float64
    for row, found in zip(x.astype(np.float64), actual, strict=True):
        most = row.max()
        wanted = most + math.log(math.fsum(np.exp(row - most))) if math.isfinite(most) else math.nan
        assert found == pytest.approx(wanted, rel=1e-14, abs=1e-14, nan_ok=True)


@pytest.mark.clause("CUDA-47")
@given(st.data(), vocabularies, layouts)
def test_how_many_are_better(data: Any, n: int, layout: str) -> None:
    x = data.draw(logits(n))
    tokens = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=len(x), max_size=len(x))))
    actual = at_every_schedule(lambda device: Choosing(device).rank(laid(device, x, layout), laid(device, tokens)))
    assert actual.tolist() == [order(row).index(token) for row, token in zip(x, tokens, strict=True)]


@pytest.mark.clause("CUDA-47", "OPS-75")
@given(st.data(), vocabularies, layouts)
def test_what_is_told_of_tokens(data: Any, n: int, layout: str) -> None:
    x = data.draw(logits(n, special=False))
    tokens = np.array(data.draw(st.lists(st.integers(0, n - 1), min_size=len(x), max_size=len(x))))
    count = data.draw(st.integers(0, min(n, 20)))
    actual = at_every_schedule(
        lambda device: Choosing(device).ranked(laid(device, x, layout), laid(device, tokens), count)
    )
    np.testing.assert_allclose(actual, OPS.ranked(x, tokens, count), rtol=1e-13, atol=1e-13)


@pytest.mark.clause("CUDA-47")
def test_a_number_that_is_no_token_has_none_behind_it() -> None:
    x, tokens = np.full((3, 5), -1, np.float32), np.array([-1, 5, 4])
    x[2, 0] = 3  # what stands behind the last token of the row before
    actual = at_every_schedule(lambda device: Choosing(device).rank(laid(device, x), laid(device, tokens)))
    assert actual.tolist() == [5, 5, 4]


@dataclass(frozen=True)
class Wishes:
    """The settings of each row, each an array [rows]."""

    temperature: NDArray[np.float64]
    top_k: NDArray[np.float64]
    top_p: NDArray[np.float64]
    min_p: NDArray[np.float64]
    unit: NDArray[np.float64]

    def on(self, device: Device) -> Array:
        """[rows, 5]"""
        return device.upload(np.stack([self.temperature, self.top_k, self.top_p, self.min_p, self.unit], 1))

    def of(self, row: int) -> Wishes:
        return Wishes(*(getattr(self, name)[row : row + 1] for name in self.__dataclass_fields__))


@st.composite
def wishes(draw: st.DrawFn, rows: int, n: int) -> Wishes:
    """Draws the settings of rows of n logits."""

    def column(each: st.SearchStrategy[Any], dtype: type) -> NDArray[Any]:
        return np.array([draw(each) for _ in range(rows)], dtype)

    share = st.one_of(st.just(1.0), st.sampled_from([1e-9, 0.5, 0.9, 0.95]), st.floats(1e-6, 1))
    return Wishes(
        column(st.sampled_from([0.0, 1e-6, 1e-5, 0.05, 0.7, 1.0, 5.0]), np.float64),
        column(st.one_of(st.just(0), st.integers(1, n + 2)), np.float64),
        column(share, np.float64),
        column(st.one_of(st.just(0.0), st.sampled_from([1e-3, 0.05, 0.5, 1.0])), np.float64),
        column(st.one_of(st.just(2**24 - 1), st.integers(0, 2**24 - 1)).map(lambda bits: bits / 2**24), np.float64),
    )


def by_definition(row: NDArray[np.float32], wish: Wishes) -> tuple[int, bool]:
    """What `ferrum.sample` draws of one row, and whether some sum or weight comes so close to what it is compared with
    that its last bits decide."""
    if wish.temperature[0] < GREEDY_BELOW:
        return int(np.argmax(row)), False
    temperature, top_k, top_p, min_p, unit = (each[:, None] for each in vars(wish).values())
    x = apply_top_k(OPS, apply_temperature(OPS, row[None].astype(np.float64), temperature), top_k)
    weights = weights_of(OPS, x)
    near = _near(np.sort(weights[0])[::-1].cumsum(), top_p[0, 0] * weights.sum()) if top_p[0, 0] < 1 else False
    x = apply_top_p(OPS, x, top_p)
    near |= _near(weights[0][weights[0] > 0], min_p[0, 0])
    x = apply_min_p(OPS, x, min_p)
    running = weights_of(OPS, x)[0].cumsum()
    near |= _near(running, unit[0, 0] * running[-1])
    return int(draw(OPS, x, unit)[0]), near


def _near(values: NDArray[np.float64], bound: float) -> bool:
    return bool((np.abs(values - bound) < CLOSE * abs(bound)).any())


@pytest.mark.clause("CUDA-48")
@given(st.data(), vocabularies, layouts)
def test_a_draw_is_that_of_the_definition(data: Any, n: int, layout: str) -> None:
    x = data.draw(logits(n, special=False))
    wish = data.draw(wishes(len(x), n))
    tokens = at_every_schedule(lambda device: Choosing(device).choose(laid(device, x, layout), wish.on(device)))
    for index, token in enumerate(tokens.tolist()):
        wanted, near = by_definition(x[index], wish.of(index))
        assert token == wanted or near, f"row {index}: {token}, by definition {wanted}"


@pytest.mark.clause("CUDA-48")
@pytest.mark.parametrize("top_k", [0, 40])
@pytest.mark.parametrize("top_p", [1.0, 0.9])
@pytest.mark.parametrize("min_p", [0.0, 0.02])
def test_every_token_is_drawn_as_often_as_its_weight_says(top_k: int, top_p: float, min_p: float) -> None:
    """Numbers from all over [0, 1) draw what they draw by definition: tokens on both sides of every boundary."""
    rows, n = 64, 700
    x = np.random.default_rng(top_k).standard_normal(n).astype(np.float32) * 2
    unit = (np.arange(rows) * 2**18 + 11) / 2**24
    wish = Wishes(np.full(rows, 0.8), np.full(rows, top_k), np.full(rows, top_p), np.full(rows, min_p), unit)
    device = device_at(1)
    tokens = Choosing(device).choose(laid(device, np.tile(x, (rows, 1))), wish.on(device))
    assert tokens.tolist() == [by_definition(x, wish.of(row))[0] for row in range(rows)]
    assert len(set(tokens.tolist())) > 10


@pytest.mark.clause("CUDA-48")
@given(st.data(), st.integers(0, 12).map(lambda bits: 2**bits), st.booleans())
def test_equal_logits_are_drawn_exactly(data: Any, n: int, is_cut: bool) -> None:
    """Every sum is a whole number: a draw that comes to it exactly goes on to the token after it, and a share that is
    reached exactly ends."""
    kept = data.draw(st.integers(1, n)) if is_cut else n
    number = data.draw(st.one_of(st.integers(0, kept - 1), st.just(kept - 1)))
    # numbers of one half more, where n / kept is no whole number and unit * kept would be rounded
    unit = number / n if not is_cut else (number + 0.5) / kept
    wish = Wishes(*(np.array([each], np.float64) for each in (0.7, 0, kept / n if is_cut else 1, 0, unit)))
    x = np.full((1, n), 2.5, np.float32)
    tokens = at_every_schedule(lambda device: Choosing(device).choose(laid(device, x), wish.on(device)))
    assert tokens.tolist() == [number]


@pytest.mark.clause("CUDA-48")
def test_a_sum_that_is_reached_exactly_where_the_share_of_a_warp_ends_goes_on_to_the_next() -> None:
    rows, n = 16, 4096
    numbers, ones = np.arange(rows) * (n // rows), np.ones(rows)
    wish = Wishes(ones, ones * 0, ones, ones * 0, numbers / n)
    x = np.full((rows, n), 2.5, np.float32)
    tokens = at_every_schedule(lambda device: Choosing(device).choose(laid(device, x), wish.on(device)))
    assert tokens.tolist() == numbers.tolist()


@pytest.mark.clause("CUDA-48")
def test_of_two_equal_logits_a_half_keeps_the_first() -> None:
    wish = Wishes(*(np.array([each], np.float64) for each in (1, 0, 0.5, 0, 0.75)))
    x = np.float32([[2, 2]])
    assert at_every_schedule(lambda device: Choosing(device).choose(laid(device, x), wish.on(device))).tolist() == [0]


@pytest.mark.clause("CUDA-48")
def test_a_long_vocabulary() -> None:
    x = np.random.default_rng(5).standard_normal((2, 150_000)).astype(np.float32) * 3
    half = np.full(2, 0.5)
    wish = Wishes(np.ones(2), np.array([0, 50_000]), half * 1.9, half * 0, half)
    tokens = at_every_schedule(lambda device: Choosing(device).choose(laid(device, x), wish.on(device)))
    assert tokens.tolist() == [by_definition(x[row], wish.of(row))[0] for row in range(2)]


@pytest.mark.clause("CUDA-48")
@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
def test_a_row_without_a_finite_largest_logit_gives_its_argmax(value: float) -> None:
    """The logit of the chosen token shows the error to the caller."""
    x = np.full((1, 40), -np.inf, np.float32)
    x[0, 7:9] = value
    wish = Wishes(np.ones(1), np.array([3]), np.full(1, 0.9), np.full(1, 0.1), np.full(1, 0.5))
    tokens = at_every_schedule(lambda device: Choosing(device).choose(laid(device, x), wish.on(device)))
    assert tokens.tolist() == np.argmax(x, -1).tolist()


@pytest.mark.clause("CUDA-49")
@given(st.data(), st.sampled_from([5, 257, 2049, 9000]))
def test_a_row_cannot_tell_its_batch_mates(data: Any, n: int) -> None:
    device = device_at(1)
    choosing, x = Choosing(device), data.draw(logits(n))
    wish = data.draw(wishes(len(x), n))
    row = data.draw(st.integers(0, len(x) - 1))
    together, alone = laid(device, x), laid(device, x[row : row + 1])
    sums, sum_alone = choosing.logsumexp(together), choosing.logsumexp(alone)
    assert sums is not None
    assert sums[row].tobytes() == sum_alone[0].tobytes()
    assert choosing.choose(together, wish.on(device))[row] == choosing.choose(alone, wish.of(row).on(device))[0]

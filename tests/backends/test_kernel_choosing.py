"""OPS-74, -75: the kernel that chooses tokens chooses those of the definition, or leaves a row to it; the kernel that
reports log probabilities and ranks reports those of the definition."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.sizes import MOST_BIN_MEMBERS
from ferrum.backends.numpy_backend import MOST_RANKED, NumbaOps, NumpyOps

TOKENS = st.sampled_from([1, 2, 15, 16, 63, 64, 65, 127, 130, 400, 1100])
KINDS = ["smooth", "steps", "some -inf", "peaks", "flat"]
SETTING = st.tuples(
    st.sampled_from([0.0, 1e-6, 0.2, 0.7, 1.0, 1.5, 9.0, 1e4]),
    st.one_of(st.just(0), st.integers(1, 1200)),
    st.one_of(st.just(1.0), st.sampled_from([1e-9, 0.5, 0.9, 0.99]), st.floats(1e-3, 1)),
    st.one_of(st.just(0.0), st.sampled_from([1e-14, 0.1, 1.0]), st.floats(0, 1)),
    st.integers(0, 2**24 - 1).map(lambda bits: bits * 2.0**-24),
)


@pytest.fixture(scope="module", params=[1, 2])
def kernels(request: pytest.FixtureRequest) -> NumbaOps:
    return NumbaOps(request.param)


def rows_of(kind: str, rows: int, vocab: int, seed: int) -> np.ndarray:
    """Random logits, float32 [rows, vocab], with a gap between the rows in memory."""
    random = np.random.default_rng(seed)
    x = random.standard_normal((rows, vocab + 3))
    if kind == "steps":
        x = np.round(2 * x)
    elif kind == "some -inf":
        x[:, 1:][random.random((rows, vocab + 2)) < 0.5] = -np.inf
    elif kind == "peaks":
        x = x**3 * 4
    elif kind == "flat":
        x = np.full_like(x, 0.5)
    return x.astype(np.float32)[:, :vocab]


def chosen(ops: NumpyOps, x: np.ndarray, wanted: np.ndarray) -> list[int]:
    return np.asarray(ops.choose(x, wanted)).tolist()


@pytest.mark.clause("OPS-74")
@given(vocab=TOKENS, kind=st.sampled_from(KINDS), wanted=st.lists(SETTING, min_size=1, max_size=5), seed=st.integers(0))
@settings(deadline=None)
def test_tokens_are_those_of_the_definition(
    kernels: NumbaOps, vocab: int, kind: str, wanted: list[tuple[float, ...]], seed: int
) -> None:
    """Compares all tokens, so that a single different one in a million is found."""
    x, table = rows_of(kind, len(wanted), vocab, seed), np.array(wanted)
    table[:, 1] = np.minimum(table[:, 1], vocab)
    assert chosen(kernels, x, table) == chosen(NumpyOps(), x, table)


@pytest.mark.clause("OPS-74")
@pytest.mark.parametrize("vocab", [2048, 49152, 50257])
def test_hardly_a_row_of_a_model_is_left_to_the_definition(kernels: NumbaOps, vocab: int) -> None:
    random = np.random.default_rng(vocab)
    x = (random.standard_normal((40, vocab)) * random.uniform(1, 6, (40, 1))).astype(np.float32)
    for temperature, top_k, top_p, min_p in (
        (1.0, 0, 1.0, 0.0), (0.8, 40, 0.95, 0.0), (1.2, 0, 0.9, 0.0), (0.7, 0, 1.0, 0.05), (1.0, 500, 0.99, 0.01),
    ):  # fmt: skip
        units = random.random((40, 1))
        table = np.hstack([np.tile([temperature, top_k, top_p, min_p], (40, 1)), units])
        tokens = kernels._kernels.choose(x, table)
        assert (tokens >= 0).all()
        assert tokens[:4].tolist() == chosen(NumpyOps(), x[:4], table[:4])


@pytest.mark.clause("OPS-74")
def test_what_rounding_could_decide_is_left_to_the_definition(kernels: NumbaOps) -> None:
    """The numbers are on a boundary, or the logits are NaN."""
    two = np.zeros((1, 2), np.float32)
    even = np.zeros((1, 2 * MOST_BIN_MEMBERS), np.float32)
    clear = [(two, (1, 0, 1, 0, 0.4)), (two, (1, 1, 1, 0, 0.9)), (two, (0, 0, 1, 0, 0.5)), (even, (1, 0, 1, 0, 0.3))]
    clear += [(np.array([[1, 0, 0, 0]], np.float32), (1, 2, 1, 0, 0.9))]  # of three equal ones the first is kept
    close = [(two, (1, 0, 1, 0, 0.5)), (two, (1, 0, 0.5, 0, 0.1)), (two, (1, 0, 1, 1, 0.1)), (two, (1, 0, 1, 0, 0))]
    close += [(even, (1, 0, 0.9, 0, 0.3))]
    for bad in (np.nan, np.inf):
        close += [(np.array([[0, bad]], np.float32), (temperature, 0, 1, 0, 0.3)) for temperature in (0, 1)]
    for cases, is_clear in ((clear, True), (close, False)):
        for x, setting in cases:
            table = np.array([setting], np.float64)
            assert (kernels._kernels.choose(x, table)[0] >= 0) == is_clear
            with np.errstate(invalid="ignore"):
                assert chosen(kernels, x, table) == chosen(NumpyOps(), x, table)


@pytest.mark.clause("OPS-75")
@given(vocab=TOKENS, kind=st.sampled_from(KINDS), rows=st.integers(1, 5), count=st.integers(0, 70), seed=st.integers(0))
@settings(deadline=None)
def test_what_is_told_of_tokens_is_that_of_the_definition(
    kernels: NumbaOps, vocab: int, kind: str, rows: int, count: int, seed: int
) -> None:
    """Ranks and ids are equal, log probabilities equal up to their last bits."""
    x, count = rows_of(kind, rows, vocab, seed), min(count, vocab)
    tokens = np.random.default_rng(seed).integers(0, vocab, rows)
    with np.errstate(invalid="ignore"):
        found, expected = (np.asarray(ops.ranked(x, tokens, count)) for ops in (kernels, NumpyOps()))
    exact = [1, *range(2, 2 + count)]
    assert np.array_equal(found[:, exact], expected[:, exact])
    np.testing.assert_allclose(found, expected, rtol=1e-13, atol=1e-13)


@pytest.mark.clause("OPS-75")
def test_many_tokens_and_tokens_that_are_none_are_the_definitions(kernels: NumbaOps) -> None:
    x = rows_of("smooth", 2, 2 * MOST_RANKED, 7)
    many = kernels.ranked(x, np.array([1, 2]), MOST_RANKED + 1)
    assert np.array_equal(many, NumpyOps().ranked(x, np.array([1, 2]), MOST_RANKED + 1))
    with pytest.raises(IndexError):
        kernels.ranked(x, np.array([1, 2 * MOST_RANKED]), 1)


@pytest.mark.clause("OPS-75")
@pytest.mark.parametrize("bad", [np.nan, np.inf])
def test_a_row_of_which_nothing_can_be_told_leaves_the_others_alone(kernels: NumbaOps, bad: float) -> None:
    x = rows_of("smooth", 3, 130, 3)
    x[1, 128] = bad
    found = kernels.ranked(x, np.array([5, 6, 7]), 4)
    assert np.isnan(found[1]).all()
    np.testing.assert_allclose(found[::2], NumpyOps().ranked(x[::2], np.array([5, 7]), 4), rtol=1e-13)

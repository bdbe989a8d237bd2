"""Properties where a kernel is almost right: numbers that cancel, overflow or lie just beside a limit, and ties.

Owns: promises of other modules, at values that random numbers seldom meet. Refuses to know: ordinary values.
Next: `ferrum.conformance.test_shapes`.
"""

from __future__ import annotations

import math
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given

from ferrum.conformance import oracles, parts
from ferrum.conformance.harness import check, check_same, host, variants
from ferrum.conformance.oracles import exact
from ferrum.conformance.paged import PagedCase, paged_cases
from ferrum.conformance.strategies import Layout, LinearCase, WeightCase, lay
from ferrum.conformance.test_attention import check_attention
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.compositions import TensorOps


@pytest.mark.clause("OPS-04")
@pytest.mark.parametrize("dtype", ["float32", "float64"])
def test_equal_compares_numbers_and_not_bits(ops: TensorOps, dtype: str) -> None:
    x = np.tile([math.nan, 0.0, -0.0, math.inf, 1.0], 7)
    y = np.tile([math.nan, -0.0, 0.0, math.inf, 1.0], 7)
    arguments = lay(ops, x, dtype=dtype), lay(ops, y, dtype=dtype)
    check_same(ops, "equal", arguments, np.tile([False, True, True, True, True], 7), "bool")
    check_same(ops, "less", arguments, np.zeros(35, bool), "bool")


@pytest.mark.clause("OPS-02", "OPS-04")
@pytest.mark.parametrize("count", [3, 4099])
def test_float64_is_added_up_in_float64(ops: TensorOps, count: int) -> None:
    """Every backend adds up probabilities in float64."""
    x = np.random.default_rng(count).random((2, count))
    tensor = lay(ops, x, dtype="float64")
    for name, expected in (("sum", oracles.total(x, -1)), ("cumsum", oracles.running_total(x, -1))):
        assert_close(host(ops, getattr(ops, name)(tensor, -1)), expected, "float64")


@pytest.mark.clause("OPS-15")
@pytest.mark.parametrize("width", [6, 64, 1100])
def test_layer_norm_of_numbers_that_are_nearly_one(ops: TensorOps, width: int) -> None:
    """Computed as the mean of squares minus the square of the mean, the variance would be lost."""
    random = np.random.default_rng(width)
    x = (1000 + random.standard_normal((5, width))).astype(np.float32).astype(np.float64)
    weight, bias = random.standard_normal((2, width)).astype(np.float32).astype(np.float64)
    expected = oracles.layer_norm(x, weight, bias, 1e-5)
    check(ops, "layer_norm", (lay(ops, x), lay(ops, weight), lay(ops, bias), 1e-5), expected)


@pytest.mark.clause("OPS-07")
@pytest.mark.parametrize("to", ["float32", "float64"])
def test_unsigned_integers_have_no_sign_as_floats(ops: TensorOps, to: str) -> None:
    for dtype, values in (("uint8", [127, 128, 200, 255]), ("uint64", [2**63, 2**64 - 2**40, 2**62])):
        x = np.array(values * 9, dtype)
        check_same(ops, "cast", (lay(ops, x, dtype=dtype), to), x.astype(to), to)


@pytest.mark.clause("OPS-15")
def test_a_norm_at_the_place_of_another_is_another(ops: TensorOps) -> None:
    """Python may give a new object the address, and so the id, of one that was freed."""
    random = np.random.default_rng(0)
    x = random.standard_normal((3, 48)).astype(np.float32).astype(np.float64)
    for epsilon in (1e-6, 1e-3) * 4:
        weight = random.standard_normal(48).astype(np.float32).astype(np.float64)
        case = parts.NormCase(weight, None, epsilon, False)
        check(ops, "normed", (lay(ops, x), case.place(ops)), case.expect(exact(x)))


# ---- attention
@pytest.mark.clause("OPS-30", "OPS-32", "OPS-37")
@given(case=paged_cases(windowed=None, capped=False, causal=None))
def test_scores_may_be_of_any_size(ops: TensorOps, case: PagedCase) -> None:
    """Without subtracting the largest score, exponentials overflow, or all of a row become 0."""
    check_attention(ops, replace(case, scale=1000.0), Layout.CONTIGUOUS)


@pytest.mark.clause("OPS-30", "OPS-32")
def test_a_low_score_alone_has_all_the_weight(ops: TensorOps) -> None:
    contexts, counts, tables = (9, 40), (9, 3), ((0,), (2, 1, 3))
    case = PagedCase(contexts, counts, tables, 5, 4, 16, 2, 2, 16, "float", 1, None, 1000.0, 0)
    check_attention(ops, case, Layout.CONTIGUOUS)


# ---- experts
@pytest.mark.clause("OPS-39")
@pytest.mark.parametrize("middle", [16, 64])  # kernels take rows of whole groups
@pytest.mark.parametrize("tokens", [1, 7])
def test_of_experts_with_one_score_the_first_is_chosen(ops: TensorOps, tokens: int, middle: int) -> None:
    """The rows of a router may be equal; those of an untrained router are. Whole numbers: any order of summation gives
    equal scores."""
    random = np.random.default_rng(0)

    def linear(rows: int, columns: int) -> LinearCase:
        values = random.standard_normal((rows, columns)).astype(np.float32)
        return LinearCase(WeightCase("dense", values, Layout.CONTIGUOUS), None)

    router = np.repeat(random.integers(-4, 5, (2, 32)), 3, 0).astype(np.float32)  # three of one score, and three
    *mlps, shared = (
        parts.GatedCase(linear(middle, 32), linear(middle, 32), linear(32, middle), "silu", None, 0.0) for _ in range(7)
    )
    router_case = LinearCase(WeightCase("dense", router, Layout.CONTIGUOUS), None)
    case = parts.ExpertsCase(router_case, tuple(mlps), 2, True, shared, linear(1, 32))
    x = random.integers(-4, 5, (tokens, 32)).astype(np.float64)
    check(ops, "norm_experts", (lay(ops, x), None, case.place(ops)), case.expect(exact(x)))


# ---- random numbers
@pytest.mark.clause("OPS-21")
def test_uniform_counts_on(ops: TensorOps) -> None:
    """Also beyond one block of threads."""
    count, key = 70000, 2**40 + 7
    indices = [*range(0, count, 997), 1023, 1024, 1025, 65535, 65536, count - 1]
    expected = np.array([oracles.uniform(i, key, 3) for i in indices], np.float32)
    for draw in variants(ops, "uniform"):
        assert_same(host(ops, draw((count,), key, 3))[indices], expected)


# ---- choosing
@pytest.mark.clause("OPS-74")
def test_a_number_just_below_one_draws_the_last_token(ops: TensorOps) -> None:
    """In float32 it would be 1, which no running sum exceeds."""
    x = np.zeros((2, 50))
    x[1, 40:] = -math.inf
    settings = np.array([[1.0, 0, 1, 0, 1 - 1e-8]] * 2)
    for choose in variants(ops, "choose"):
        tokens = host(ops, choose(lay(ops, x), lay(ops, settings, dtype="float64")))
        assert tokens.tolist() == [49, 39]


@pytest.mark.clause("OPS-74")
def test_a_draw_is_as_fine_as_its_number(ops: TensorOps) -> None:
    """Just before and just after the point where one token ends: in float32 both are the same point."""
    random = np.random.default_rng(5)
    x = random.standard_normal((16, 3000)).astype(np.float32).astype(np.float64)
    running = np.cumsum(np.exp(x), -1)
    tokens = random.integers(100, 2000, 16)
    unit = running[np.arange(16), tokens] / running[:, -1] + np.tile([-1e-8, 1e-8], 8)
    settings = np.tile([1.0, 0, 1, 0, 0], (16, 1))
    settings[:, 4] = unit
    for choose in variants(ops, "choose"):
        actual = host(ops, choose(lay(ops, x), lay(ops, settings, dtype="float64")))
        assert actual.tolist() == (tokens + np.tile([0, 1], 8)).tolist()


@pytest.mark.clause("OPS-74")
def test_of_equal_logits_top_k_keeps_the_first(ops: TensorOps) -> None:
    x = np.tile([0.0, 2.0, 1.0, 2.0, 2.0, 1.0], (4, 1))
    settings = np.tile([1.0, 2, 1, 0, 0], (4, 1))
    settings[:, 4] = 0.0, 0.4, 0.6, 1 - 1e-8
    for choose in variants(ops, "choose"):
        tokens = host(ops, choose(lay(ops, x), lay(ops, settings, dtype="float64")))
        assert tokens.tolist() == [1, 1, 3, 3]


@pytest.mark.clause("OPS-74")
def test_what_has_no_weight_is_never_drawn(ops: TensorOps) -> None:
    """Not even by the number 0, before which no token lies."""
    x = np.array([[-math.inf, -math.inf, 1.0, -math.inf, 1.0, -math.inf]] * 3)
    settings = np.tile([1.0, 0, 1, 0, 0], (3, 1))
    settings[:, 4] = 0.0, 0.5, 1 - 1e-8
    for choose in variants(ops, "choose"):
        tokens = host(ops, choose(lay(ops, x), lay(ops, settings, dtype="float64")))
        assert tokens.tolist() == [2, 4, 4]


# ---- what the host holds
@pytest.mark.clause("OPS-76")
def test_host_arrays_are_not_shared(ops: TensorOps) -> None:
    first, second = (ops.host_array((3, 4), ops.float_dtype) for _ in range(2))
    ops.store(lay(ops, np.ones((3, 4))), first, range(3))
    ops.store(lay(ops, np.zeros((3, 4))), second, range(3))
    assert_same(host(ops, ops.fetch(first, range(3), ops.float_dtype)), np.ones((3, 4)))


@pytest.mark.clause("OPS-09", "OPS-76")
def test_what_was_fetched_stays(ops: TensorOps) -> None:
    """The places of a fetched block are reused at once."""
    places = ops.host_array((5, 4), ops.float_dtype)
    ops.store(lay(ops, np.ones((5, 4))), places, range(5))
    rows = ops.fetch(places, [1, 2, 3], ops.float_dtype)
    ops.store(lay(ops, np.zeros((5, 4))), places, range(5))
    assert_same(host(ops, rows), np.ones((3, 4)))


@pytest.mark.clause("OPS-66")
def test_one_tensor_read_leaves_another_alone(ops: TensorOps) -> None:
    first = ops.to_numpy(lay(ops, np.ones((3, 4))))
    ops.to_numpy(lay(ops, np.zeros((3, 4))))
    assert_same(first, np.ones((3, 4)))

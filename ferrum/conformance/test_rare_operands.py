"""Properties at valid but rare operands: the other sign, the other axis, a second table, one more of each.

Owns: promises of other modules, where a kernel could treat rare operands as common ones. Refuses to know: ordinary
values. Next: `ferrum.conformance.test_squares`.
"""

from __future__ import annotations

import math

import numpy as np
import pytest

from ferrum.conformance import oracles, parts
from ferrum.conformance.harness import check, check_same, host, variants
from ferrum.conformance.large import large_linear, normal
from ferrum.conformance.oracles import exact
from ferrum.conformance.paged import Rotation
from ferrum.conformance.strategies import lay
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.weights import Q8_0


# ---- primitives
@pytest.mark.clause("OPS-04")
def test_the_largest_of_large_negative_numbers_is_one_of_them(ops: TensorOps) -> None:
    for dtype, size in (("float32", 1e38), ("float64", 1e300), ("int64", 2**61), ("int32", 2**30)):
        x = -(size * np.array([[1.5, 1.25, 1.75], [1.75, 1.5, 1.25]])).astype(dtype)
        for axis in (0, 1):
            check_same(ops, "max", (lay(ops, x, dtype=dtype), axis), x.max(axis, keepdims=True), dtype)


@pytest.mark.clause("OPS-02", "OPS-04", "OPS-05")
@pytest.mark.parametrize("sign", [1, -1])
def test_a_nan_has_no_sign_and_no_axis(ops: TensorOps, sign: int) -> None:
    x = normal(4, 5, 6)
    x[1, 2, 3] = math.copysign(math.nan, sign)
    for axis in (0, 1, 2, -2):
        check_same(ops, "max", (lay(ops, x), axis), x.max(axis, keepdims=True), ops.float_dtype)
        check_same(ops, "argmax", (lay(ops, x), axis), x.argmax(axis), "int64")
    row = x[1, 2]
    check_same(
        ops, "argsort", (lay(ops, row),), np.argsort(-np.where(np.isnan(row), np.inf, row), kind="stable"), "int64"
    )


@pytest.mark.clause("OPS-04")
def test_small_integers_have_a_sign(ops: TensorOps) -> None:
    x = np.array([[-1, 0, 0], [-128, -2, 127], [-3, -2, -2]], np.int8)
    check_same(ops, "argmax", (lay(ops, x, dtype="int8"), 1), x.argmax(1), "int64")


@pytest.mark.clause("OPS-06")
def test_an_axis_may_be_counted_from_the_end(ops: TensorOps) -> None:
    x = normal(2, 3, 4)
    tensor, places = lay(ops, x), lay(ops, np.array([[1, 0], [1, 1]]), dtype="int64")
    for axis in (-1, -2, -3):
        check_same(ops, "take", (tensor, places, axis), np.take(x, [[1, 0], [1, 1]], axis), ops.float_dtype)
        check_same(ops, "concat", ((tensor, tensor), axis), np.concatenate((x, x), axis), ops.float_dtype)
        check(ops, "sum", (tensor, axis), oracles.total(x, axis))
        check(ops, "cumsum", (tensor, axis), oracles.running_total(x, axis))
        parts_of = ops.split(tensor, (1, x.shape[axis] - 1), axis)
        assert_same(host(ops, ops.concat(parts_of, axis)), x.astype(ops.float_dtype))


@pytest.mark.clause("OPS-06", "OPS-77")
def test_wide_rows_of_any_width_are_moved_whole(ops: TensorOps) -> None:
    x, rows = normal(3, 70_003), [2, 0, 2]
    check_same(ops, "take", (lay(ops, x), lay(ops, np.array(rows), dtype="int32")), x[rows], ops.float_dtype)


@pytest.mark.clause("OPS-06", "OPS-77")
@pytest.mark.parametrize("dtype", ["int64", "int32", "uint64", "float32", "float64"])
def test_arange_counts_far(ops: TensorOps, dtype: str) -> None:
    check_same(ops, "arange", (70_001, dtype), np.arange(70_001, dtype=dtype), dtype)


@pytest.mark.clause("OPS-07")
@pytest.mark.parametrize("source", ["float64", "float32"])
@pytest.mark.parametrize("dtype", ["int64", "int32", "int8"])
def test_a_cast_from_either_float_cuts_off_the_fraction(ops: TensorOps, source: str, dtype: str) -> None:
    x = np.array([0.5, 1.5, 100.99, -0.5, -1.5, -100.99, 126.75])
    check_same(ops, "cast", (lay(ops, x, dtype=source), dtype), np.trunc(x).astype(dtype), dtype)


@pytest.mark.clause("OPS-07")
def test_what_rounds_beyond_the_largest_bfloat16_is_infinite(ops: TensorOps) -> None:
    x = np.finfo(np.float32).max * np.array([1, -1, 0.5])
    actual = host(ops, ops.cast(lay(ops, x, dtype="float32"), "bfloat16")).astype(np.float64)
    assert actual.tolist() == [math.inf, -math.inf, 2.0**127]


@pytest.mark.clause("OPS-06")
def test_numbers_of_python_are_whole(ops: TensorOps) -> None:
    numbers = [2**53 + 1, -(2**62) - 1, 2**63 - 1]
    assert host(ops, ops.asarray(numbers, "int64")).tolist() == numbers
    assert [int(host(ops, ops.asarray(number, "int64"))) for number in numbers] == numbers


@pytest.mark.clause("OPS-02")
@pytest.mark.filterwarnings("ignore:invalid value")
def test_a_negative_number_has_no_root(ops: TensorOps) -> None:
    assert np.isnan(host(ops, ops.rsqrt(lay(ops, np.array([-4.0, -1e-3, -math.inf]))))).all()


@pytest.mark.clause("OPS-08", "OPS-80")
@pytest.mark.parametrize("bad", [math.nan, math.inf])
@pytest.mark.filterwarnings("ignore:invalid value")
def test_nothing_times_no_number_is_no_number(ops: TensorOps, bad: float) -> None:
    """A product that skips zeros hides NaN and infinity."""
    y = normal(16, 5)
    y[3, 2] = bad
    actual = host(ops, ops.matmul(ops.zeros((4, 16), ops.float_dtype), lay(ops, y)))
    assert np.isnan(actual[:, 2]).all()
    assert not np.delete(actual, 2, 1).any()


# ---- rows and norms
@pytest.mark.clause("OPS-14")
def test_a_row_may_lie_anywhere_and_be_wide(ops: TensorOps) -> None:
    x = (
        np.array([[-1e5, -1e5 - 1, -1e5 - 2], [0, -300, -900], [-1e30, -1e30, -2e30]])
        .astype(np.float32)
        .astype(np.float64)
    )
    check(ops, "softmax", (lay(ops, x),), oracles.softmax(x))
    check(ops, "log_softmax", (lay(ops, x),), oracles.log_softmax(x))


@pytest.mark.clause("OPS-16", "OPS-77")
@pytest.mark.parametrize("kind", ["float32", "q8_0", "q4_k"])
@pytest.mark.parametrize(("tokens", "rows"), [(50, 133), (65, 259), (130, 77)])
def test_products_with_a_rest_in_both_directions(ops: TensorOps, kind: str, tokens: int, rows: int) -> None:
    x, case = normal(tokens, 256), large_linear(kind, rows, 256)
    check(ops, "linear", (lay(ops, x), case.place(ops)), parts.linear_of(exact(x), case))


@pytest.mark.clause("OPS-18")
def test_more_linears_than_a_layer_has_share_a_row(ops: TensorOps) -> None:
    x, cases = normal(3, 64), [large_linear("q8_0", 32, 64, seed=seed) for seed in range(7)]
    placed = lay(ops, x), None, tuple(case.place(ops) for case in cases)
    check(ops, "norm_linears", placed, *(parts.linear_of(exact(x), case) for case in cases))


@pytest.mark.clause("OPS-38")
def test_a_scale_of_zero_adds_nothing(ops: TensorOps) -> None:
    x, residual = normal(150, 32), normal(150, 32, seed=1)
    for scale in (0.0, 1.0, -2.0):
        operands = lay(ops, x), lay(ops, residual), None, scale
        check(ops, "residual_add", operands, exact(scale * x).plus(residual))


# ---- rotation, and what is remembered
@pytest.mark.clause("OPS-19", "OPS-79")
def test_layers_may_turn_by_different_tables(ops: TensorOps) -> None:
    """Families with windows rotate some layers by other angles, at the same positions."""
    x, positions = normal(3, 2, 32), np.array([0, 5, 9])
    places = lay(ops, positions, dtype="int32")
    for _ in range(2):
        for seed in range(3):
            cosines, sines = normal(10, 16, seed=seed), normal(10, 16, seed=seed + 9)
            expected = oracles.rope(x, cosines[positions], sines[positions])
            check(ops, "rope", (lay(ops, x), Rotation(cosines, sines).place(ops), places), expected)


@pytest.mark.clause("OPS-19", "OPS-79")
def test_positions_are_what_they_are_now(ops: TensorOps) -> None:
    x, tables = normal(3, 2, 32), Rotation(normal(10, 16), normal(10, 16, seed=1))
    placed, places = tables.place(ops), ops.zeros((3,), "int32")
    for positions in (np.array([0, 5, 9]), np.array([1, 2, 3])):
        ops.put(places, (ops.arange(3, "int64"),), lay(ops, positions, dtype="int32"))
        expected = oracles.rope(x, tables.cosines[positions], tables.sines[positions])
        check(ops, "rope", (lay(ops, x), placed, places), expected)


@pytest.mark.clause("OPS-19")
@pytest.mark.parametrize(("head_dim", "half"), [(256, 128), (256, 96), (192, 96)])
def test_wide_heads_are_turned_whole(ops: TensorOps, head_dim: int, half: int) -> None:
    x, positions = normal(3, 2, head_dim), np.array([7, 0, 3])
    cosines, sines = normal(8, half), normal(8, half, seed=1)
    expected = oracles.rope(x, cosines[positions], sines[positions])
    placed = lay(ops, x), Rotation(cosines, sines).place(ops), lay(ops, positions, dtype="int32")
    check(ops, "rope", placed, expected)


@pytest.mark.clause("OPS-79")
def test_a_weight_that_changes_in_its_middle_is_another(ops: TensorOps) -> None:
    case = large_linear("q8_0", 9, 256)
    data = np.array(case.weight.data)
    weight = Q8_0(lay(ops, data, dtype="uint8"))
    for code in (1, 2):
        data[4, 2 + 34 : 34 + 34] = code
        ops.put(weight.data, (ops.arange(9, "int64"),), lay(ops, data, dtype="uint8"))
        actual = host(ops, ops.dequantize(weight))[4, 32:64]
        scale = data[4, 34:36].view(np.float16)[0]
        assert_close(actual, exact(np.full(32, code * float(scale))), ops.float_dtype)


@pytest.mark.clause("OPS-65")
def test_a_constant_outlives_hundreds(ops: TensorOps) -> None:
    constant = ops.constant(2**40 + 5, "int64")
    for number in range(700):
        ops.constant(number, "int64")
    assert int(host(ops, constant)) == int(host(ops, ops.constant(2**40 + 5, "int64"))) == 2**40 + 5


# ---- choosing, drawing
@pytest.mark.clause("OPS-74", "OPS-77")
@pytest.mark.parametrize("rows", [0, 1, 130])
def test_every_row_has_settings_of_its_own(ops: TensorOps, rows: int) -> None:
    """A row of low temperature is drawn, too: at a temperature of 0.0005, equal logits share the probability."""
    settings = np.tile([[0.0005, 0, 1, 0, 0.0]], (rows, 1))
    settings[:, 4] = np.arange(rows) % 5 / 5
    settings[1::4, 0] = 0
    x = np.zeros((rows, 5))
    expected = np.where(settings[:, 0] == 0, 0, np.arange(rows) % 5)
    settings[:, 4] += 0.1
    for choose in variants(ops, "choose"):
        tokens = choose(lay(ops, x), lay(ops, settings, dtype="float64"))
        assert str(tokens.dtype) == "int64"
        assert_same(host(ops, tokens), expected)


@pytest.mark.clause("OPS-75")
def test_a_token_that_cannot_be_has_no_chance(ops: TensorOps) -> None:
    x = np.array([[0.0, -math.inf, -1e5]])
    for rank in variants(ops, "ranked"):
        for token, log, place in ((1, -math.inf, 3), (2, -1e5, 2)):
            actual = host(ops, rank(lay(ops, x), lay(ops, np.array([token]), dtype="int64"), 0))
            assert actual.dtype == np.float64
            assert actual.tolist() == [[log, place]]


@pytest.mark.clause("OPS-21", "OPS-22")
@pytest.mark.parametrize(("key", "folded"), [(2**64 + 5, 4), (3 * 2**70, 192), (-(2**66) - 1, -5), (3, 3)])
@pytest.mark.parametrize("stream", [0, 2**32 + 3, -5])
def test_keys_and_streams_of_any_size(ops: TensorOps, key: int, folded: int, stream: int) -> None:
    """A key of more than 64 bits is folded: its 64-bit words are combined by xor."""
    expected = [oracles.uniform(index, folded, stream) for index in range(5)]
    assert host(ops, ops.uniform((5,), key, stream)).tolist() == expected
    normals = [oracles.normal(index, folded, stream) for index in range(5)]
    np.testing.assert_allclose(host(ops, ops.normal((5,), key, stream)), normals, rtol=1e-6, atol=1e-6)


@pytest.mark.clause("OPS-22")
@pytest.mark.parametrize("key", [12121362, 16390493])
def test_normal_reaches_its_ends(ops: TensorOps, key: int) -> None:
    """The first number of one key is 0, and that of the other is the largest possible."""
    np.testing.assert_allclose(host(ops, ops.normal((1,), key)), [oracles.normal(0, key, 0)], rtol=1e-6, atol=1e-6)


@pytest.mark.clause("OPS-21", "OPS-77")
def test_uniform_counts_far(ops: TensorOps) -> None:
    drawn = host(ops, ops.uniform((2**18 + 3,), 7))
    for index in (2**17 - 1, 2**17, 2**17 + 1, 2**18, 2**18 + 2):
        assert drawn[index] == np.float32(oracles.uniform(index, 7, 0))

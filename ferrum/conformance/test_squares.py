"""Properties of square operands: code that finds an axis by its length takes the wrong one, and the shape of the result
does not show it.

Owns: operands of as many rows as columns. Refuses to know: other shapes. Next: `ferrum.conformance.test_types`.
"""

from __future__ import annotations

import numpy as np
import pytest

from ferrum.conformance.harness import check, check_same, host
from ferrum.conformance.large import normal
from ferrum.conformance.oracles import exact, matmul
from ferrum.conformance.parts import NormCase
from ferrum.conformance.strategies import Layout, lay
from ferrum.conformance.tolerances import assert_same
from ferrum.tensor.compositions import TensorOps

SIDES = [2, 17, 50]


@pytest.mark.clause("OPS-02", "OPS-04")
@pytest.mark.parametrize("side", SIDES)
def test_a_column_is_no_row(ops: TensorOps, side: int) -> None:
    x, column = normal(side, side), normal(side, 1, seed=1)
    square = lay(ops, x)
    for y in (column, column.T, column[:, 0]):
        placed, condition = lay(ops, y), lay(ops, y > 0, dtype="bool")
        check(ops, "add", (square, placed), exact(x + y))
        check(ops, "mul", (placed, square), exact(x * y))
        check_same(ops, "less", (square, placed), x < y, "bool")
        check_same(ops, "where", (condition, square, placed), np.where(y > 0, x, y), ops.float_dtype)
        check_same(ops, "broadcast_to", (placed, x.shape), np.broadcast_to(y, x.shape), ops.float_dtype)


@pytest.mark.clause("OPS-06", "OPS-08", "OPS-10")
@pytest.mark.parametrize("side", SIDES)
@pytest.mark.parametrize("layout", [Layout.CONTIGUOUS, Layout.PERMUTED])
def test_a_square_is_not_its_transpose(ops: TensorOps, side: int, layout: Layout) -> None:
    x, y = normal(side, side), normal(side, side, seed=1)
    first, second = lay(ops, x, layout), lay(ops, y, layout)
    check(ops, "matmul", (first, second), matmul(x, y))
    check(ops, "matmul", (ops.transpose(first), second), matmul(x.T, y))
    check_same(ops, "argsort", (first,), np.argsort(-x, -1, kind="stable"), "int64")
    check_same(ops, "reshape", (first, (side * side,)), x.reshape(-1), ops.float_dtype)
    for axis in (0, 1):
        check_same(ops, "max", (first, axis), x.max(axis, keepdims=True), ops.float_dtype)
        check_same(ops, "argmax", (first, axis), x.argmax(axis), "int64")


@pytest.mark.clause("OPS-06")
def test_every_turn_of_a_cube_is_another(ops: TensorOps) -> None:
    x = np.arange(81).reshape(3, 3, 3, 3)
    tensor = lay(ops, x, dtype="int32")
    for axes in ((1, 2, 0, 3), (2, 0, 1, 3), (0, 2, 3, 1), (3, 0, 1, 2), (1, 2, 3, 0), (0, 3, 1, 2)):
        check_same(ops, "permute", (tensor, axes), x.transpose(axes), "int32")


@pytest.mark.clause("OPS-06")
@pytest.mark.parametrize("depth", [2, 3])
def test_indices_of_a_cube_keep_their_order(ops: TensorOps, depth: int) -> None:
    cube, expected = ops.zeros((3, 3, 3), "float32"), np.zeros((3, 3, 3), np.float32)
    places = [np.array(each) for each in ([0, 2, 1], [2, 1, 1], [1, 0, 2])][:depth]
    values = normal(3, *cube.shape[depth:])
    expected[tuple(places)] = values
    ops.put(cube, [lay(ops, place, dtype="int64") for place in places], lay(ops, values, dtype="float32"))
    assert_same(host(ops, cube), expected)


@pytest.mark.clause("OPS-37")
@pytest.mark.parametrize("side", [2, 16])
def test_as_many_heads_as_dimensions_have_norms_of_their_own(ops: TensorOps, side: int) -> None:
    norm = NormCase(normal(side, side), normal(side, side, seed=1), 1e-5, centred=False)
    x = normal(3, side * side, seed=2)
    expected = norm.expect(exact(x.reshape(3, side, side))).reshape(3, side * side)
    check(ops, "head_norm", (lay(ops, x), norm.place(ops), side), expected)

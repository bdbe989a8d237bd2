"""Properties at the sizes of real models: rows as long as a vocabulary, steps of thousands of tokens, large weights.

Owns: the promise OPS-77, without attention. One size for each property, the same in every run: kernels change at 256,
1024 and 65536, and drawn sizes are seldom larger. Refuses to know: how a kernel divides its work.
Next: `ferrum.conformance.test_long_contexts`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest

from ferrum.conformance import oracles, parts
from ferrum.conformance.harness import call_unchanged, check, check_same, host, variants
from ferrum.conformance.large import drawn_token, large_linear, large_weight, normal, tied
from ferrum.conformance.oracles import Array, Expected, exact
from ferrum.conformance.strategies import KINDS, LinearCase, lay
from ferrum.conformance.tolerances import assert_close
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Head

VOCABULARIES = [49152, 151936]
MANY = 65553
"""More than a 16-bit number counts, and than a grid of a GPU has blocks along its second axis."""


# ---- rows as long as a vocabulary
def long_rows(count: int) -> Array:
    """The largest element is the last of the first row, and the first of the second; the third row has two equal
    largest elements."""
    x = tied(3, count)
    x[0, -1] = x[1, 0] = x[2, count // 3] = x[2, count - 7] = 100
    return x


@pytest.mark.clause("OPS-05", "OPS-77")
@pytest.mark.parametrize("count", VOCABULARIES)
def test_a_vocabulary_is_searched_and_sorted_whole(ops: TensorOps, count: int) -> None:
    x = long_rows(count)
    tensor, order = lay(ops, x), np.argsort(-x, -1, kind="stable")
    check(ops, "max", (tensor, -1), np.full((3, 1), 100.0))
    check_same(ops, "argmax", (tensor, -1), order[:, 0], "int64")
    check_same(ops, "argsort", (tensor,), order, "int64")
    check_same(ops, "sort", (tensor,), np.take_along_axis(x, order, -1), ops.float_dtype)
    for name, k in (("top_k", 1), ("top_k", 1000)):
        for function in variants(ops, name):
            values, indices = call_unchanged(ops, function, (tensor, k))
            assert np.array_equal(host(ops, indices), order[:, :k])
            assert_close(host(ops, values), np.take_along_axis(x, order[:, :k], -1), ops.float_dtype)
    ranks = lay(ops, -order, dtype="int64")  # the argsort of an argsort is the place of each element
    check_same(ops, "argsort", (ranks,), np.argsort(order, -1, kind="stable"), "int64")


@pytest.mark.clause("OPS-04", "OPS-77")
@pytest.mark.parametrize("count", VOCABULARIES)
def test_a_vocabulary_is_added_up_whole(ops: TensorOps, count: int) -> None:
    x = long_rows(count)
    x[:, -5:] = 50  # a sum without its last elements is clearly wrong
    tensor = lay(ops, x)
    check(ops, "sum", (tensor, -1), oracles.total(x, -1))
    check(ops, "cumsum", (tensor, -1), oracles.running_total(x, -1))
    check(ops, "mean", (tensor, -1), oracles.mean(x, -1))
    whole = (8 * x).astype(np.int64)
    for dtype in ("int32", "int64"):
        integers = lay(ops, whole, dtype=dtype)
        check_same(ops, "sum", (integers, -1), whole.sum(-1, keepdims=True).astype(dtype), dtype)
        check_same(ops, "cumsum", (integers, -1), whole.cumsum(-1).astype(dtype), dtype)
    wide = lay(ops, x, dtype="float64")  # as sampling has it, whatever the backend's own type
    assert_close(host(ops, ops.sum(wide, -1)), oracles.total(x, -1), "float64")
    assert_close(host(ops, ops.cumsum(wide, -1)), oracles.running_total(x, -1), "float64")


@pytest.mark.clause("OPS-14", "OPS-77")
@pytest.mark.parametrize("count", VOCABULARIES)
def test_softmax_of_a_vocabulary(ops: TensorOps, count: int) -> None:
    x = normal(3, count)
    x[0, -1] = x[1, 0] = 12  # as probable as all others together
    x[2, : count // 2] = -np.inf
    check(ops, "softmax", (lay(ops, x),), oracles.softmax(x))
    check(ops, "log_softmax", (lay(ops, x),), oracles.log_softmax(x))


SETTINGS = [
    (0.0, 0, 1.0, 0.0, 0.5),
    (1.0, 0, 1.0, 0.0, 0.999),
    (1.0, 0, 1.0, 0.0, 0.0001),
    (0.7, 40000, 1.0, 0.0, 0.6),
    (1.0, 40, 0.9, 0.0, 0.4),
    (2.0, 0, 0.95, 0.0, 0.97),
    (1.0, 0, 0.999, 0.001, 0.3),
    (5.0, 5000, 0.8, 0.05, 0.75),
]
"""temperature, top_k, top_p, min_p and the number that draws"""


@pytest.mark.clause("OPS-74", "OPS-77")
@pytest.mark.parametrize("count", VOCABULARIES)
def test_choose_from_a_vocabulary(ops: TensorOps, count: int) -> None:
    x = normal(len(SETTINGS), count, seed=1)
    x[0, count - 3] = x[0, count - 2] = 30
    greedy = [count - 3]
    drawn = [drawn_token(row, *setting) for row, setting in zip(x[1:], SETTINGS[1:], strict=True)]
    arguments = lay(ops, x), lay(ops, np.array(SETTINGS), dtype="float64")
    check_same(ops, "choose", arguments, np.array(greedy + drawn), "int64")


@pytest.mark.clause("OPS-75", "OPS-77")
@pytest.mark.parametrize(("count", "best"), [(49152, 20), (151936, 300)])
def test_ranked_among_a_vocabulary(ops: TensorOps, count: int, best: int) -> None:
    x = tied(3, count)
    tokens = np.array([count - 1, 0, count // 2])
    order = np.argsort(-x, -1, kind="stable")
    chances = oracles.log_softmax(x).value
    ranks = [row.tolist().index(token) + 1 for row, token in zip(order, tokens, strict=True)]
    log_chances = np.take_along_axis(chances, tokens[:, None], -1)
    expected = np.column_stack((log_chances, ranks, order[:, :best], np.take_along_axis(chances, order[:, :best], -1)))
    for function in variants(ops, "ranked"):
        actual = call_unchanged(ops, function, (lay(ops, x), lay(ops, tokens, dtype="int64"), best))
        np.testing.assert_allclose(host(ops, actual), expected, rtol=1e-9, atol=1e-9)


# ---- steps of many tokens
@pytest.mark.clause("OPS-04", "OPS-14", "OPS-77")
def test_more_short_rows_than_a_16_bit_number_counts(ops: TensorOps) -> None:
    """The scores of all heads of a long chunk are so many rows."""
    x = tied(MANY, 5)
    tensor, order = lay(ops, x), np.argsort(-x, -1, kind="stable")
    check(ops, "softmax", (tensor,), oracles.softmax(x))
    check(ops, "sum", (tensor, -1), oracles.total(x, -1))
    check(ops, "sum", (tensor, 0), oracles.total(x, 0))
    check(ops, "max", (tensor, 0), x.max(0, keepdims=True))
    check(ops, "cumsum", (tensor, 0), oracles.running_total(x, 0))
    check_same(ops, "argmax", (lay(ops, x[:4099]), -1), order[:4099, 0], "int64")
    check_same(ops, "argmax", (tensor, 0), x.argmax(0), "int64")
    check_same(ops, "argsort", (tensor,), order, "int64")
    check(ops, "add", (tensor, lay(ops, x[:1])), Expected(x + x[:1], abs(x) + abs(x[:1])))
    check(ops, "mul", (tensor, lay(ops, x[:, :1])), exact(x * x[:, :1]))
    check(ops, "where", (lay(ops, x < 0, dtype="bool"), tensor, ops.scalar(7)), np.where(x < 0, x, 7))
    product = normal(5, 3)
    check(ops, "matmul", (tensor, lay(ops, product)), oracles.matmul(x, product))


@pytest.mark.clause("OPS-06", "OPS-77")
@pytest.mark.parametrize(("dtype", "count"), [("float32", MANY), ("int64", 4099), ("uint8", 4099)])
def test_far_rows_are_moved_as_near_ones_are(ops: TensorOps, dtype: str, count: int) -> None:
    x = np.random.default_rng(0).integers(0, 200, (count, 3)).astype(dtype)
    order = np.random.default_rng(1).permutation(count)
    tensor, places = lay(ops, x, dtype=dtype), lay(ops, order, dtype="int64")
    check_same(ops, "take", (tensor, places), x[order], dtype)
    check_same(ops, "take", (tensor, lay(ops, order[:9], dtype="int32")), x[order[:9]], dtype)
    check_same(ops, "concat", ([tensor, tensor], 0), np.concatenate((x, x)), dtype)
    check_same(ops, "reshape", (ops.transpose(tensor), (-1,)), x.T.ravel(), dtype)
    ends = call_unchanged(ops, ops.split, (tensor, (count - 2, 2), 0))[1]
    assert np.array_equal(host(ops, ends), x[-2:])
    target = ops.zeros(x.shape, dtype)
    ops.put(target, (places,), lay(ops, x[order], dtype=dtype))
    assert np.array_equal(host(ops, target), x)
    check_same(ops, "arange", (count, "int64"), np.array(range(count)), "int64")


@pytest.mark.clause("OPS-06", "OPS-77")
def test_many_pieces_are_cut_and_joined(ops: TensorOps) -> None:
    """A long block table, or one piece for each of many sequences."""
    x = normal(3, 700)
    sizes = [int(size) for size in np.random.default_rng(0).multinomial(700, [1 / 130] * 130)]
    pieces = call_unchanged(ops, ops.split, (lay(ops, x), sizes, 1))
    assert [tuple(piece.shape) for piece in pieces] == [(3, size) for size in sizes]
    check(ops, "concat", (pieces, 1), x)
    check(ops, "concat", (pieces, -1), x)


@pytest.mark.clause("OPS-15", "OPS-18", "OPS-77")
@pytest.mark.parametrize(("tokens", "width"), [(3, 4096), (5, 8195), (2051, 65)])
@pytest.mark.parametrize("centred", [True, False])
def test_norms_of_wide_rows_and_of_many(ops: TensorOps, tokens: int, width: int, centred: bool) -> None:
    x = normal(tokens, width)
    x[-1] *= 2.0**-12
    weight, bias = (normal(width, seed=seed) for seed in (1, 2))
    norm = parts.NormCase(weight, bias, 1e-5, centred)
    check(ops, "normed", (lay(ops, x), norm.place(ops)), norm.expect(exact(x)))
    if centred:
        expected = oracles.layer_norm(x, weight, bias, 1e-5)
        check(ops, "layer_norm", (lay(ops, x), lay(ops, weight), lay(ops, bias), 1e-5), expected)
    else:
        check(ops, "rms_norm", (lay(ops, x), lay(ops, weight), 1e-5), oracles.rms_norm(x, weight, 1e-5))


@pytest.mark.clause("OPS-37", "OPS-77")
@pytest.mark.parametrize("shape", [(256,), (33, 256), (33 * 256,), (112,), (65, 112)])
def test_norms_of_many_and_of_wide_heads(ops: TensorOps, shape: tuple[int, ...]) -> None:
    head_dim = 112 if 112 in shape else 256
    heads = 65 if head_dim == 112 else 33
    x = normal(3, heads * head_dim)
    norm = parts.NormCase(normal(*shape, seed=1), None, 1e-6, False)
    split = exact(x if shape == (heads * head_dim,) else x.reshape(3, heads, head_dim))
    expected = norm.expect(split).reshape(3, -1)
    check(ops, "head_norm", (lay(ops, x), norm.place(ops), head_dim), expected)


@pytest.mark.clause("OPS-18", "OPS-77")
@pytest.mark.parametrize(("tokens", "width"), [(2, 14337), (3001, 70)])
def test_elements_of_wide_rows_and_of_many(ops: TensorOps, tokens: int, width: int) -> None:
    x, y = (normal(tokens, width, seed=seed) for seed in (1, 2))
    placed = lay(ops, x), lay(ops, y)
    for activation, oracle in oracles.ACTIVATIONS.items():
        check(ops, activation, placed[:1], oracle(x))
    check(ops, "sigmoid", placed[:1], oracles.sigmoid(x))
    check(ops, "softcapped", (placed[0], 2.0), oracles.softcapped(x, 2.0))
    check(ops, "residual_add", placed, Expected(x + y, abs(x) + abs(y)))
    unused = large_linear("float32", 1, 1)
    mlp = parts.GatedCase(unused, unused, unused, "silu", None, 0.0)
    check(ops, "gated", (*placed, mlp.place(ops)), mlp.expect_gated(exact(x), exact(y)))


# ---- large weights
def check_linear(ops: TensorOps, tokens: int, linear: LinearCase) -> None:
    x = normal(tokens, linear.weight.values.shape[1])
    check(ops, "linear", (lay(ops, x), linear.place(ops)), parts.linear_of(exact(x), linear))


@pytest.mark.clause("OPS-16", "OPS-17", "OPS-77")
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize(("tokens", "rows", "columns"), [(1, 4099, 256), (3, 33, 4352), (1030, 37, 256)])
def test_linear_of_many_tokens_rows_and_columns(
    ops: TensorOps, kind: str, tokens: int, rows: int, columns: int
) -> None:
    check_linear(ops, tokens, large_linear(kind, rows, columns))


@pytest.mark.clause("OPS-16", "OPS-77")
@pytest.mark.parametrize("kind", ["float32", "bfloat16", "q8_0"])
def test_a_head_has_a_row_for_each_token_of_a_vocabulary(ops: TensorOps, kind: str) -> None:
    head, norm = large_linear(kind, MANY, 32), parts.NormCase(normal(32), None, 1e-5, False)
    x = normal(2, 32)
    expected = parts.linear_of(norm.expect(exact(x)), head)
    check(ops, "logits", (lay(ops, x), Head(norm.place(ops), head.place(ops))), expected)


@pytest.mark.clause("OPS-17", "OPS-77")
@pytest.mark.parametrize("kind", KINDS)
def test_embed_finds_far_rows_for_thousands_of_tokens(ops: TensorOps, kind: str) -> None:
    columns = 256 if kind.endswith("_k") else 32
    table = large_weight(kind, MANY if columns == 32 else 4099, columns)
    last = table.values.shape[0] - 1
    ids = np.random.default_rng(0).integers(0, last + 1, 2051)
    ids[:3] = last, 0, last - 1
    expected = Expected(table.values[ids], table.sizes[ids])
    check(ops, "embed", (table.place(ops), lay(ops, ids, dtype="int32")), expected)


@pytest.mark.clause("OPS-18", "OPS-77")
@pytest.mark.parametrize("kind", ["float32", "float16", "q8_0", "q4_1", "q6_k"])
@pytest.mark.parametrize("tokens", [1, 70, 1030])
def test_what_kernels_fuse_with_large_products(ops: TensorOps, kind: str, tokens: int) -> None:
    """Norm and linears, linear and residual, norm and the inner half of an MLP: one wide row, or many rows."""
    width, middle = (2048, 544) if tokens == 1 else (256, 160)
    norm = parts.NormCase(normal(width), None, 1e-5, False)
    pair = [large_linear(kind, middle, width, seed=seed) for seed in (1, 2)]
    out = large_linear(kind, width, 256)
    x, inner = normal(tokens, width, seed=3), normal(tokens, 256, seed=4)
    normed = norm.expect(exact(x))
    arguments = lay(ops, x), norm.place(ops), [each.place(ops) for each in pair]
    check(ops, "norm_linears", arguments, *(parts.linear_of(normed, each) for each in pair))
    mlp = parts.GatedCase(pair[0], pair[1], out, "silu", None, 0.0)
    check(ops, "norm_gated", (lay(ops, x), norm.place(ops), mlp.place(ops)), mlp.expect_inner(normed))
    plain = parts.PlainCase(pair[0], out, "gelu_tanh")
    check(ops, "norm_activated", (lay(ops, x), norm.place(ops), plain.place(ops)), plain.expect_inner(normed))
    added = parts.linear_of(exact(inner), out).plus(x)
    check(ops, "linear_add", (lay(ops, inner), out.place(ops), lay(ops, x)), added)


@pytest.mark.clause("OPS-39", "OPS-77")
@pytest.mark.parametrize(("tokens", "count", "chosen"), [(1, 128, 8), (300, 6, 2), (33, 65, 5)])
def test_many_experts_and_many_tokens(ops: TensorOps, tokens: int, count: int, chosen: int) -> None:
    def weight(rows: int, columns: int, seed: int) -> Any:
        return large_linear("q8_0", rows, columns, seed)

    experts = tuple(
        parts.GatedCase(weight(32, 64, 3 * i), weight(32, 64, 3 * i + 1), weight(64, 32, 3 * i + 2), "silu", None, 0.0)
        for i in range(count)
    )
    case = parts.ExpertsCase(large_linear("float32", count, 64, 7), experts, chosen, True, None, None)
    x, norm = normal(2 * tokens, 64), parts.NormCase(normal(64, seed=1), None, 1e-5, False)
    x = x[case.clear_tokens(norm.expect(exact(x)))][:tokens]
    assert len(x) == tokens
    normed = norm.expect(exact(x))
    check(ops, "norm_experts", (lay(ops, x), norm.place(ops), case.place(ops)), case.expect(normed))

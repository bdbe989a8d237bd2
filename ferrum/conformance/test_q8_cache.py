"""Properties of keys and values in q8_0: what is stored, what is read back, and attention over it.

Owns: the promises OPS-90 to OPS-93. Refuses to know: how a kernel walks the blocks.
Next: `ferrum.conformance.test_random`.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance import q8_oracle
from ferrum.conformance.harness import check, host, variants
from ferrum.conformance.paged import PagedCase, paged_cases, placed_case, read_back
from ferrum.conformance.strategies import lay, layouts
from ferrum.conformance.test_attention import check_attention, check_kv_write, check_step, expect_attention
from ferrum.conformance.tolerances import assert_same
from ferrum.tensor.compositions import TensorOps

cases = paged_cases(kv_dtypes=("q8_0",), windowed=None, capped=None)
ODD = (0.0, np.nan, np.inf, -np.inf, 1e-40, 3e-8, -5e-6, 1e-3, 65504.0 * 127, 65505.0 * 127, -3e38)


@pytest.mark.clause("OPS-90", "OPS-35")
@given(case=cases, layout=layouts)
def test_the_write_rounds_to_the_bytes_of_the_definition(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_kv_write(ops, case, layout)


@pytest.mark.clause("OPS-90", "OPS-91")
@given(seed=st.integers(0, 1 << 32), odd=st.lists(st.sampled_from(ODD), max_size=5))
def test_odd_numbers_are_rounded_alike_and_spoil_their_own_group(ops: TensorOps, seed: int, odd: list[float]) -> None:
    case, random = placed_case((5, 17), (5, 17), kv_heads=2, head_dim=64, kv_dtype="q8_0"), np.random.default_rng(seed)
    key, value = (
        case.fresh(stream).astype(np.float32) * 2.0 ** random.integers(-30, 20, (22, 2, 1)) for stream in (1, 2)
    )
    for number in odd:
        for x in (key, value):
            x.reshape(-1)[random.integers(x.size)] = number
    for write in variants(ops, "kv_write"):
        layer = case.layer(ops, with_new=False)
        write(layer, lay(ops, key), lay(ops, value), case.batch(ops).slots)
        block, offset = np.divmod(case.slots(), case.block_size)
        keys, values = read_back(ops, layer)
        for actual, x in ((keys[block, :, :, offset], key), (values[block, :, offset], value)):
            assert_same(actual, q8_oracle.rounded(x))
            groups = np.float32(x).reshape(22, 2, 2, 32)
            with np.errstate(all="ignore"):
                spoilt = ~(np.abs(groups).max(-1, keepdims=True) / np.float32(127) <= 65504)
            assert_same(np.isnan(actual).reshape(groups.shape), np.broadcast_to(spoilt, groups.shape))


@pytest.mark.clause("OPS-92", "OPS-32")
@pytest.mark.clause("OPS-33")
@given(case=cases, layout=layouts)
def test_attention_is_that_over_what_is_read_back(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_attention(ops, case, layout)


@pytest.mark.clause("OPS-92", "OPS-36")
@given(case=cases, data=st.data(), layout=layouts)
def test_a_step_rounds_its_own_keys_and_values_before_it_reads_them(
    ops: TensorOps, case: PagedCase, data: st.DataObject, layout: Any
) -> None:
    check_step(ops, case, data, layout)


@pytest.mark.clause("OPS-91", "OPS-92")
@pytest.mark.parametrize("block_size", [3, 16, 48])
def test_a_group_that_is_nan_shows_where_it_is_seen(ops: TensorOps, block_size: int) -> None:
    case = placed_case((40,), (4,), block_size=block_size, kv_heads=2, group=2, head_dim=64, kv_dtype="q8_0")
    slot = ops.asarray(np.array([case.slot(0, 38)], np.int32), "int32")  # the two last rows see it
    for attend in variants(ops, "paged_attention"):
        for spoilt in ("key", "value"):
            layer = case.layer(ops, with_new=True)
            new_values = {"key": case.fresh(1)[:1], "value": case.fresh(2)[:1]}
            new_values[spoilt][0, 1, 40] = np.nan
            ops.kv_write(layer, lay(ops, new_values["key"]), lay(ops, new_values["value"]), slot)
            actual = host(ops, attend(lay(ops, case.query()), case.attention(ops), layer, case.batch(ops)))
            assert np.isfinite(actual[:, :2]).all()
            if spoilt == "key":
                assert np.isnan(actual[2:, 2:]).all() and np.isfinite(actual[:2]).all()
            else:
                assert np.isnan(actual[2:, 2:, 32:]).all() and np.isfinite(actual[..., :32]).all()


@pytest.mark.clause("OPS-93")
@given(case=cases, layout=layouts)
def test_in_the_int8_class_queries_are_rounded_like_activations(
    variant: Callable[..., TensorOps], case: PagedCase, layout: Any
) -> None:
    ops = variant(compute="int8")
    kind, query = np.dtype(ops.float_dtype), case.query()
    scaled = query.astype(kind).reshape(len(query), case.heads, -1, 32) * kind.type(case.scale)
    steps = np.abs(scaled).max(-1, keepdims=True) / kind.type(127)
    rounded = np.rint(scaled * (kind.type(1) / steps)) * steps
    unscaled = replace(case, scale=1.0)
    keys, values = case.pool(ops, with_new=True)
    expected = expect_attention(unscaled, rounded.reshape(query.shape).astype(np.float64), keys, values)
    arguments = lay(ops, query, layout), case.attention(ops), case.layer(ops, True), case.batch(ops)
    check(ops, "paged_attention", arguments, expected)


@pytest.mark.clause("OPS-93")
@given(case=paged_cases(windowed=None), layout=layouts)
def test_other_keys_meet_queries_as_they_are(variant: Callable[..., TensorOps], case: PagedCase, layout: Any) -> None:
    check_attention(variant(compute="int8"), case, layout)

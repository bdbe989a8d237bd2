"""Properties of rotary embedding, the write to the pool and paged attention.

Owns: the promises OPS-19, OPS-30 to OPS-36 and OPS-69. Refuses to know: how a kernel walks the blocks.
Papers: RoPE 2104.09864, GQA 2305.13245, PagedAttention 2309.06180. Next: `ferrum.conformance.test_q8_cache`.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.conformance import attention_oracle, oracles, parts
from ferrum.conformance.harness import call_unchanged, check, host, variants
from ferrum.conformance.oracles import Array, Expected, exact
from ferrum.conformance.paged import HEAD_DIMS, PagedCase, Rotation, paged_cases, read_back, rotations
from ferrum.conformance.parts import NormCase
from ferrum.conformance.strategies import Host, lay, layouts, rows
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.compositions import TensorOps


def contexts_of(case: PagedCase, keys: Host, values: Host) -> list[tuple[Array, Array]]:
    pairs = zip(case.tables, case.contexts, strict=True)
    return [attention_oracle.gather(keys, values, table, context) for table, context in pairs]


def expect_attention(case: PagedCase, query: Array, keys: Host, values: Host) -> Expected:
    return attention_oracle.paged_attention(query, contexts_of(case, keys, values), case.counts, *case.parameters)


def check_attention(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    expected = expect_attention(case, case.query(), *case.pool(ops, with_new=True))
    query = lay(ops, case.query(), layout)
    arguments = query, case.attention(ops), case.layer(ops, True), case.batch(ops)
    check(ops, "paged_attention", arguments, expected)


# The pool of every case below is NaN where nothing was written, and so is the block that pads block tables:
# one read past a context turns a result into NaN.
@pytest.mark.clause("OPS-30")
@pytest.mark.clause("OPS-31")
@pytest.mark.clause("OPS-34")
@given(case=paged_cases(windowed=False, capped=False, sinking=False), layout=layouts)
def test_a_query_sees_its_own_sequence_up_to_itself(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_attention(ops, case, layout)


@pytest.mark.clause("OPS-32")
@given(case=paged_cases(windowed=True, capped=False), layout=layouts)
def test_a_window_counts_the_query_itself(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_attention(ops, case, layout)


@pytest.mark.clause("OPS-33")
@given(case=paged_cases(capped=True), layout=layouts)
def test_scores_are_scaled_and_then_capped(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_attention(ops, case, layout)


@pytest.mark.clause("OPS-37")
@given(case=paged_cases(sinking=True), layout=layouts)
def test_a_sink_takes_weight_and_gives_nothing(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_attention(ops, case, layout)


@pytest.mark.clause("OPS-69")
@given(case=paged_cases(causal=False), layout=layouts)
def test_attention_that_is_not_causal_sees_later_positions_too(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_attention(ops, case, layout)


@pytest.mark.clause("OPS-12")
@given(case=paged_cases(causal=None), data=st.data())
def test_a_sequence_attends_as_if_it_were_alone(ops: TensorOps, case: PagedCase, data: st.DataObject) -> None:
    sequence = data.draw(st.integers(0, len(case.contexts) - 1))
    query, layer = case.query(), case.layer(ops, with_new=True)
    together = ops.paged_attention(lay(ops, query), case.attention(ops), layer, case.batch(ops))
    single, token_rows = case.alone(sequence), case.packed(sequence)
    alone = ops.paged_attention(lay(ops, query[token_rows]), single.attention(ops), layer, single.batch(ops))
    expected = expect_attention(single, query[token_rows], *case.pool(ops, with_new=True))
    rounded = Expected(host(ops, alone).astype(np.float64), 2 * expected.magnitude, expected.terms)
    assert_close(host(ops, together)[token_rows], rounded, ops.float_dtype)


@pytest.mark.clause("OPS-31")
def test_query_heads_share_key_heads_in_consecutive_groups(ops: TensorOps) -> None:
    # one position, so that attention returns the value: head h must show the number of its key/value head
    case = PagedCase((1,), (1,), ((0,),), 2, 2, 4, 3, 2, 2, "float", None, None, 1.0, 0)
    keys, values = case.pool(ops, with_new=True)
    values[0, :, 0, :] = np.arange(3)[:, None]
    layer = type(case.layer(ops, True))(lay(ops, keys), lay(ops, values))
    attended = ops.paged_attention(lay(ops, case.query()), case.attention(ops), layer, case.batch(ops))
    assert_same(host(ops, attended)[0, :, 0], np.array([0, 0, 1, 1, 2, 2]))


@pytest.mark.clause("OPS-35")
@given(case=paged_cases(), layout=layouts)
def test_kv_write_touches_its_slots_and_no_others(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    check_kv_write(ops, case, layout)


def check_kv_write(ops: TensorOps, case: PagedCase, layout: Any) -> None:
    keys, values = case.pool(ops, with_new=False)
    key, value = case.fresh(1), case.fresh(2)
    for slot, new_key, new_value in zip(case.slots(), key, value, strict=True):
        block, offset = divmod(slot, case.block_size)
        keys[block, :, :, offset], values[block, :, offset] = case.as_stored(new_key), case.as_stored(new_value)
    for write in variants(ops, "kv_write"):
        layer = case.layer(ops, with_new=False)
        placed = lay(ops, key, layout), lay(ops, value, layout), case.batch(ops).slots
        call_unchanged(ops, lambda *inputs, write=write, layer=layer: write(layer, *inputs), placed)
        for actual, expected in zip(read_back(ops, layer), (keys, values), strict=True):
            assert_same(actual, expected)


@pytest.mark.clause("OPS-19")
@given(data=st.data(), tokens=rows, heads=st.integers(1, 4), head_dim=st.sampled_from(HEAD_DIMS), layout=layouts)
def test_rope_turns_pairs_that_lie_half_a_rotation_apart(
    ops: TensorOps, data: st.DataObject, tokens: int, heads: int, head_dim: int, layout: Any
) -> None:
    rotation = data.draw(rotations(12, head_dim))
    random = np.random.default_rng(tokens)
    positions = random.integers(0, 12, tokens)
    x = random.standard_normal((tokens, heads, head_dim)).astype(np.float32).astype(np.float64)
    expected = oracles.rope(x, rotation.cosines[positions], rotation.sines[positions])
    place = ops.asarray(positions.astype(np.int32), "int32")
    check(ops, "rope", (lay(ops, x, layout), rotation.place(ops), place), expected)


def head_norms(heads: int, head_dim: int) -> st.SearchStrategy[NormCase | None]:
    return st.sampled_from([(head_dim,), (heads, head_dim), (heads * head_dim,)]).flatmap(
        lambda shape: parts.optional(parts.norms(*shape))
    )


@pytest.mark.clause("OPS-18")
@pytest.mark.clause("OPS-36")
@pytest.mark.clause("OPS-37")
@pytest.mark.clause("OPS-69")
@given(case=paged_cases(causal=None), data=st.data(), layout=layouts)
def test_rope_attention_normalises_rotates_writes_and_then_attends(
    ops: TensorOps, case: PagedCase, data: st.DataObject, layout: Any
) -> None:
    check_step(ops, case, data, layout)


def check_step(ops: TensorOps, case: PagedCase, data: st.DataObject, layout: Any) -> None:
    rotation = data.draw(st.one_of(st.none(), rotations(max(case.contexts), case.head_dim)))
    norms = [data.draw(head_norms(heads, case.head_dim)) for heads in (case.heads, case.kv_heads)]
    for function in variants(ops, "rope_attention"):
        layer = case.layer(ops, with_new=False)
        flat = [p.reshape(case.tokens, -1) for p in (case.query(), case.fresh(1), case.fresh(2))]
        projections = tuple(lay(ops, p, layout) for p in flat)
        attention = case.attention(ops, *(parts.place(ops, norm) for norm in norms))
        tables = None if rotation is None else rotation.place(ops)
        attended = call_unchanged(
            ops,
            lambda p, a, t, b, f=function, pool=layer: f(p, a, t, pool, b),
            (projections, attention, tables, case.batch(ops)),
        )
        check_rope_attention(ops, case, rotation, norms, layer, host(ops, attended))


def normed_heads(x: Array, norm: NormCase | None) -> Expected:
    """x [tokens, heads, head_dim] -> same shape"""
    if norm is None:
        return exact(x)
    together = norm.weight.shape == (x.shape[1] * x.shape[2],)
    return norm.expect(exact(x.reshape(len(x), -1) if together else x)).reshape(*x.shape)


def rotated(x: Expected, rotation: Rotation | None, positions: list[int]) -> Expected:
    if rotation is None:
        return x
    cosines, sines = rotation.cosines[positions], rotation.sines[positions]
    turned = oracles.rope(x.value, cosines, sines)
    return Expected(turned.value, turned.magnitude + oracles.rope(x.magnitude, cosines, sines).magnitude, x.terms)


def check_new_keys(case: PagedCase, keys: Host, expected: Expected) -> None:
    """Keys [tokens, kv_heads, head_dim]: in q8_0 within half a step, or slightly more if a key lies almost between two
    steps."""
    if case.kv_dtype != "q8_0":
        assert_close(keys, expected, keys.dtype.name)
        return
    groups = np.abs(expected.value).reshape(*keys.shape[:2], -1, 32)
    half_steps = np.repeat(groups.max(-1) / 254, 32, -1)
    assert (np.abs(keys - expected.value) <= 1.001 * half_steps + 1e-5 * expected.magnitude).all()


def check_rope_attention(
    ops: TensorOps,
    case: PagedCase,
    rotation: Rotation | None,
    norms: list[NormCase | None],
    layer: Any,
    attended: Host,
) -> None:
    """The new keys are normalised and rotated, the new values are as given, the rest of the pool is unchanged, and the
    queries, normalised and rotated, have attended to the new content of the pool."""
    positions, slots = case.positions(), case.slots()
    places = tuple(zip(*(divmod(slot, case.block_size) for slot in slots), strict=True))
    block, offset = (np.array(part) for part in places)
    keys, values = read_back(ops, layer)
    new_keys = rotated(normed_heads(case.fresh(1), norms[1]), rotation, positions)
    # rounded by the rotation and again when it is stored
    twice = Expected(new_keys.value, 2 * new_keys.magnitude, new_keys.terms)
    check_new_keys(case, keys[block, :, :, offset], twice)
    old_keys, old_values = case.pool(ops, with_new=False)
    old_values[block, :, offset] = case.as_stored(case.fresh(2))
    old_keys[block, :, :, offset] = keys[block, :, :, offset]
    assert_same(keys, old_keys)
    assert_same(values, old_values)
    query = rotated(normed_heads(case.query(), norms[0]), rotation, positions)
    if rotation is not None and rotation.growth is not None:
        grown = rotation.growth[positions][:, None, None]
        query = Expected(query.value * grown, query.magnitude * grown, query.terms)
    expected = expect_attention(case, query.value, keys, values)
    # a query of zeros, from weights of zero, is exact
    relative = 1 if norms[0] is None else 1 + query.magnitude.max() / (np.abs(query.value).max() or np.inf)
    blurred = Expected(expected.value, relative * expected.magnitude, expected.terms)
    assert_close(attended, blurred.reshape(case.tokens, -1), ops.float_dtype)

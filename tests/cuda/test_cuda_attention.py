"""CUDA-30 to CUDA-36: turning and writing, attention of few and of many tokens."""

from __future__ import annotations

import math
from dataclasses import replace
from typing import Any
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.cuda import attention as binding
from ferrum.backends.cuda.attention import AttentionKernels
from ferrum.backends.cuda.device import Array, Device
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.conformance import attention_oracle, oracles
from ferrum.conformance.oracles import Expected
from ferrum.conformance.paged import PagedCase, Rotation, paged_cases, rotations
from ferrum.conformance.tolerances import assert_close, assert_same
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.ops import host_dtype
from tests.cuda.operands import at_every_schedule, laid, layouts
from tests.cuda.shim import device_at

DIMENSIONS = (64, 80, 96, 128, 256, 1, 7, 100)
fewest = st.sampled_from([1, 3, binding.MANY])
"""New tokens from which on they attend together."""


class Placed(NumpyOps):
    """Places the parts of a case on a device."""

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def asarray(self, values: Any, dtype: str) -> Array:
        return self._device.upload(np.asarray(values, host_dtype(dtype)))


def attended(
    device: Device, case: PagedCase, query: np.ndarray | None = None, layout: str = "whole", least: int | None = None
) -> Array:
    """least: new tokens from which on they attend together; None: never."""
    ops, kernels = Placed(device), AttentionKernels(device)
    own = laid(device, (case.query() if query is None else query).astype(np.float32), layout)
    attention, layer = case.attention(ops), case.layer(ops, True)
    assert kernels.fits(layer, attention, case.heads, case.head_dim)
    with patch.object(binding, "MANY", least):
        return kernels.attend(own, attention, layer, case.batch(ops), least is not None)


def expected(case: PagedCase) -> Expected:
    keys, values = case.pool(NumpyOps(), True)
    pairs = zip(case.tables, case.contexts, strict=True)
    contexts = [attention_oracle.gather(keys, values, table, context) for table, context in pairs]
    return attention_oracle.paged_attention(case.query(), contexts, case.counts, *case.parameters)


def long_case(
    contexts: tuple[int, ...], counts: tuple[int, ...], block_size: int, shape: tuple[int, int, int], **others: Any
) -> PagedCase:
    """shape: key heads, query heads of each, dimensions of a head."""
    needed = [-(-context // block_size) for context in contexts]
    order = iter(np.random.default_rng(1).permutation(sum(needed)).tolist())
    tables = tuple(tuple(next(order) for _ in range(count)) for count in needed)
    facts = {"kv_dtype": "float32", "window": None, "softcap": None, "scale": shape[2] ** -0.5, "seed": 3} | others
    return PagedCase(contexts, counts, tables, sum(needed) + 1, max(needed) + 1, block_size, *shape, **facts)


@st.composite
def long_cases(draw: st.DrawFn) -> PagedCase:
    """Contexts of several splits, and shapes of heads of models, and others."""
    contexts = draw(st.sampled_from([(480,), (256, 257), (255, 513, 3), (1300, 1)]))
    counts = tuple(min(context, draw(st.sampled_from([1, 1, 2, 17]))) for context in contexts)
    shape = draw(st.integers(1, 2)), draw(st.sampled_from([1, 2, 4, 5, 8, 9])), draw(st.sampled_from(DIMENSIONS))
    return long_case(
        contexts,
        counts,
        draw(st.sampled_from([16, 32, 24, 5, 256])),
        shape,
        kv_dtype=draw(st.sampled_from(["float32", "float16", "bfloat16"])),
        window=draw(st.sampled_from([None, 1, 100, 256, 300, 1000])),
        softcap=draw(st.sampled_from([None, 5.0])),
        sinking=draw(st.booleans()),
    )


# NaN stands in every slot that was not written, and in the block that the tables are padded with
@pytest.mark.clause("CUDA-30")
@given(case=paged_cases(), layout=layouts)
def test_tokens_attend_each_by_itself(case: PagedCase, layout: str) -> None:
    assert_close(at_every_schedule(lambda device: attended(device, case, layout=layout)), expected(case), "float32")


@pytest.mark.clause("CUDA-31")
@given(case=paged_cases(), layout=layouts, least=fewest)
def test_tokens_of_a_sequence_attend_together(case: PagedCase, layout: str, least: int) -> None:
    actual = at_every_schedule(lambda device: attended(device, case, layout=layout, least=least))
    assert_close(actual, expected(case), "float32")


@pytest.mark.clause("CUDA-30")
@pytest.mark.clause("CUDA-31")
@given(case=long_cases(), together=st.booleans())
def test_contexts_of_several_splits(case: PagedCase, together: bool) -> None:
    actual = at_every_schedule(lambda device: attended(device, case, least=2 if together else None))
    assert_close(actual, expected(case), "float32")


@pytest.mark.clause("CUDA-32")
@given(case=paged_cases(), data=st.data())
def test_a_token_by_itself_has_bits_of_its_own(case: PagedCase, data: st.DataObject) -> None:
    sequence, device = data.draw(st.integers(0, len(case.contexts) - 1)), device_at(1)
    own = case.packed(sequence)
    alone = replace(case.alone(sequence), width=case.width + data.draw(st.sampled_from([0, 100])))
    query = case.query()
    with patch.object(binding, "MOST_BYTES", data.draw(st.sampled_from([0, 1 << 20]))):
        actual = attended(device, alone, query[own])
    assert_same(actual, attended(device, case, query)[own])


@pytest.mark.clause("CUDA-33")
@given(case=long_cases(), window=st.integers(1, 300), together=st.booleans())
def test_what_no_token_sees_is_not_read(case: PagedCase, window: int, together: bool) -> None:
    case = replace(case, window=window)
    device, least = device_at(3), 2 if together else None
    ops, kernels = Placed(device), AttentionKernels(device)
    layer, batch = case.layer(ops, True), case.batch(ops)
    for sequence, (context, count) in enumerate(zip(case.contexts, case.counts, strict=True)):
        unseen = max(0, context - count + 1 - window)
        for position in range(unseen):
            block, offset = divmod(case.slot(sequence, position), case.block_size)
            layer.keys[block, :, :, offset] = layer.values[block, :, offset] = np.nan
        table = batch.block_tables[sequence]
        table[: unseen // case.block_size] = table[-(-context // case.block_size) :] = 1 << 30  # there is no such block
    query = device.upload(case.query().astype(np.float32))
    with patch.object(binding, "MANY", least):
        actual = kernels.attend(query, case.attention(ops), layer, batch, together)
    assert_same(actual, attended(device, case, least=least))


def padded(batch: StepBatch, device: Device, more: int) -> StepBatch:
    """The batch with `more` sequences of one token that is not there."""

    def longer(x: Array, value: int) -> Array:
        return device.upload(np.concatenate([x, np.full((more, *x.shape[1:]), value, x.dtype)]))

    starts = [*batch.starts, *(batch.starts[-1] + 1 + each for each in range(more))]
    return replace(
        batch,
        slots=longer(batch.slots, -1),
        positions=longer(batch.positions, 0),
        seq_starts=device.upload(np.array(starts, np.int32)),
        context_lens=longer(batch.context_lens, 0),
        block_tables=longer(batch.block_tables, 1 << 30),
        starts=starts,
        contexts=[*batch.contexts, *[0] * more],
    )


@pytest.mark.clause("CUDA-33")
@given(case=paged_cases(), least=st.sampled_from([None, 1]))
def test_tokens_that_only_fill_up_a_batch_give_zeros(case: PagedCase, least: int | None) -> None:
    device, more = device_at(2), 3
    ops, kernels = Placed(device), AttentionKernels(device)
    query = device.upload(np.concatenate([case.query(), np.full((more, case.heads, case.head_dim), np.nan)], 0))
    query, batch, layer = query.astype(np.float32), padded(case.batch(ops), device, more), case.layer(ops, True)
    with patch.object(binding, "MANY", least):
        actual = kernels.attend(query, case.attention(ops), layer, batch, least is not None)
    assert_same(actual[case.tokens :], np.zeros((more, case.heads, case.head_dim)))
    assert_same(actual[: case.tokens], attended(device, case, least=least))


@pytest.mark.clause("CUDA-34")
@pytest.mark.parametrize("least", [None, 1])
def test_scores_that_are_no_numbers(least: int | None) -> None:
    case = long_case((300,), (3,), 16, (1, 2, 8))
    query, device = case.query(), device_at(1)
    query[0, 0, 0], query[1, 1] = np.nan, np.inf  # the second: scores of either infinity
    actual = attended(device, case, query, least=least)
    whole = attended(device, case, least=least)
    spoilt = np.zeros((3, 2), bool)
    spoilt[0, 0] = spoilt[1, 1] = True
    assert np.isnan(actual[spoilt]).all()
    assert_same(actual[~spoilt], whole[~spoilt])


@pytest.mark.clause("CUDA-34")
@pytest.mark.parametrize("least", [None, 1])
def test_a_score_of_minus_infinity_weighs_nothing(least: int | None) -> None:
    case = long_case((300,), (2,), 16, (1, 1, 8))
    device = device_at(1)
    ops, kernels = Placed(device), AttentionKernels(device)
    layer, batch = case.layer(ops, True), case.batch(ops)
    query = np.ones((2, 1, 8), np.float32)
    for position in range(256):  # a whole split of nothing else
        block, offset = divmod(case.slot(0, position), 16)
        layer.keys[block, 0, :, offset], layer.values[block, 0, offset] = -np.inf, 1e6
    with patch.object(binding, "MANY", least):
        actual = kernels.attend(device.upload(query), case.attention(ops), layer, batch, least is not None)
        windowed = replace(case, window=44).attention(ops)  # sees none of these
        assert_close(actual, kernels.attend(device.upload(query), windowed, layer, batch, least is not None), "float32")
        layer.keys[...] = -np.inf
        assert np.isnan(kernels.attend(device.upload(query), windowed, layer, batch, least is not None)).all()


@pytest.mark.clause("CUDA-34")
@pytest.mark.parametrize("least", [None, 1])
@pytest.mark.parametrize("sink", [-200.0, 200.0])
def test_a_sink_may_be_far_from_all_scores(sink: float, least: int | None) -> None:
    case, device = long_case((300,), (2,), 16, (1, 1, 8)), device_at(1)
    ops, kernels = Placed(device), AttentionKernels(device)
    attention = replace(case.attention(ops), sinks=device.upload(np.array([sink], np.float32)))
    query, layer, batch = device.upload(case.query().astype(np.float32)), case.layer(ops, True), case.batch(ops)
    with patch.object(binding, "MANY", least):
        actual = kernels.attend(query, attention, layer, batch, least is not None)
    assert_close(actual, expected(case) if sink < 0 else np.zeros((2, 1, 8)), "float32")


def written(case: PagedCase, keys: np.ndarray, values: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """What stands in the slots of a case: [tokens, kv_heads, head_dim] each."""
    places = [divmod(slot, case.block_size) for slot in case.slots()]
    return np.stack([keys[b, :, :, o] for b, o in places]), np.stack([values[b, :, o] for b, o in places])


@pytest.mark.clause("CUDA-35")
@given(case=paged_cases(), layout=layouts)
def test_keys_and_values_go_to_their_slots_and_no_others(case: PagedCase, layout: str) -> None:
    keys, values = case.pool(NumpyOps(), False)
    present = np.random.default_rng(case.seed).random(case.tokens) < 0.8
    key, value = (case.fresh(which).astype(np.float32) for which in (1, 2))
    slots = np.where(present, case.slots(), -1).astype(np.int32)
    for slot, one_key, one_value in zip(slots[present], key[present], value[present], strict=True):
        block, offset = divmod(int(slot), case.block_size)
        keys[block, :, :, offset], values[block, :, offset] = one_key, one_value

    def run(device: Device) -> tuple[Array, Array]:
        layer, kernels = case.layer(Placed(device), False), AttentionKernels(device)
        assert kernels.writes(layer)
        kernels.write(layer, laid(device, key, layout), laid(device, value, layout), laid(device, slots, layout))
        return layer.keys, layer.values

    actual = at_every_schedule(run)
    assert_same(actual[0], keys)
    assert_same(actual[1], values)


@pytest.mark.clause("CUDA-36")
@given(case=paged_cases(), data=st.data(), layout=layouts, places=st.tuples(*[st.sampled_from([0, 1])] * 3))
def test_queries_and_keys_are_turned_and_queries_grow(
    case: PagedCase, data: st.DataObject, layout: str, places: tuple[int, int, int]
) -> None:
    rotation = data.draw(st.one_of(st.none(), rotations(max(case.contexts), max(case.head_dim, 2))))
    query, key, value = (x.astype(np.float32) for x in (case.query(), case.fresh(1), case.fresh(2)))
    positions = np.array(case.positions(), np.int32)

    def run(device: Device) -> tuple[Array, ...]:
        ops, kernels = Placed(device), AttentionKernels(device)
        layer, batch = case.layer(ops, False), case.batch(ops)
        tables = None if rotation is None else rotation.place(ops)
        assert kernels.fits(layer, case.attention(ops), case.heads, case.head_dim, tables)
        columns, apart = joined(device, query, key, value), [laid(device, x, layout) for x in (query, key, value)]
        placed = [pair[choice] for choice, pair in zip(places, zip(columns, apart, strict=True), strict=True)]
        turned = kernels.turn_and_write(*placed, layer, tables, batch.positions, batch.slots)
        assert all(np.array_equal(x, kept) for x, kept in zip(placed, (query, key, value), strict=True))
        return turned, *written(case, layer.keys, layer.values)

    turned, new_keys, new_values = at_every_schedule(run)
    stored = new_keys.dtype.name
    assert_close(turned, rotated(query, rotation, positions, grows=True), "float32")
    assert_close(new_keys, rotated(key, rotation, positions, grows=False), stored)
    assert_same(new_values, value.astype(host_dtype(stored)))


def joined(device: Device, *arrays: np.ndarray) -> list[Array]:
    """[tokens, heads, head_dim] each, as columns of one array of the device."""
    columns = [x.reshape(len(x), -1) for x in (np.full_like(arrays[0], np.nan), *arrays)]
    whole, ends = device.upload(np.concatenate(columns, 1)), np.cumsum([x.shape[1] for x in columns])
    pairs = zip(arrays, ends[:-1], ends[1:], strict=True)
    return [whole[:, start:end].reshape(x.shape) for x, start, end in pairs]


def rotated(x: np.ndarray, rotation: Rotation | None, positions: np.ndarray, grows: bool) -> Expected:
    x = x.astype(np.float64)
    if rotation is None:
        return oracles.exact(x)
    turned = oracles.rope(x, rotation.cosines[positions], rotation.sines[positions])
    if rotation.growth is None or not grows:
        return turned
    size = rotation.growth[positions][:, None, None]
    return Expected(turned.value * size, turned.magnitude * size, turned.terms)


@pytest.mark.clause("CUDA-36")
def test_a_position_outside_of_the_tables_gives_nan() -> None:
    case, device = long_case((3,), (3,), 8, (1, 1, 4)), device_at(1)
    ops, kernels = Placed(device), AttentionKernels(device)
    layer, batch = case.layer(ops, False), case.batch(ops)
    tables = Rotation(np.ones((2, 1)), np.zeros((2, 1)), np.ones(2)).place(ops)
    x = device.upload(np.ones((3, 1, 4), np.float32))
    turned = kernels.turn_and_write(x, x, x, layer, tables, batch.positions, batch.slots)
    assert_same(turned, np.where(np.arange(3)[:, None, None] < 2, 1, np.full((3, 1, 4), np.nan)))
    keys, values = written(case, layer.keys, layer.values)
    assert_same(keys[:, 0], np.array([[1] * 4, [1] * 4, [math.nan, math.nan, 1, 1]]))
    assert_same(values, np.ones((3, 1, 4)))


@pytest.mark.clause("CUDA-30")
def test_what_no_kernel_takes_is_refused() -> None:
    case, device = long_case((3,), (3,), 8, (2, 2, 8), sinking=True), device_at(1)
    ops, kernels = Placed(device), AttentionKernels(device)
    layer, attention = case.layer(ops, True), case.attention(ops)
    tables = Rotation(np.ones((4, 4)), np.ones((4, 4)), np.ones(4)).place(ops)
    assert kernels.fits(layer, attention, 4, 8, tables)
    assert not kernels.fits(layer, attention, 3, 8)
    assert not kernels.fits(layer, attention, 4, 16)
    assert not kernels.fits(layer, replace(attention, sinks=attention.sinks[::2]), 4, 8)
    assert not kernels.fits(layer, replace(attention, sinks=attention.sinks.astype(np.float64)), 4, 8)
    assert not kernels.fits(replace(layer, keys=layer.keys.astype(np.float64)), attention, 4, 8)
    assert not kernels.fits(replace(layer, values=layer.values[:, :, ::-1]), attention, 4, 8)
    assert not kernels.fits(layer, attention, 4, 8, replace(tables, sin=tables.sin[:3]))
    assert not kernels.fits(layer, attention, 4, 8, replace(tables, growth=tables.growth[:3]))
    wide = replace(
        tables, cos=device.upload(np.ones((4, 5), np.float32)), sin=device.upload(np.ones((4, 5), np.float32))
    )
    assert not kernels.fits(layer, attention, 4, 8, wide)
    large = long_case((3,), (3,), 8, (1, 1, 257))
    assert not kernels.fits(large.layer(ops, True), large.attention(ops), 1, 257)
    with patch.object(binding, "_KNOWN_OF_ATTENTION", binding._KNOWN_OF_ATTENTION - {"sinks"}):
        assert not kernels.fits(layer, attention, 4, 8)

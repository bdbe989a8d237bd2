"""OPS-47 and OPS-50: kernels that compute the same number in different ways get the same bits."""

from __future__ import annotations

from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import kernel_calls, launch
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.conformance.strategies import block_size, weights
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.kv_q8 import new_layer
from ferrum.tensor.weights import Linear
from tests.backends.company import rule

OPS, DEFINITION = NumbaOps(2), NumpyOps()
NATIVE = ("float32", "float16", "bfloat16", "q8_0", "q4_0", "q4_1", "q4_k", "q5_k", "q6_k")


@pytest.mark.clause("OPS-50")
@pytest.mark.parametrize("kind", NATIVE)
@settings(max_examples=20)
@given(data=st.data())
def test_a_decoded_weight_has_the_bits_of_its_definition(kind: str, data: st.DataObject) -> None:
    columns = data.draw(st.sampled_from([256, 512, 1024]))
    weight = data.draw(weights(rows=data.draw(st.integers(4, 9)), columns=columns, kind=kind)).place(OPS)
    assert OPS._kernels.native_kind(weight) is not None
    rows = np.arange(weight.rows, dtype=np.int32)
    np.testing.assert_array_equal(OPS.embed(weight, rows), DEFINITION.dequantize(weight))


@pytest.mark.clause("OPS-47")
@pytest.mark.parametrize("kind", NATIVE)
@settings(max_examples=10)
@given(data=st.data())
def test_a_product_has_the_same_bits_for_one_token_and_for_many(kind: str, data: st.DataObject) -> None:
    """For few tokens weights are decoded in registers; many tokens share a panel; long rows are computed in blocks."""
    size = max(block_size(kind), 32)
    columns = size * data.draw(st.integers(1, 2400 // size))
    case = data.draw(weights(rows=data.draw(st.integers(4, 60)), columns=columns, kind=kind))
    linear = Linear(case.place(OPS))
    tokens = data.draw(st.integers(1, 80))
    x = np.random.default_rng(tokens).standard_normal((tokens, columns)).astype(np.float32)
    one_by_one = np.concatenate([OPS.linear(x[i : i + 1], linear) for i in range(tokens)])
    with patch.object(launch, "SERIAL_WORK", -1):
        together = OPS.linear(x, linear)
    np.testing.assert_array_equal(together, one_by_one)
    residual = np.random.default_rng(tokens + 1).standard_normal(together.shape).astype(np.float32)
    one_by_one = np.concatenate(
        [OPS.linear_add(x[i : i + 1], linear, residual[i : i + 1]) for i in range(tokens)]  # each has its own
    )
    np.testing.assert_array_equal(OPS.linear_add(x, linear, residual), one_by_one)


@pytest.mark.clause("OPS-47")
@pytest.mark.parametrize("dtype", ["float32", "float16", "q8_0"])
@settings(max_examples=25)
@given(data=st.data())
def test_a_context_cut_into_units_has_the_bits_of_one_walk(dtype: str, data: st.DataObject) -> None:
    contexts = data.draw(st.lists(st.integers(1, 600), min_size=1, max_size=3))
    counts = [data.draw(st.integers(1, min(context, 9))) for context in contexts]
    block_size, head_dim, window = (
        data.draw(st.sampled_from(values))
        for values in ((16, 32, 5), (32, 64, 96) if dtype == "q8_0" else (16, 64, 12), (None, 1, 100, 300))
    )
    batch = _batch(contexts, counts, block_size)
    random = np.random.default_rng(sum(contexts))
    blocks = int(batch.block_tables.max()) + 1
    layer, slots = new_layer(OPS.zeros, dtype, blocks, 2, head_dim, block_size), np.arange(blocks * block_size)
    key, value = random.standard_normal((2, len(slots), 2, head_dim)).astype(np.float32)
    DEFINITION.kv_write(layer, key, value, slots.astype(np.int32))
    query = random.standard_normal((sum(counts), 6, head_dim)).astype(np.float32)
    attention, found = rule(head_dim, head_dim**-0.5, window=window), []
    for units in (0, 1 << 30):
        with patch.object(kernel_calls, "SPLIT_UNITS", units), patch.object(launch, "SERIAL_WORK", -1):
            found.append(OPS.paged_attention(query, attention, layer, batch))
    np.testing.assert_array_equal(*found)
    expected = DEFINITION.paged_attention(query, attention, layer, batch)
    np.testing.assert_allclose(found[0], expected, rtol=2e-5, atol=2e-6)


def _batch(contexts: list[int], counts: list[int], block_size: int) -> StepBatch:
    """A batch of the last counts[s] tokens of each sequence s, whose blocks are shuffled."""
    width = -(-max(contexts) // block_size)
    order = np.random.default_rng(len(contexts)).permutation(width * len(contexts)).astype(np.int32)
    tables = order.reshape(len(contexts), width)
    ranges = [np.arange(context - count, context) for context, count in zip(contexts, counts, strict=True)]
    slots = [
        table[own // block_size] * block_size + own % block_size for table, own in zip(tables, ranges, strict=True)
    ]
    total = sum(counts)
    return StepBatch(
        token_ids=np.zeros(total, np.int32),
        positions=np.concatenate(ranges).astype(np.int32),
        slots=np.concatenate(slots).astype(np.int32),
        seq_starts=np.cumsum([0, *counts]).astype(np.int32),
        context_lens=np.array(contexts, np.int32),
        block_tables=tables,
        logit_rows=np.arange(total, dtype=np.int32),
        starts=np.cumsum([0, *counts]).tolist(),
        contexts=contexts,
    )

"""ENGINE-01 to ENGINE-03: packing, and incremental equals full, on a random model."""

from __future__ import annotations

import functools
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.backends.registry import load_backend
from ferrum.config import ModelConfig
from ferrum.engine.runner import Runner, pack
from ferrum.errors import InternalError
from ferrum.kv.block_table import BlockTable, blocks_for
from ferrum.kv.storage import KvStorage
from ferrum.model.rope import rotations
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.compositions import TensorOps
from tests.tiny import dense_logits, distance, tiny_config, tiny_params

LONGEST = 24
BACKENDS = ("numpy-float32", "numpy-float64", "numba")
TOLERANCE = {"numpy-float32": 1e-4, "numpy-float64": 1e-10, "numba": 1e-4}

VARIANTS: dict[str, dict[str, Any]] = {
    "grouped": {},
    "one kv head": {"kv_heads": 1},
    "window": {"sliding_window": 5},
    "kernels": {"hidden_size": 64, "intermediate_size": 96, "head_dim": 16, "vocab_size": 96, "eos_token_ids": ()},
    "softcap": {"attention_softcap": 2.0, "attention_scale": 0.5},
}


@functools.cache
def ops_of(backend: str) -> TensorOps:
    if backend.startswith("numpy"):
        return NumpyOps(backend.partition("-")[2])
    return load_backend(backend)


def new_sequence(token_ids: list[int], block_size: int, blocks: list[int]) -> TokenSequence:
    sequence = TokenSequence(token_ids, SamplingParams(), seed=0)
    sequence.table = BlockTable(block_size, blocks)
    return sequence


def poisoned_runner(ops: TensorOps, config: ModelConfig, blocks: int, block_size: int) -> Runner:
    storage = KvStorage(ops, config, blocks, block_size, ops.float_dtype)
    for layer in storage.layers:
        for array in (layer.keys, layer.values):
            every = ops.arange(int(array.shape[0]), "int64")
            ops.put(array, (every,), ops.full(array.shape, float("nan"), ops.float_dtype))
    params = tiny_params(config)
    tables = rotations(ops, (layer.rope for layer in params.layers), LONGEST)
    return Runner(ops, params.to(ops), tables, storage)


def run_in_pieces(runner: Runner, sequences: list[TokenSequence], data: st.DataObject) -> list[np.ndarray]:
    """The logits [tokens, vocab] of each sequence, computed in random chunks beside random other sequences."""
    logits: list[list[np.ndarray]] = [[] for _ in sequences]
    while pending := [i for i, sequence in enumerate(sequences) if sequence.pending]:
        chosen = data.draw(st.lists(st.sampled_from(pending), min_size=1, unique=True))
        chunks = []
        for index in chosen:
            sequence = sequences[index]
            count = data.draw(st.integers(1, sequence.pending))
            chunks.append(Chunk(sequence, sequence.computed, count, rows=count))
        rows = runner.ops.to_numpy(runner.run(StepPlan(tuple(chunks))))
        parts = np.split(rows, np.cumsum([chunk.count for chunk in chunks])[:-1])
        for index, chunk, part in zip(chosen, chunks, parts, strict=True):
            logits[index].append(part)
            chunk.sequence.computed += chunk.count
    return [np.concatenate(parts) for parts in logits]


@pytest.mark.clause("ENGINE-02", "ENGINE-03")
@pytest.mark.parametrize("variant", VARIANTS)
@pytest.mark.parametrize("backend", BACKENDS)
@given(data=st.data())
def test_incremental_equals_full(backend: str, variant: str, data: st.DataObject) -> None:
    config = tiny_config(**VARIANTS[variant])
    texts = data.draw(
        st.lists(st.lists(st.integers(0, config.vocab_size - 1), min_size=1, max_size=LONGEST), min_size=1, max_size=3)
    )
    block_size = data.draw(st.sampled_from([1, 2, 3, 8, 16, 32]))
    needed = [blocks_for(len(text), block_size) for text in texts]
    spare = data.draw(st.integers(0, 2))
    order = data.draw(st.permutations(range(sum(needed) + spare)))
    ends = np.cumsum(needed)
    tables = [list(order[end - count : end]) for end, count in zip(ends, needed, strict=True)]
    sequences = [new_sequence(text, block_size, table) for text, table in zip(texts, tables, strict=True)]
    runner = poisoned_runner(ops_of(backend), config, sum(needed) + spare, block_size)
    for text, logits in zip(texts, run_in_pieces(runner, sequences, data), strict=True):
        assert distance(logits, dense_logits(config, tiny_params(config), text)) < TOLERANCE[backend]


@pytest.mark.clause("ENGINE-03")
@pytest.mark.parametrize("backend", BACKENDS)
def test_batch_mates_change_nothing_but_rounding(backend: str) -> None:
    config, texts = tiny_config(), [[1, 2, 3, 4, 5], [9], [200, 100, 50]]
    sequences = [new_sequence(text, 4, [2 * i, 2 * i + 1]) for i, text in enumerate(texts)]
    ops = ops_of(backend)
    plan = StepPlan(tuple(Chunk(s, 0, s.length, rows=1) for s in sequences))
    together = ops.to_numpy(poisoned_runner(ops, config, 6, 4).run(plan))
    runner = poisoned_runner(ops, config, 6, 4)
    alone = [ops.to_numpy(runner.run(StepPlan((chunk,)))) for chunk in plan.chunks]
    assert distance(together, np.concatenate(alone)) < TOLERANCE[backend]


@pytest.mark.clause("ENGINE-02")
@pytest.mark.parametrize("backend", BACKENDS)
def test_a_step_without_rows_still_writes_its_keys(backend: str) -> None:
    """A chunk in the middle of a prompt needs no logits."""
    config, text = tiny_config(), [5, 6, 7, 8, 9]
    ops = ops_of(backend)
    runner = poisoned_runner(ops, config, 3, 2)
    sequence = new_sequence(text, 2, [2, 0, 1])
    assert runner.run(StepPlan((Chunk(sequence, 0, 3, rows=0),))).shape == (0, config.vocab_size)
    logits = ops.to_numpy(runner.run(StepPlan((Chunk(sequence, 3, 2, rows=1),))))
    assert distance(logits, dense_logits(config, tiny_params(config), text)[-1:]) < TOLERANCE[backend]


@pytest.mark.clause("ENGINE-01")
def test_a_batch_describes_its_plan() -> None:
    first, second = new_sequence([10, 11, 12], 2, [5, 3]), new_sequence([20, 21, 22, 23, 24], 2, [0, 1, 2])
    batch = pack(NumpyOps(), [Chunk(first, 2, 1, rows=1), Chunk(second, 1, 3, rows=2)])
    assert batch.token_ids.tolist() == [12, 21, 22, 23]
    assert batch.positions.tolist() == [2, 1, 2, 3]
    assert batch.slots.tolist() == [6, 1, 2, 3]
    assert batch.seq_starts.tolist() == [0, 1, 4]
    assert batch.context_lens.tolist() == [3, 4]
    assert batch.block_tables[0, :2].tolist() == [5, 3]
    assert batch.block_tables[1].tolist() == [0, 1, 2]
    assert batch.logit_rows.tolist() == [0, 2, 3]
    assert (list(batch.starts), list(batch.contexts)) == ([0, 1, 4], [3, 4])
    tensors = [field for name, field in vars(batch).items() if name not in ("starts", "contexts")]
    assert {array.dtype for array in tensors} == {np.dtype(np.int32)}


@pytest.mark.clause("ENGINE-01")
def test_a_sequence_without_blocks_cannot_run() -> None:
    with pytest.raises(InternalError):
        pack(NumpyOps(), [Chunk(TokenSequence([1], SamplingParams(), 0), 0, 1, rows=1)])

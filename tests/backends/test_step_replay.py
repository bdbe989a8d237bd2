"""OPS-41: decode steps are recorded, and a replay equals the step it was recorded from."""

from __future__ import annotations

from collections.abc import Sequence
from unittest.mock import patch

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.backends.numba_kernels.launching import launch
from ferrum.backends.numba_kernels.launching.launch import Tape
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.config import ModelConfig
from ferrum.kv.storage import KvStorage
from ferrum.model.decoder import forward
from ferrum.model.rope import rotations
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import GatedMlp, Norm
from ferrum.tensor.weights import Dense, Linear
from tests.backends.company import with_experts
from tests.tiny import tiny_config, tiny_params

BLOCK_SIZE, BLOCKS, LONGEST = 4, 64, 40
NATIVE = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16, vocab_size=96, eos_token_ids=())
AWKWARD = tiny_config()
"""A number of columns that no kernel supports: compositions compute the step, which cannot be recorded then."""

THREADS = 2


class Model:
    """A random model. Its memory is NaN until it is written."""

    def __init__(self, config: ModelConfig, expert_rows: int = 0) -> None:
        """`expert_rows`: the rows of experts, if the model has mixtures of experts instead of MLPs."""
        self.config, self.ops = config, NumbaOps(THREADS)
        params = tiny_params(config)
        self.params = (with_experts(params, expert_rows) if expert_rows else params).to(self.ops)
        self.rotations = rotations(self.ops, (layer.rope for layer in self.params.layers), LONGEST)
        self.kv = KvStorage(self.ops, config, BLOCKS, BLOCK_SIZE, "float32").layers
        for layer in self.kv:
            layer.keys[:], layer.values[:] = np.nan, np.nan
        self.step = self._step

    def _step(self, ops: TensorOps, batch: StepBatch) -> Tensor:
        return forward(ops, self.params, self.rotations, self.kv, batch)


def batch_of(tokens: Sequence[int], contexts: Sequence[int], tables: np.ndarray) -> StepBatch:
    """A batch with one new token of each sequence, at position context - 1."""
    positions = np.array(contexts, np.int32) - 1
    slots = tables[np.arange(len(tokens)), positions // BLOCK_SIZE] * BLOCK_SIZE + positions % BLOCK_SIZE
    every = np.arange(len(tokens) + 1, dtype=np.int32)
    used = -(-max(contexts) // BLOCK_SIZE)  # tables grow with the context
    return StepBatch(
        np.array(tokens, np.int32), positions, slots.astype(np.int32), every, np.array(contexts, np.int32),
        np.ascontiguousarray(tables[:, :used]), every[:-1], starts=every.tolist(), contexts=contexts,
    )  # fmt: skip


def decode(model: Model, rows: list[list[int]], seed: int, *, replay: bool) -> list[np.ndarray]:
    """The logits of every step. Sequence s starts s steps after the first and ends s steps before it, so that contexts
    differ and batches grow and shrink: a recording for four sequences is replayed for three."""
    tables = np.random.default_rng(seed).permutation(BLOCKS)[: len(rows) * 10].reshape(len(rows), 10).astype(np.int32)
    found = []
    for step in range(len(rows[0])):
        present = [s for s in range(len(rows)) if s <= step and (s == 0 or step < len(rows[0]) - s)]
        batch = batch_of([rows[s][step] for s in present], [step - s + 1 for s in present], tables[present])
        run = model.ops.run_step(model.step, batch) if replay else model.step(model.ops, batch)
        found.append(run)
    return found


sequences = st.integers(1, 3).flatmap(
    lambda count: st.integers(count, 24).flatmap(
        lambda length: st.lists(
            st.lists(st.integers(0, 95), min_size=length, max_size=length), min_size=count, max_size=count
        )
    )
)


@pytest.mark.clause("OPS-41")
@pytest.mark.parametrize(
    ("config", "expert_rows"), [(NATIVE, 0), (NATIVE, 32), (AWKWARD, 0)], ids=["native", "experts", "awkward"]
)
@given(rows=sequences, seed=st.integers(0, 5), shared=st.booleans())
def test_replayed_steps_have_the_bits_of_the_steps_themselves(
    config: ModelConfig, expert_rows: int, rows: list[list[int]], seed: int, shared: bool
) -> None:
    with patch.object(launch, "SERIAL_WORK", -1 if shared else launch.SERIAL_WORK):  # shared: also tiny launches
        replayed = decode(Model(config, expert_rows), rows, seed, replay=True)
    direct = decode(Model(config, expert_rows), rows, seed, replay=False)
    for ours, theirs in zip(replayed, direct, strict=True):  # compared at the end: nothing was written over
        assert np.isfinite(ours).all()
        np.testing.assert_array_equal(ours, theirs)


@pytest.mark.clause("OPS-41")
@pytest.mark.parametrize(
    ("config", "expert_rows", "expected"),
    [(NATIVE, 0, 7), (NATIVE, 32, 7), (NATIVE, 40, 0), (AWKWARD, 0, 0)],
    ids=["native", "experts", "awkward experts", "awkward"],
)
def test_decode_steps_are_replayed_where_every_operation_has_a_kernel(
    config: ModelConfig, expert_rows: int, expected: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Seven steps in blocks of four: tables of one column and of two, each recorded and then replayed."""
    replays = []
    original = Tape.replay
    monkeypatch.setattr(Tape, "replay", lambda tape, tokens: (replays.append(tape), original(tape, tokens)))
    decode(Model(config, expert_rows), [[1, 2, 3, 4, 5, 6, 7]], 0, replay=True)
    assert len(replays) == expected


@pytest.mark.clause("OPS-41")
def test_a_step_that_copies_outside_of_a_launch_is_not_recorded() -> None:
    """The halves of a joined product are not contiguous: `gated` copies them before its kernel runs."""
    ops, random = NumbaOps(THREADS), np.random.default_rng(0)
    table = Dense(random.standard_normal((8, 32)).astype(np.float32))
    gate, up = (Linear(Dense(random.standard_normal((16, 32)).astype(np.float32))) for _ in range(2))
    norm, mlp = Norm(np.ones(32, np.float32), 1e-5), GatedMlp(gate, up, up)

    def step(ops: TensorOps, batch: StepBatch) -> Tensor:
        return ops.gated(*ops.norm_linears(ops.embed(table, batch.token_ids), norm, (gate, up)), mlp)

    for tokens in ([1, 2], [3, 4], [5, 6]):
        batch = batch_of(tokens, [1, 1], np.arange(20, dtype=np.int32).reshape(2, 10))
        np.testing.assert_array_equal(ops.run_step(step, batch), step(ops, batch))


@pytest.mark.clause("OPS-41")
def test_as_many_tokens_as_sequences_is_not_yet_one_each() -> None:
    model, table = Model(NATIVE), np.arange(20, dtype=np.int32).reshape(2, 10)
    one_each = batch_of([1, 2], [1, 1], table)
    model.ops.run_step(model.step, one_each)
    positions = np.array([0, 1], np.int32)
    both_second = StepBatch(
        one_each.token_ids, positions, 40 + positions, np.array([0, 0, 2], np.int32), np.array([1, 2], np.int32),
        table[:, :1], one_each.logit_rows, starts=[0, 0, 2], contexts=[1, 2],
    )  # fmt: skip
    np.testing.assert_array_equal(model.ops.run_step(model.step, both_second), model.step(model.ops, both_second))


@pytest.mark.clause("OPS-41")
def test_a_step_that_launches_nothing_is_not_recorded() -> None:
    batch = batch_of([1], [1], np.arange(10, dtype=np.int32)[None])
    for _ in range(2):
        assert NumbaOps(THREADS).run_step(lambda ops, batch: batch.token_ids, batch).tolist() == [1]


@pytest.mark.clause("OPS-41")
def test_a_prompt_is_not_recorded(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Tape, "replay", lambda tape, tokens: pytest.fail("a prompt was replayed"))
    model = Model(NATIVE)
    every, table = np.arange(8, dtype=np.int32), np.arange(10, dtype=np.int32)[None]
    prompt = StepBatch(
        every, every, every, np.array([0, 8], np.int32), np.array([8], np.int32), table, np.array([7], np.int32),
        starts=[0, 8], contexts=[8],
    )  # fmt: skip
    assert model.ops.run_step(model.step, prompt).shape == (1, 96)

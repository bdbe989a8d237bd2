"""Properties of recorded steps: a replay gives the bits of the step itself, for any batch.

Owns: the promises OPS-41 and OPS-63 for every backend; a backend that records nothing is skipped. The step is a decoder
layer of a few parts. Refuses to know: what a recording is. Next: `ferrum.conformance.test_ends`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from functools import cache
from typing import Any

import numpy as np
import pytest

from ferrum.conformance.calls import linear, mlp, norm
from ferrum.conformance.harness import host
from ferrum.conformance.large import large_linear, normal
from ferrum.conformance.named import overrides
from ferrum.conformance.paged import Rotation
from ferrum.conformance.strategies import Host, lay
from ferrum.tensor.batch import KvLayer, StepBatch
from ferrum.tensor.compositions import Step, TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention, Embedding, Head

BLOCK_SIZE, BLOCKS, LONGEST, VOCAB = 4, 200, 60, 64


@dataclass
class Model:
    """One layer over its own pool, which is NaN until it is written."""

    ops: TensorOps
    seed: int = 0
    kind: str = "float32"
    width: int = 64
    features: dict[str, Any] = field(default_factory=dict)

    def __post_init__(self) -> None:
        ops, seed, kind, width = self.ops, self.seed, self.kind, self.width
        head_dim, heads, kv_heads = 16, 4, 2
        query = linear(ops, seed, kind, heads * head_dim, width)
        key, value = (linear(ops, seed + offset, kind, kv_heads * head_dim, width) for offset in (1, 2))
        output = linear(ops, seed + 3, kind, width, heads * head_dim)
        self.attention = Attention(query, key, value, output, head_dim, head_dim**-0.5, **self.features)
        self.embedding = Embedding(large_linear("float32", VOCAB, width, seed).place(ops).weight)
        self.norms = [norm(ops, seed + offset, width) for offset in range(3)]
        self.mlp, self.head = (
            mlp(ops, seed, kind, width),
            Head(self.norms[2], linear(ops, seed + 4, kind, VOCAB, width)),
        )
        angles = normal(LONGEST, head_dim // 2)
        self.rotation = Rotation(np.cos(angles), np.sin(angles)).place(ops)
        shape = (BLOCKS, kv_heads, head_dim, BLOCK_SIZE)
        keys, values = (ops.full(each, np.nan, "float32") for each in (shape, (*shape[:2], BLOCK_SIZE, head_dim)))
        self.layer = KvLayer(keys, values)
        # a separate function for each model, because a recording belongs to its step function
        self.step: Step = lambda ops, batch: self.forward(ops, batch)

    def forward(self, ops: TensorOps, batch: StepBatch) -> Tensor:
        x = ops.embedded(self.embedding, batch)
        part = self.attention
        projections = ops.norm_linears(x, self.norms[0], (part.query, part.key, part.value))
        attended = ops.rope_attention(
            (projections[0], projections[1], projections[2]), part, self.rotation, self.layer, batch
        )
        x = ops.linear_add(attended, part.output, x)
        x = ops.linear_add(ops.norm_gated(x, self.norms[1], self.mlp), self.mlp.down, x)
        return ops.logits(ops.take(x, batch.logit_rows), self.head)


def batch_of(
    ops: TensorOps, tokens: Sequence[Sequence[int]], contexts: Sequence[int], rows: Sequence[int]
) -> StepBatch:
    """The newest tokens of the sequences with these numbers. Each sequence has its own blocks, in random order."""
    places = np.random.default_rng(0).permutation(BLOCKS)[: BLOCKS // 15 * 15].reshape(-1, 15)[list(rows)]
    counts = [len(each) for each in tokens]
    positions = [p for context, count in zip(contexts, counts, strict=True) for p in range(context - count, context)]
    owners = [owner for owner, count in enumerate(counts) for _ in range(count)]
    slots = [
        int(places[owner, position // BLOCK_SIZE]) * BLOCK_SIZE + position % BLOCK_SIZE
        for owner, position in zip(owners, positions, strict=True)
    ]
    starts = [0, *np.cumsum(counts).tolist()]
    table_width = -(-max(contexts) // BLOCK_SIZE)
    flat = [token for each in tokens for token in each]
    fields = (flat, positions, slots, starts, contexts, places[:, :table_width], np.array(starts[1:]) - 1)
    tensors = (ops.asarray(np.array(each, np.int32), "int32") for each in fields)
    return StepBatch(*tensors, starts=starts, contexts=list(contexts))


def decodes(ops: TensorOps, present: Sequence[Sequence[int]], seed: int) -> list[StepBatch]:
    """First the prompts of all sequences, then one new token for each sequence that is present at a step."""
    random, count = np.random.default_rng(seed), 1 + max(max(each) for each in present)
    lengths = random.integers(1, 12, count).tolist()
    prompts = [random.integers(0, VOCAB, length).tolist() for length in lengths]
    batches = [batch_of(ops, prompts, lengths, range(count))]
    for rows in present:
        for row in rows:
            lengths[row] += 1
        tokens = [[int(token)] for token in random.integers(0, VOCAB, len(rows))]
        batches.append(batch_of(ops, tokens, [lengths[row] for row in rows], rows))
    return batches


GROWING = [[0]] * 3 + [[0, 1]] * 2 + [[2, 0, 1]] * 3 + [[1, 2]] * 2 + [[0, 1, 2, 3, 4]] * 2 + [[4, 2, 0]] + [[3]] * 30
"""Sequences come, go and change places; the last one grows until its table is wider than any before."""

MODELS: dict[str, dict[str, Any]] = {
    "dense": {},
    "q8_0": {"kind": "q8_0"},
    "q4_1, window and cap": {"kind": "q4_1", "features": {"window": 5, "softcap": 2.0}},
    "widths that few kernels take": {"width": 40},
}


@cache
def records(ops: TensorOps) -> bool:
    """True if the backend counts a decode step."""
    model = Model(ops)
    for batch in decodes(ops, [[0]], 0):
        ops.run_step(model.step, batch)
    return ops.decode_steps(model.step).total > 0


def skip_without_recordings(ops: TensorOps) -> None:
    """A backend that overrides `run_step` may record steps, whether it counts them or not."""
    if not records(ops) and not overrides(ops, "run_step"):
        pytest.skip("the backend records no steps")


def check_replays(eager: Model, replayed: Model, batches: list[StepBatch]) -> None:
    """Both get the same batches. Results are compared at the end, so that an overwritten result is found."""
    ops = replayed.ops
    outputs = [ops.run_step(replayed.step, batch) for batch in batches]
    for actual, batch in zip([host(ops, each) for each in outputs], batches, strict=True):
        assert_bits(actual, host(ops, eager.step(ops, batch)))


def assert_bits(actual: Host, expected: Host) -> None:
    assert np.isfinite(expected).all()
    np.testing.assert_array_equal(actual, expected)


@pytest.mark.clause("OPS-41")
@pytest.mark.parametrize("name", MODELS)
def test_a_replay_has_the_bits_of_the_step(ops: TensorOps, name: str) -> None:
    skip_without_recordings(ops)
    eager, replayed = (Model(ops, **MODELS[name]) for _ in range(2))
    check_replays(eager, replayed, decodes(ops, GROWING, 0))


@pytest.mark.clause("OPS-41")
def test_two_models_have_recordings_of_their_own(ops: TensorOps) -> None:
    skip_without_recordings(ops)
    models = [(Model(ops, seed), Model(ops, seed)) for seed in (0, 20)]
    for seed in (1, 2):
        for eager, replayed in models:
            check_replays(eager, replayed, decodes(ops, [[0, 1]] * 3, seed))


@pytest.mark.clause("OPS-41")
def test_a_replay_gives_rows_in_the_order_that_is_wanted(ops: TensorOps) -> None:
    skip_without_recordings(ops)
    turned = ops.asarray(np.array([2, 1, 0], np.int32), "int32")
    prompts, *steps = decodes(ops, [[0, 1, 2]] * 4, 0)
    mixed = [replace(batch, logit_rows=turned) if number % 2 else batch for number, batch in enumerate(steps)]
    check_replays(Model(ops), Model(ops), [prompts, *mixed])


@pytest.mark.clause("OPS-41", "OPS-61")
def test_a_replay_reads_weights_as_they_are_now(ops: TensorOps) -> None:
    skip_without_recordings(ops)
    eager, replayed = Model(ops), Model(ops)
    batches = decodes(ops, [[0, 1]] * 3, 1)
    check_replays(eager, replayed, batches)
    for model in (eager, replayed):
        for seed, (weight, columns) in enumerate(((model.attention.query.weight, 64), (model.mlp.down.weight, 32))):
            rows = ops.arange(64, "int64")
            ops.put(weight.data, (rows,), lay(ops, normal(64, columns, seed=seed + 40), dtype="float32"))
    check_replays(eager, replayed, batches[-1:])  # a batch that was seen before is another with these weights
    check_replays(eager, replayed, decodes(ops, [[0, 1]] * 3, 2))


@pytest.mark.clause("OPS-63")
@pytest.mark.parametrize("name", MODELS)
def test_decode_steps_are_counted(ops: TensorOps, name: str) -> None:
    """Steps with one new token for each of a few sequences. The prompts before them are not counted."""
    skip_without_recordings(ops)
    model = Model(ops, **MODELS[name])
    assert ops.decode_steps(model.step).total == 0
    for batch in decodes(ops, GROWING[:9], 0):
        ops.run_step(model.step, batch)
    steps = ops.decode_steps(model.step)
    assert steps.total == 9
    assert 0 <= steps.replayed <= 9
    assert (steps.refusal is None) == (steps.replayed > 0)

"""The execution of a plan: its chunks packed into one batch, one forward pass, the logits.

Owns: packing. Refuses to know: why a token is in the plan and what becomes of the logits.
Specs: ENGINE-01 to ENGINE-03. Next: `ferrum.sample.history`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferrum.kv.storage import KvStorage
from ferrum.model.decoder import forward, token_vectors
from ferrum.model.params import DecoderParams
from ferrum.sched.plan import Chunk, StepPlan
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.types import DecodeSteps

Ints = NDArray[np.int32]


class Executor(Protocol):
    """Computes the plans of an engine: `Runner`, or a test double."""

    ops: TensorOps
    vocab_size: int
    encodes: bool
    """True if the model is an encoder: it has no logits, and its attention is not causal, so that a text must be
    computed in one step."""

    def run(self, plan: StepPlan) -> Tensor:
        """-> logits [rows, vocab]: for each chunk, in order, the rows that the plan asks for."""
        ...

    def vectors(self, plan: StepPlan) -> Tensor:
        """-> [rows, hidden]: for the same tokens, the vectors behind the final norm."""
        ...

    @property
    def decode_steps(self) -> DecodeSteps:
        """Counts of decode steps, and of those that were replayed from a recording."""
        ...


@dataclass(frozen=True, eq=False)
class ForwardPass:
    """A model with its keys and values: called with a backend and a batch, it computes one step."""

    params: DecoderParams
    rotations: Sequence[RopeTables | None]
    layers: Sequence[KvLayer]

    def __call__(self, ops: TensorOps, batch: StepBatch) -> Tensor:
        return forward(ops, self.params, self.rotations, self.layers, batch)


class Runner:
    """A model with its memory, on a backend."""

    def __init__(
        self, ops: TensorOps, params: DecoderParams, rotations: Sequence[RopeTables | None], storage: KvStorage
    ) -> None:
        """`params` and `rotations` are on the backend; rotary tables have a row for each position of the longest
        sequence."""
        self.ops = ops
        self.encodes = params.head is None
        self.vocab_size = params.embedding.table.rows if params.head is None else params.head.linear.weight.rows
        self.storage = storage
        # one object for all steps: a backend finds its recordings by it
        self.step = ForwardPass(params, rotations, storage.layers)

    def run(self, plan: StepPlan) -> Tensor:
        """-> logits [rows, vocab] for the plan's rows, chunk by chunk. Writes the keys and values of all tokens."""
        return self.ops.run_step(self.step, pack(self.ops, plan.chunks))

    def vectors(self, plan: StepPlan) -> Tensor:
        """-> [rows, hidden] for the plan's rows: the vectors behind the final norm. Writes as `run` does."""
        step = self.step
        return token_vectors(self.ops, step.params, step.rotations, step.layers, pack(self.ops, plan.chunks))

    @property
    def decode_steps(self) -> DecodeSteps:
        return self.ops.decode_steps(self.step)


def pack(ops: TensorOps, chunks: Sequence[Chunk]) -> StepBatch:
    """The batch of one or more chunks. A chunk is one sequence of the batch. Each draft of a chunk is a
    further sequence, of one token, on the same blocks: keys and values are written before attention, so that each draft
    attends to those before it. Drafts are thus computed as decoded tokens are, and such a step can be replayed.

    Example: a chunk of 2 tokens from position 8 on, with drafts x and y, is three sequences of 2, 1 and 1 tokens, with
    seq_starts 0, 2, 3, 4 and context_lens 10, 11, 12. All have the same row of block_tables; logit_rows are 1, 2, 3."""
    token_ids: list[int] = []
    positions: list[int] = []
    slots: list[Ints] = []
    starts: list[int] = [0]
    contexts: list[int] = []
    rows: list[int] = []
    tables_of: list[Ints] = []
    for chunk in chunks:
        chunk_end, drafts = chunk.start + chunk.count, chunk.drafts
        end = chunk_end + len(drafts)
        token_ids += chunk.sequence.token_ids[chunk.start : chunk_end]
        starts += range(len(token_ids), len(token_ids) + len(drafts) + 1)
        token_ids += drafts
        positions += range(chunk.start, end)
        slots.append(chunk.sequence.table.slots(chunk.start, end - chunk.start))
        contexts += range(chunk_end, end + 1)
        tables_of += [chunk.sequence.table.row] * (len(drafts) + 1)
        rows += range(len(token_ids) - chunk.rows - len(drafts), len(token_ids))

    tables = _stack(tables_of)
    fields: dict[str, Any] = {
        "token_ids": token_ids,
        "positions": positions,
        "slots": np.concatenate(slots),
        "seq_starts": starts,
        "context_lens": contexts,
        "block_tables": tables.reshape(-1),
        "logit_rows": rows,
    }
    # all in one array, for one transfer to the device
    together = ops.asarray(np.concatenate(tuple(fields.values()), dtype=np.int32, casting="unsafe"), "int32")
    tensors = ops.split(together, tuple(map(len, fields.values())), 0)
    batch = dict(zip(fields, tensors, strict=True))
    batch["block_tables"] = ops.reshape(batch["block_tables"], tables.shape)
    return StepBatch(**batch, starts=starts, contexts=contexts)


def _stack(tables: list[Ints]) -> Ints:
    """-> [sequences, blocks of the longest table]; shorter tables end with zeros, which are never read."""
    if len(tables) == 1:
        return tables[0].reshape(1, -1)
    stacked = np.zeros((len(tables), max(map(len, tables))), np.int32)
    for row, table in zip(stacked, tables, strict=True):
        row[: len(table)] = table
    return stacked

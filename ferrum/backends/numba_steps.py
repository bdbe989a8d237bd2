"""Decode steps recorded once and replayed: the CPU's version of a CUDA graph.

Owns: which steps are recorded, and the memory of their batches. A step in which every sequence has one new token does
the same launches whatever the values: recording keeps the rows of words, and a replay runs them without Python in
between. Every other step, and every step that needs an operation without a kernel, runs as it is written.
Refuses to know: what a step computes.
Specs: OPS-41. Next: `ferrum.kv.pool`.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from ferrum.backends.numba_kernels.bind import Kernels
from ferrum.backends.numba_kernels.launch import Recorder, Tape
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import PRIMITIVES, Tensor

MOST_TAPES = 16
"""Recorded shapes that are kept; each owns the activations of one step."""

_UPDATED = ("token_ids", "positions", "slots", "context_lens")


class NotRecordable(Exception):
    """The step asked for an operation that leaves no launch behind."""


class RecordingOps(NumbaOps):
    """Runs a step and records its launches. A primitive would do its work outside of them, unseen by a replay: it is
    refused, but for the selection of all rows in order, which is no work."""

    def __init__(self, launcher: Recorder, batch: StepBatch) -> None:
        super().__init__(launcher.threads)
        self._kernels = Kernels(launcher)
        self._batch = batch

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        if indices is not self._batch.logit_rows or axis:
            raise NotRecordable
        return x


def _refuse(self: RecordingOps, *arguments: Any, **options: Any) -> Any:
    raise NotRecordable


for _name in PRIMITIVES:
    if _name != "take":
        setattr(RecordingOps, _name, _refuse)


@dataclass(frozen=True, eq=False)
class RecordedStep:
    """A tape, the batch it reads and the result it writes; `step` and `ops` hold what else the tape points to: weights,
    caches, descriptors, the list of tiles."""

    step: Step
    ops: RecordingOps
    batch: StepBatch
    tape: Tape
    result: np.ndarray

    def run(self, batch: StepBatch) -> np.ndarray:
        """The result for this batch, as a copy: the next replay writes over it."""
        _fill(self.batch, batch)
        self.tape.replay()
        return self.result.copy()


class StepTapes:
    """Recorded steps by shape."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._recorded: dict[tuple[object, ...], RecordedStep | None] = {}

    def run(self, ops: NumbaOps, step: Step, batch: StepBatch) -> Tensor:
        """step(ops, batch), by replay where this shape of step has been recorded."""
        if not _is_decode(batch):
            return step(ops, batch)
        width = 1 << (batch.block_tables.shape[1] - 1).bit_length()  # tables grow: few shapes instead of many
        shape = (step, len(batch.token_ids), width)
        if shape not in self._recorded:
            if len(self._recorded) >= MOST_TAPES:
                self._recorded.clear()
            self._recorded[shape] = self._record(step, batch, width)
        recorded = self._recorded[shape]
        return step(ops, batch) if recorded is None else recorded.run(batch)

    def _record(self, step: Step, batch: StepBatch, width: int) -> RecordedStep | None:
        """None where the step cannot be recorded. Keys and values it has written by then are written again."""
        own = _own_batch(batch, width)
        recorder = Recorder(self._threads)
        ops = RecordingOps(recorder, own)
        try:
            result = step(ops, own)
        except NotRecordable:
            return None
        return RecordedStep(step, ops, own, recorder.tape(), result)


def _is_decode(batch: StepBatch) -> bool:
    """One new token for each sequence, and logits wanted for all of them in order?"""
    count = len(batch.token_ids)
    in_order = len(batch.logit_rows) == count and (count == 1 or bool((batch.logit_rows == np.arange(count)).all()))
    return in_order and count > 0 and len(batch.seq_starts) == count + 1


def _own_batch(batch: StepBatch, width: int) -> StepBatch:
    """A copy with block tables of `width` columns, in memory that stays."""
    count = len(batch.token_ids)
    tables = np.zeros((count, width), np.int32)
    fixed = {"seq_starts": np.arange(count + 1, dtype=np.int32), "logit_rows": np.arange(count, dtype=np.int32)}
    own = StepBatch(**{name: np.zeros(count, np.int32) for name in _UPDATED}, **fixed, block_tables=tables)
    _fill(own, batch)
    return own


def _fill(own: StepBatch, batch: StepBatch) -> None:
    for name in _UPDATED:
        getattr(own, name)[:] = getattr(batch, name)
    own.block_tables[:, : batch.block_tables.shape[1]] = batch.block_tables

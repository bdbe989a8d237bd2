"""Decode steps recorded as tapes of launches, which replace CUDA graphs on the CPU.

Owns: the memory of the batch of a recorded step. Recording stores the row of words of each launch of a step, and a
replay runs them without Python in between.
Refuses to know: which steps are recorded (`ferrum.backends.recorded_steps`), and what a step computes.
Specs: OPS-41, OPS-63. Next: `ferrum.backends.cupy_backend`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ferrum.backends.numba_kernels.launching.launch import Recorder, Tape
from ferrum.backends.numba_recording import RecordingOps
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.backends.recorded_steps import HostNumbers, NotRecordable
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step

_UPDATED = ("token_ids", "positions", "slots", "context_lens")


@dataclass(frozen=True, eq=False)
class TapedStep:
    """A tape, the batch that it reads and the result that it writes. It points to the weights and caches of its step,
    which must live as long as the tape. `ops` keeps the other memory that it points to: descriptors and tiles of
    attention."""

    ops: RecordingOps
    batch: StepBatch
    tape: Tape
    result: np.ndarray

    def run(self, batch: StepBatch) -> np.ndarray:
        """The result for this batch. It is a copy, because the next replay overwrites the result."""
        count = len(batch.token_ids)
        _fill(self.batch, batch)
        self.tape.replay(count)
        return self.result[:count].copy()


def record(like: NumbaOps, step: Step, sequences: int, width: int) -> TapedStep:
    """Records a step of this number of sequences, with block tables of `width` columns. Raises NotRecordable."""
    batch, recorder = _batch_of_tape(sequences, width), Recorder(like.threads)
    ops = RecordingOps(recorder, batch, like)
    result = step(ops, batch)
    tape = recorder.tape(sequences)
    if result.shape[:1] != (sequences,):
        raise NotRecordable("a result whose size is not a multiple of the tokens")
    return TapedStep(ops, batch, tape, result)


def _batch_of_tape(sequences: int, width: int) -> StepBatch:
    """The batch of a tape: one token for each sequence, block tables of `width` columns. Replays write to its arrays.
    Its host numbers cannot be read, because later batches have others."""
    starts = np.arange(sequences + 1, dtype=np.int32)
    updated = {name: np.zeros(sequences, np.int32) for name in _UPDATED}
    tables = np.zeros((sequences, width), np.int32)
    return StepBatch(
        seq_starts=starts,
        logit_rows=starts[:-1],
        block_tables=tables,
        starts=HostNumbers("starts"),
        contexts=HostNumbers("contexts"),
        **updated,
    )


def _fill(target: StepBatch, batch: StepBatch) -> None:
    """Copies a batch into the arrays of `target`, which has at least as many sequences and columns."""
    sequences, width = batch.block_tables.shape
    for name in _UPDATED:
        getattr(target, name)[:sequences] = getattr(batch, name)
    target.block_tables[:sequences, :width] = batch.block_tables

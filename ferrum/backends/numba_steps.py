"""Decode steps recorded as tapes: the CPU's version of a CUDA graph.

Owns: the memory of a recorded step's batch. Recording keeps the rows of words that the launches of a step consist of,
and a replay runs them without Python in between.
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
    """A tape, the batch it reads and the result it writes. It points to the weights and caches of its step, which must
    live as long; `ops` holds what else it points to: descriptors, the list of tiles."""

    ops: RecordingOps
    batch: StepBatch
    tape: Tape
    result: np.ndarray

    def run(self, batch: StepBatch) -> np.ndarray:
        """The result for this batch, as a copy: the next replay writes over it."""
        count = len(batch.token_ids)
        _fill(self.batch, batch)
        self.tape.replay(count)
        return self.result[:count].copy()


def record(like: NumbaOps, step: Step, sequences: int, width: int) -> TapedStep:
    """A step of so many sequences, with block tables of `width` columns. Raises NotRecordable."""
    own, recorder = _own_batch(sequences, width), Recorder(like.threads)
    ops = RecordingOps(recorder, own, like)
    result = step(ops, own)
    tape = recorder.tape(sequences)
    if result.shape[:1] != (sequences,):
        raise NotRecordable("a result whose size is not a multiple of the tokens")
    return TapedStep(ops, own, tape, result)


def _own_batch(sequences: int, width: int) -> StepBatch:
    """A batch of one token each, with block tables of `width` columns, in memory that stays. What the host knows of
    later batches nobody can know yet."""
    every = np.arange(sequences + 1, dtype=np.int32)
    updated = {name: np.zeros(sequences, np.int32) for name in _UPDATED}
    tables = np.zeros((sequences, width), np.int32)
    return StepBatch(
        seq_starts=every,
        logit_rows=every[:-1],
        block_tables=tables,
        starts=HostNumbers("starts"),
        contexts=HostNumbers("contexts"),
        **updated,
    )


def _fill(own: StepBatch, batch: StepBatch) -> None:
    sequences, width = batch.block_tables.shape
    for name in _UPDATED:
        getattr(own, name)[:sequences] = getattr(batch, name)
    own.block_tables[:sequences, :width] = batch.block_tables

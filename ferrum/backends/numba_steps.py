"""Decode steps recorded once and replayed: the CPU's version of a CUDA graph.

Owns: which steps are recorded, and the memory of their batches. A step in which every sequence has one new token does
the same launches whatever the values: recording keeps the rows of words, and a replay runs them without Python in
between. Batches and contexts grow and shrink, so shapes are rounded up to powers of two: a tape serves every batch that
fits. Every other step, and every step that does something that cannot be recorded, runs as it is written; what that was
is counted and kept.
Refuses to know: what a step computes.
Specs: OPS-41, OPS-63. Next: `ferrum.kv.pool`.
"""

from __future__ import annotations

from collections import OrderedDict
from dataclasses import dataclass, replace
from weakref import WeakKeyDictionary

import numpy as np

from ferrum.backends.numba_kernels.launch import NotRecordable, Recorder, Tape
from ferrum.backends.numba_recording import HostNumbers, RecordingOps
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import Tensor
from ferrum.types import DecodeSteps

MOST_SEQUENCES = 64
"""Larger batches are not recorded: their arithmetic takes so long that the time between launches hardly counts."""
LEAST_WIDTH = 8
"""Columns of the narrowest block table that is recorded: with the usual blocks of 16, contexts up to one split of
attention share a tape. A narrower one would not be faster, and to record one takes as long as a token or two."""
MOST_TAPES = 16
"""Recorded shapes of a step that are kept, those used last; each owns the activations of one step."""

_UPDATED = ("token_ids", "positions", "slots", "context_lens")


@dataclass(frozen=True, eq=False)
class RecordedStep:
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


class _KnownStep:
    """The tapes of a step by shape, those used last at the end; None for a shape that cannot be recorded."""

    def __init__(self) -> None:
        self.tapes: OrderedDict[tuple[int, int], RecordedStep | None] = OrderedDict()
        self.counts = DecodeSteps()


class StepTapes:
    """Recorded steps, as long as the step lives."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._known: WeakKeyDictionary[Step, _KnownStep] = WeakKeyDictionary()

    def run(self, ops: NumbaOps, step: Step, batch: StepBatch) -> Tensor:
        """step(ops, batch), by replay where this shape of step can be recorded."""
        if not _is_decode(batch):
            return step(ops, batch)
        sequences, width = (_power_of_two(count) for count in batch.block_tables.shape)
        width = max(width, LEAST_WIDTH)
        shape, known = (sequences, width), self._known.setdefault(step, _KnownStep())
        if shape not in known.tapes:
            try:
                known.tapes[shape] = self._record(ops, step, sequences, width)
            except NotRecordable as refusal:
                known.tapes[shape] = None
                known.counts = replace(known.counts, refusal=known.counts.refusal or str(refusal))
            if len(known.tapes) > MOST_TAPES:
                known.tapes.popitem(last=False)
        known.tapes.move_to_end(shape)
        recorded = known.tapes[shape]
        known.counts = known.counts.and_one(replayed=recorded is not None)
        return step(ops, batch) if recorded is None else recorded.run(batch)

    def counts(self, step: Step) -> DecodeSteps:
        """What became of the decode steps that could have been replayed."""
        known = self._known.get(step)
        return DecodeSteps() if known is None else known.counts

    def _record(self, like: NumbaOps, step: Step, sequences: int, width: int) -> RecordedStep:
        """Raises NotRecordable."""
        own, recorder = _own_batch(sequences, width), Recorder(self._threads)
        ops = RecordingOps(recorder, own, like)
        result = step(ops, own)
        tape = recorder.tape(sequences)
        if result.shape[:1] != (sequences,):
            raise NotRecordable("a result of something else than tokens")
        return RecordedStep(ops, own, tape, result)


def _power_of_two(count: int) -> int:
    """The smallest that is not less."""
    return 1 << (count - 1).bit_length()


def _is_decode(batch: StepBatch) -> bool:
    """One new token for each of a few sequences, and logits wanted for all of them in order?"""
    count = len(batch.token_ids)
    if not 0 < count <= MOST_SEQUENCES or len(batch.starts) != count + 1 or len(batch.logit_rows) != count:
        return False
    every = list(range(count + 1))
    return bool(list(batch.starts) == every and batch.logit_rows.tolist() == every[:-1])


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

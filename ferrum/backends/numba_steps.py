"""Decode steps recorded once and replayed: the CPU's version of a CUDA graph.

Owns: which steps are recorded, and the memory of their batches. A step in which every sequence has one new token does
the same launches whatever the values: recording keeps the rows of words, and a replay runs them without Python in
between. Batches and contexts grow and shrink, so shapes are rounded up to powers of two: a tape serves every batch that
fits. Every other step, and every step that needs an operation without a kernel, runs as it is written.
Refuses to know: what a step computes.
Specs: OPS-41. Next: `ferrum.kv.pool`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any
from weakref import WeakKeyDictionary

import numpy as np

from ferrum.backends.numba_kernels.bind import Kernels
from ferrum.backends.numba_kernels.launch import NotRecordable, Recorder, Tape
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step
from ferrum.tensor.ops import PRIMITIVES, Tensor

MOST_SEQUENCES = 64
"""Larger batches are not recorded: their arithmetic takes so long that the time between launches hardly counts."""
LEAST_WIDTH = 8
"""Columns of the narrowest block table that is recorded: with the usual blocks of 16, contexts up to one split of
attention share a tape. A narrower one would not be faster, and to record one takes as long as a token or two."""
MOST_TAPES = 16
"""Recorded shapes of a step that are kept, those used last; each owns the activations of one step."""

_UPDATED = ("token_ids", "positions", "slots", "context_lens")


class RecordingOps(NumbaOps):
    """Runs a step without its launches, which it records. A primitive would do its work at once, unseen by a replay: it
    is refused, but for the selection of all rows in order, which is no work."""

    def __init__(self, launcher: Recorder, batch: StepBatch, like: NumbaOps) -> None:
        super().__init__(launcher.threads, like.deterministic, like.compute)
        self._kernels = Kernels(launcher, like.compute)
        self._batch = batch

    def take(self, x: Tensor, indices: Tensor, axis: int = 0) -> Tensor:
        if indices is not self._batch.logit_rows or axis:
            raise NotRecordable("take")
        return x


def _refusal(name: str) -> Callable[..., Any]:
    def refuse(self: RecordingOps, *arguments: Any, **options: Any) -> Any:
        raise NotRecordable(name)

    return refuse


for _name in PRIMITIVES:
    if _name != "take":
        setattr(RecordingOps, _name, _refusal(_name))


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


class StepTapes:
    """Recorded steps by shape, as long as the step lives; None stands for a shape that cannot be recorded."""

    def __init__(self, threads: int) -> None:
        self._threads = threads
        self._recorded: WeakKeyDictionary[Step, OrderedDict[tuple[int, int], RecordedStep | None]] = WeakKeyDictionary()

    def run(self, ops: NumbaOps, step: Step, batch: StepBatch) -> Tensor:
        """step(ops, batch), by replay where this shape of step can be recorded."""
        if not _is_decode(batch):
            return step(ops, batch)
        sequences, width = (_power_of_two(count) for count in batch.block_tables.shape)
        width = max(width, LEAST_WIDTH)
        shape, known = (sequences, width), self._recorded.setdefault(step, OrderedDict())
        if shape not in known:
            known[shape] = self._record(ops, step, sequences, width)
            if len(known) > MOST_TAPES:
                known.popitem(last=False)
        known.move_to_end(shape)
        recorded = known[shape]
        return step(ops, batch) if recorded is None else recorded.run(batch)

    def _record(self, like: NumbaOps, step: Step, sequences: int, width: int) -> RecordedStep | None:
        """None where the step cannot be recorded."""
        own, recorder = _own_batch(sequences, width), Recorder(self._threads)
        ops = RecordingOps(recorder, own, like)
        try:
            result = step(ops, own)
            return RecordedStep(ops, own, recorder.tape(sequences), result)
        except NotRecordable:
            return None


def _power_of_two(count: int) -> int:
    """The smallest that is not less."""
    return 1 << (count - 1).bit_length()


def _is_decode(batch: StepBatch) -> bool:
    """One new token for each of a few sequences, and logits wanted for all of them in order?"""
    count = len(batch.token_ids)
    if not 0 < count <= MOST_SEQUENCES or len(batch.seq_starts) != count + 1 or len(batch.logit_rows) != count:
        return False
    every = list(range(count + 1))
    return bool(batch.seq_starts.tolist() == every and batch.logit_rows.tolist() == every[:-1])


def _own_batch(sequences: int, width: int) -> StepBatch:
    """A batch of one token each, with block tables of `width` columns, in memory that stays."""
    every = np.arange(sequences + 1, dtype=np.int32)
    updated = {name: np.zeros(sequences, np.int32) for name in _UPDATED}
    tables = np.zeros((sequences, width), np.int32)
    return StepBatch(**updated, seq_starts=every, logit_rows=every[:-1], block_tables=tables)


def _fill(own: StepBatch, batch: StepBatch) -> None:
    sequences, width = batch.block_tables.shape
    for name in _UPDATED:
        getattr(own, name)[:sequences] = getattr(batch, name)
    own.block_tables[:sequences, :width] = batch.block_tables

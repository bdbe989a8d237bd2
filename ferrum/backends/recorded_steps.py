"""Decode steps, recorded once for each shape and replayed: as a tape on the CPU, as a CUDA graph on the GPU.

Owns: which steps are recorded, and which recording is replayed for a batch. In a decode step every sequence has one new
token, and the launches do not depend on the values. Shapes are rounded up to powers of two, and a recording serves
every batch that fits. Other steps, and steps with an operation that cannot be recorded, run as they are written; the
operation is stored, and the steps are counted.
Refuses to know: how a step is recorded, and what it computes.
Specs: OPS-41, OPS-63. Next: `ferrum.backends.numpy_backend`.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Callable, Sequence
from dataclasses import replace
from typing import Any, Generic, Protocol, TypeVar
from weakref import WeakKeyDictionary

from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step, TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.types import DecodeSteps

MOST_SEQUENCES = 64
"""Most sequences of a recorded step. In larger batches the time between launches is small beside the arithmetic."""
LEAST_WIDTH = 8
"""Least columns of a recorded block table. With blocks of 16, all contexts up to one split of attention (128 positions)
share a recording. A narrower table would not be faster, and recording takes as long as one or two tokens."""
MOST_RECORDINGS = 16
"""Recordings of a step that are kept: those used last. Each owns the memory of the activations of one step."""


class NotRecordable(Exception):
    """A step did something that is not a launch and so would be missing in a replay. The message names it."""


class HostNumbers(Sequence[int]):
    """Stands for the host numbers of the batch with which a step is recorded. A step that reads them raises
    NotRecordable: every replay would repeat what it did for these numbers."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotRecordable(f"reading batch.{self._name} on the host")

    __len__ = __getitem__ = __iter__ = __contains__ = __bool__ = __array__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __mul__ = __rmul__ = _refuse
    __hash__ = _refuse


class RecordedStep(Protocol):
    """A recorded step of one shape."""

    def run(self, batch: StepBatch) -> Tensor:
        """Replays the step for this batch. The result is a copy, because the next replay overwrites the recording's."""
        ...


Ops = TypeVar("Ops", bound=TensorOps)
Record = Callable[[Ops, Step, int, int], RecordedStep]
"""(ops, step, sequences, columns of the block tables) -> the recorded step. Raises NotRecordable."""


class _Recordings:
    """The recordings of one step by shape, the one used last at the end; None for a shape that cannot be recorded."""

    def __init__(self) -> None:
        self.by_shape: OrderedDict[tuple[int, int], RecordedStep | None] = OrderedDict()
        self.counts = DecodeSteps()


class RecordedSteps(Generic[Ops]):
    """The recordings of all steps. They are dropped when their step is freed."""

    def __init__(self, record: Record[Ops]) -> None:
        self._record = record
        self._recordings: WeakKeyDictionary[Step, _Recordings] = WeakKeyDictionary()

    def run(self, ops: Ops, step: Step, batch: StepBatch) -> Tensor:
        """step(ops, batch): a replay if it is a decode step whose shape can be recorded."""
        if not is_decode(batch):
            return step(ops, batch)
        sequences, width = (_power_of_two(count) for count in batch.block_tables.shape)
        width = max(width, LEAST_WIDTH)
        shape, recordings = (sequences, width), self._recordings.setdefault(step, _Recordings())
        if shape not in recordings.by_shape:
            try:
                recordings.by_shape[shape] = self._record(ops, step, sequences, width)
            except NotRecordable as refusal:
                recordings.by_shape[shape] = None
                recordings.counts = replace(recordings.counts, refusal=recordings.counts.refusal or str(refusal))
            if len(recordings.by_shape) > MOST_RECORDINGS:
                recordings.by_shape.popitem(last=False)
        recordings.by_shape.move_to_end(shape)
        recorded = recordings.by_shape[shape]
        recordings.counts = recordings.counts.and_one(replayed=recorded is not None)
        return step(ops, batch) if recorded is None else recorded.run(batch)

    def counts(self, step: Step) -> DecodeSteps:
        """How many decode steps were replayed and how many were not, and the first operation that could not be
        recorded."""
        recordings = self._recordings.get(step)
        return DecodeSteps() if recordings is None else recordings.counts


def is_decode(batch: StepBatch) -> bool:
    """True if each of at most MOST_SEQUENCES sequences has one new token and one row of logits. The order of the rows
    is not checked."""
    (count,) = batch.token_ids.shape
    if not 0 < count <= MOST_SEQUENCES or len(batch.starts) != count + 1 or batch.logit_rows.shape[0] != count:
        return False
    return list(batch.starts) == list(range(count + 1))


def every_row_in_order(batch: StepBatch) -> bool:
    """True if the rows of logits of a decode step, on host arrays, are those of all tokens in order."""
    return bool(batch.logit_rows.tolist() == list(range(len(batch.token_ids))))


def _power_of_two(count: int) -> int:
    """The smallest power of two that is at least `count`."""
    return 1 << (count - 1).bit_length()

"""Decode steps recorded once and replayed, whatever a recording is: a tape on the CPU, a CUDA graph on the GPU.

Owns: which steps are recorded, and which recording serves a batch. A step in which every sequence has one new token
does the same launches whatever the values. Batches and contexts grow and shrink, so shapes are rounded up to powers of
two: a recording serves every batch that fits. Every other step, and every step that does something that cannot be
recorded, runs as it is written; what that was is counted and kept.
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
"""Larger batches are not recorded: their arithmetic takes so long that the time between launches hardly counts."""
LEAST_WIDTH = 8
"""Columns of the narrowest block table that is recorded: with the usual blocks of 16, contexts up to one split of
attention share a recording. A narrower one would not be faster, and to record one takes as long as a token or two."""
MOST_RECORDINGS = 16
"""Recorded shapes of a step that are kept, those used last; each owns the activations of one step."""


class NotRecordable(Exception):
    """A step did something that leaves no launch behind, and so would be missing from a replay. Says what."""


class HostNumbers(Sequence[int]):
    """Numbers that every batch brings along for the host, of a batch that stands for all of them. A step that looks at
    them would do the same at every replay."""

    def __init__(self, name: str) -> None:
        self._name = name

    def _refuse(self, *_: Any, **__: Any) -> Any:
        raise NotRecordable(f"a look at batch.{self._name} on the host")

    __len__ = __getitem__ = __iter__ = __contains__ = __bool__ = __array__ = _refuse
    __eq__ = __ne__ = __lt__ = __le__ = __gt__ = __ge__ = _refuse
    __add__ = __radd__ = __mul__ = __rmul__ = _refuse
    __hash__ = _refuse


class RecordedStep(Protocol):
    """A step of one shape that can be replayed."""

    def run(self, batch: StepBatch) -> Tensor:
        """What the step returns for this batch, in memory of its own: the next replay writes over it."""
        ...


Ops = TypeVar("Ops", bound=TensorOps)
Record = Callable[[Ops, Step, int, int], RecordedStep]
"""Records a step of so many sequences, with block tables of so many columns. Raises NotRecordable."""


class _KnownStep:
    """The recordings of a step by shape, those used last at the end; None for a shape that cannot be recorded."""

    def __init__(self) -> None:
        self.recordings: OrderedDict[tuple[int, int], RecordedStep | None] = OrderedDict()
        self.counts = DecodeSteps()


class RecordedSteps(Generic[Ops]):
    """Recordings, as long as their steps live."""

    def __init__(self, record: Record[Ops]) -> None:
        self._record = record
        self._known: WeakKeyDictionary[Step, _KnownStep] = WeakKeyDictionary()

    def run(self, ops: Ops, step: Step, batch: StepBatch) -> Tensor:
        """step(ops, batch), by replay where this shape of step can be recorded."""
        if not is_decode(batch):
            return step(ops, batch)
        sequences, width = (_power_of_two(count) for count in batch.block_tables.shape)
        width = max(width, LEAST_WIDTH)
        shape, known = (sequences, width), self._known.setdefault(step, _KnownStep())
        if shape not in known.recordings:
            try:
                known.recordings[shape] = self._record(ops, step, sequences, width)
            except NotRecordable as refusal:
                known.recordings[shape] = None
                known.counts = replace(known.counts, refusal=known.counts.refusal or str(refusal))
            if len(known.recordings) > MOST_RECORDINGS:
                known.recordings.popitem(last=False)
        known.recordings.move_to_end(shape)
        recorded = known.recordings[shape]
        known.counts = known.counts.and_one(replayed=recorded is not None)
        return step(ops, batch) if recorded is None else recorded.run(batch)

    def counts(self, step: Step) -> DecodeSteps:
        """What became of the decode steps that could have been replayed."""
        known = self._known.get(step)
        return DecodeSteps() if known is None else known.counts


def is_decode(batch: StepBatch) -> bool:
    """One new token, and one row of logits, for each of a few sequences? In which order the rows are wanted is for the
    recording to look at."""
    (count,) = batch.token_ids.shape
    if not 0 < count <= MOST_SEQUENCES or len(batch.starts) != count + 1 or batch.logit_rows.shape[0] != count:
        return False
    return list(batch.starts) == list(range(count + 1))


def every_row_in_order(batch: StepBatch) -> bool:
    """Does a decode step of host arrays want the logits of each of its tokens, in their order?"""
    return bool(batch.logit_rows.tolist() == list(range(len(batch.token_ids))))


def _power_of_two(count: int) -> int:
    """The smallest that is not less."""
    return 1 << (count - 1).bit_length()

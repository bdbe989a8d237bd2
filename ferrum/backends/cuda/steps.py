"""Decode steps captured as CUDA graphs.

Owns: the memory of a captured step's batch, and putting a batch into it. A replay costs two launches, whatever the step
consists of.
Refuses to know: which steps are captured (`ferrum.backends.recorded_steps`), and what a step computes.
Specs: CUDA-52, CUDA-53. Next: `ferrum.backends.cuda.probe`.
"""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from ferrum.backends.cuda.device import Array, Device, Graph
from ferrum.backends.recorded_steps import HostNumbers, NotRecordable
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import Step, TensorOps

THREADS = 128
VARIANTS: tuple[tuple[str, dict[str, str]], ...] = (("fill", {}),)

_FIELDS = ("token_ids", "positions", "slots", "context_lens", "logit_rows", "block_tables")
"""What changes from step to step, in the order of the kernel's parameters."""


@dataclass(frozen=True, eq=False)
class CapturedStep:
    """A graph, the batch it reads and the result it writes. It points to the weights and caches of its step, which must
    live as long."""

    device: Device
    batch: StepBatch
    graph: Graph
    result: Array

    def run(self, batch: StepBatch) -> Array:
        """The result for this batch, as a copy: the next replay writes over it."""
        fill(self.device, self.batch, batch)
        self.graph.launch()
        return self.result[: batch.logit_rows.shape[0]].copy()


def capture(device: Device, ops: TensorOps, step: Step, sequences: int, width: int) -> CapturedStep:
    """A step of so many sequences, with block tables of `width` columns. Raises NotRecordable."""
    own = own_batch(device, sequences, width)
    graph, result = device.capture(lambda: step(ops, own))
    if result.shape[:1] != (sequences,):
        raise NotRecordable("a result whose size is not a multiple of the tokens")
    return CapturedStep(device, own, graph, result)


def own_batch(device: Device, sequences: int, width: int) -> StepBatch:
    """A batch of one token each, in memory that stays. At first no sequence is there: it writes and reads nothing."""
    absent = dict.fromkeys(("token_ids", "positions", "context_lens"), 0) | {"slots": -1}
    fields = {name: np.full(sequences, value, np.int32) for name, value in absent.items()}
    every = np.arange(sequences + 1, dtype=np.int32)
    fields |= {"seq_starts": every, "logit_rows": every[:-1], "block_tables": np.zeros((sequences, width), np.int32)}
    return StepBatch(
        **{name: device.upload(values) for name, values in fields.items()},
        starts=HostNumbers("starts"),
        contexts=HostNumbers("contexts"),
    )


def fill(device: Device, own: StepBatch, batch: StepBatch) -> None:
    """Puts a batch that fits into `own`."""
    (sequences, width), (own_sequences, own_width) = batch.block_tables.shape, own.block_tables.shape
    buffers = [getattr(each, name) for each in (batch, own) for name in _FIELDS]
    grid = (-(-own_sequences * own_width // THREADS),)
    kernel = device.kernels.get("fill", "fill")
    kernel(grid, (THREADS,), *buffers, sequences, width, own_sequences, own_width)

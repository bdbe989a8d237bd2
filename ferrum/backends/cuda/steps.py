"""Decode steps captured as CUDA graphs.

Owns: the memory of the batch of a captured step, and copying a batch into it. A replay is two launches: the copy and
the graph.
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
"""The arrays of a batch that change from step to step, in the order of the kernel's parameters."""


@dataclass(frozen=True, eq=False)
class CapturedStep:
    """A graph, the batch that it reads and the result that it writes. It points to the weights and caches of its step,
    which must live as long as the graph."""

    device: Device
    batch: StepBatch
    graph: Graph
    result: Array

    def run(self, batch: StepBatch) -> Array:
        """The result for this batch. It is a copy, because the next replay overwrites the result."""
        fill(self.device, self.batch, batch)
        self.graph.launch()
        return self.result[: batch.logit_rows.shape[0]].copy()


def capture(device: Device, ops: TensorOps, step: Step, sequences: int, width: int) -> CapturedStep:
    """Captures a step of this number of sequences, with block tables of `width` columns. Raises NotRecordable."""
    captured = batch_of_graph(device, sequences, width)
    graph, result = device.capture(lambda: step(ops, captured))
    if result.shape[:1] != (sequences,):
        raise NotRecordable("a result whose size is not a multiple of the tokens")
    return CapturedStep(device, captured, graph, result)


def batch_of_graph(device: Device, sequences: int, width: int) -> StepBatch:
    """The batch of a graph: one token for each sequence. Replays write to its arrays. All sequences are absent at
    first: their slots are -1 and their contexts are empty, so nothing is read or written for them."""
    absent = dict.fromkeys(("token_ids", "positions", "context_lens"), 0) | {"slots": -1}
    fields = {name: np.full(sequences, value, np.int32) for name, value in absent.items()}
    starts = np.arange(sequences + 1, dtype=np.int32)
    fields |= {"seq_starts": starts, "logit_rows": starts[:-1], "block_tables": np.zeros((sequences, width), np.int32)}
    return StepBatch(
        **{name: device.upload(values) for name, values in fields.items()},
        starts=HostNumbers("starts"),
        contexts=HostNumbers("contexts"),
    )


def fill(device: Device, target: StepBatch, batch: StepBatch) -> None:
    """Copies a batch into the arrays of `target`, which has at least as many sequences and columns."""
    (sequences, width), (target_sequences, target_width) = batch.block_tables.shape, target.block_tables.shape
    buffers = [getattr(each, name) for each in (batch, target) for name in _FIELDS]
    grid = (-(-target_sequences * target_width // THREADS),)
    kernel = device.kernels.get("fill", "fill")
    kernel(grid, (THREADS,), *buffers, sequences, width, target_sequences, target_width)

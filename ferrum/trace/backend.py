"""The backend of recorded steps: it forwards every operation to the engine's own backend, and records it.

Owns: `TracedOps`, and the seconds that the recording itself took. Refuses to know: how the logs are shown.
Specs: TRACE-02. Next: `ferrum.trace.memory`.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from time import perf_counter
from typing import Any

from ferrum.sched.plan import StepPlan
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention
from ferrum.trace.attention import AttentionLog
from ferrum.trace.forwarding import ForwardingOps
from ferrum.trace.launches import TIMED, LaunchLog


class TracedOps(ForwardingOps):
    """Does what `inner` does, measures each operation of the decoder, and computes weights of attention."""

    def __init__(
        self, inner: TensorOps, layers: Sequence[KvLayer], launches: LaunchLog, attention: AttentionLog | None
    ) -> None:
        """`layers`: the memory of the model's layers, in order."""
        super().__init__(inner)
        self.launches, self.attention = launches, attention
        self.recording_s = 0.0
        """Seconds of the step that were spent on attention weights."""
        self._layers = list(layers)

    def begin(self, plan: StepPlan) -> None:
        """The step that runs next."""
        self.recording_s = 0.0
        self.launches.take()
        if self.attention is not None:
            self.attention.begin(plan)

    def attended(self, row: int) -> dict[str, Any] | None:
        """The weights of one query of the step, as a trace writes them; None where they were not computed."""
        return None if self.attention is None else self.attention.taken(row)

    def rope_attention(
        self,
        projections: tuple[Tensor, Tensor, Tensor],
        attention: Attention,
        tables: RopeTables | None,
        layer: KvLayer,
        batch: StepBatch,
    ) -> Tensor:
        attended = self.timed("rope_attention", projections, attention, tables, layer, batch)
        if self.attention is not None:
            began = perf_counter()
            number = next(number for number, each in enumerate(self._layers) if each is layer)
            self.attention.compute(self.inner, number, projections, attention, tables, layer, batch)
            self.recording_s += perf_counter() - began
        return attended

    def timed(self, name: str, *operands: Any, **options: Any) -> Any:
        """The result of an operation of `inner`, which is measured."""
        with self.launches.operation(name, operands):
            result = getattr(self.inner, name)(*operands, **options)
            if not self.on_host:
                self.inner.to_numpy(self.inner.scalar(0))  # waits for the device
        return result


def _timed(name: str) -> Callable[..., Any]:
    def run(self: TracedOps, *operands: Any, **options: Any) -> Any:
        if name == "normed" and operands[1] is None:  # a place without a norm
            return operands[0]
        return self.timed(name, *operands, **options)

    return run


for _name in TIMED:
    if _name not in vars(TracedOps):
        setattr(TracedOps, _name, _timed(_name))

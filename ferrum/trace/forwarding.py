"""A backend that hands every operation on to another backend.

Owns: `ForwardingOps`, the base of backends that watch another one: a subclass overrides the operations that it watches.
Results are the other backend's tensors, bit for bit.
Refuses to know: what is watched. Specs: TRACE-02. Next: `ferrum.trace.launches`.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import COMPOSITIONS, Compositions, Step, TensorOps
from ferrum.tensor.ops import PRIMITIVES, Tensor


class ForwardingOps(Compositions):
    """Every primitive and every composition is that of `inner`, which does not know of this object. The methods are put
    into the class below it, where a type checker does not see them."""

    def __init__(self, inner: TensorOps) -> None:
        self.inner = inner
        self.name, self.float_dtype = inner.name, inner.float_dtype
        self.deterministic, self.compute = inner.deterministic, inner.compute
        self.on_host, self.chooses, self.flops_per_byte = inner.on_host, inner.chooses, inner.flops_per_byte

    @property
    def threads(self) -> int:
        return self.inner.threads

    def run_step(self, step: Step, batch: StepBatch) -> Tensor:
        """The step as it is written, with this backend: a replay would show none of its operations."""
        return step(self, batch)


def _forwarded(name: str) -> Callable[..., Any]:
    def run(self: ForwardingOps, *arguments: Any, **options: Any) -> Any:
        return getattr(self.inner, name)(*arguments, **options)

    return run


for _name in (*PRIMITIVES, *COMPOSITIONS):
    if _name not in vars(ForwardingOps):
        setattr(ForwardingOps, _name, _forwarded(_name))

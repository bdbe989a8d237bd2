"""The operations that a property called on a backend, and the errors of their results.

Owns: the record of the running property, and the observation of a backend's operations. An observed backend is the same
object: each method is replaced by one that records its name. Refuses to know: pytest, Hypothesis, how a report looks.
Specs: CONFORM-04. Next: `ferrum.conformance.recorder`.
"""

from __future__ import annotations

from collections.abc import Callable
from contextvars import ContextVar
from dataclasses import dataclass, field
from functools import wraps
from typing import Any

from ferrum.tensor.compositions import COMPOSITIONS, TensorOps
from ferrum.tensor.ops import PRIMITIVES

ABOUT_THE_BACKEND = ("own_memory", "on_compile", "decode_steps")
"""Compositions that return information and compute nothing."""

OPERATIONS = tuple(name for name in (*PRIMITIVES, *COMPOSITIONS) if name not in ABOUT_THE_BACKEND)


@dataclass
class Record:
    """called: the operations that the property called itself. checked: the operations that it compared with an oracle,
    with the largest error as a share of the tolerance: 0 if an answer that must be equal is equal, infinite if an error
    has no size."""

    called: set[str] = field(default_factory=set)
    checked: dict[str, float] = field(default_factory=dict)
    depth: int = 0

    def check(self, name: str, share: float = 0.0) -> None:
        self.checked[name] = max(share, self.checked.get(name, 0.0))


CURRENT: ContextVar[Record | None] = ContextVar("record of the running property", default=None)


def note_check(name: str, share: float = 0.0) -> None:
    """The running property has compared this operation with an oracle."""
    record = CURRENT.get()
    if record is not None:
        record.check(name, share)


def watched(ops: TensorOps) -> TensorOps:
    """The same backend, whose operations from now on are recorded for the running property."""
    covers = vars(ops)
    for name in OPERATIONS:
        if name not in covers:
            covers[name] = _recorded(name, getattr(ops, name))
    return ops


def _recorded(name: str, operation: Callable[..., Any]) -> Callable[..., Any]:
    @wraps(operation)
    def run(*arguments: Any, **keywords: Any) -> Any:
        __tracebackhide__ = True  # pytest shows the property, not this wrapper
        record = CURRENT.get()
        if record is None:
            return operation(*arguments, **keywords)
        if record.depth == 0:
            record.called.add(name)
        record.depth += 1
        try:
            return operation(*arguments, **keywords)
        finally:
            record.depth -= 1

    return run

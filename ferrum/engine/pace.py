"""How long a step of several tokens takes, in the time of a step of one.

Owns: the estimates that decide how many drafts pay. They are fixed, not measured at the moment, so that the same text
is computed in the same steps everywhere; benchmarks/speculation.py measures them.
Refuses to know: who proposes. Specs: DRAFT-12. Next: `ferrum.engine.trust`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.tensor.compositions import TensorOps

STRIP = 4
"""Tokens for which a kernel decodes a weight once."""


@dataclass(frozen=True)
class Pace:
    """`beside`: what each further token of the first strip takes; `strip`: what every further strip takes, in full."""

    beside: float
    strip: float

    def time(self, tokens: int) -> float:
        """Of a step of so many tokens, at least one."""
        first, more = min(tokens, STRIP), -(-max(0, tokens - STRIP) // STRIP)
        return 1 + self.beside * (first - 1) + self.strip * more


EXACT = Pace(0.17, 1.2)  # SmolLM2-135M in Q4_1, two cores with AVX-512
INT8 = Pace(0.12, 0.6)  # the same
DEVICE = Pace(0.03, 0.1)  # an estimate: weights are read once for many tokens


def pace_of(ops: TensorOps) -> Pace:
    """Of a backend."""
    if not ops.on_host:
        return DEVICE
    return INT8 if ops.compute == "int8" else EXACT

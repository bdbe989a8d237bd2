"""The time of a step of several tokens, in units of a step of one token.

Owns: the estimates that decide how many drafts pay. They are constants, not measured while the program runs, so that a
text is computed in the same steps on every machine; benchmarks/speculation.py measures them. Refuses to know: who
proposes. Specs: DRAFT-12. Next: `ferrum.engine.trust`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.tensor.compositions import TensorOps

STRIP = 4
"""Number of tokens that a kernel computes with one reading of a weight."""


@dataclass(frozen=True)
class Pace:
    """Times of a step, in units of a step of one token."""

    beside: float  # for each further token of the first strip of STRIP tokens
    strip: float  # for each further strip

    def time(self, tokens: int) -> float:
        """The time of a step of so many tokens, at least one."""
        first, more = min(tokens, STRIP), -(-max(0, tokens - STRIP) // STRIP)
        return 1 + self.beside * (first - 1) + self.strip * more


EXACT = Pace(0.17, 1.2)  # SmolLM2-135M in Q4_1, two cores with AVX-512
INT8 = Pace(0.12, 0.6)  # the same model and machine
DEVICE = Pace(0.03, 0.1)  # an estimate: weights are read once for many tokens


def pace_of(ops: TensorOps) -> Pace:
    """The pace of a backend."""
    if not ops.on_host:
        return DEVICE
    return INT8 if ops.compute == "int8" else EXACT

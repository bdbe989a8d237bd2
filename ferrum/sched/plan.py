"""What one step computes.

Owns: `StepPlan`, the scheduler's only output and the executor's only input. Refuses to know: how it came about.
Specs: SCHED-02. Next: `ferrum.sched.scheduler`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.sched.sequence import TokenSequence


@dataclass(frozen=True, slots=True)
class Chunk:
    """Tokens start … start + count - 1 of a sequence that is computed up to `start`.

    `rows`: of how many of them, counted from the last, logits are wanted: 1 if the chunk reaches the end of the
    sequence, so that its next token can be sampled; 0 in the middle of a prompt.
    """

    sequence: TokenSequence
    start: int
    count: int
    rows: int


@dataclass(frozen=True, slots=True)
class StepPlan:
    """The chunks of one step, of distinct sequences."""

    chunks: tuple[Chunk, ...]

    @property
    def tokens(self) -> int:
        """How many tokens the step computes."""
        return sum(chunk.count for chunk in self.chunks)

    @property
    def sampled(self) -> list[TokenSequence]:
        """The sequences that get a new token, in the order of the rows of logits."""
        return [chunk.sequence for chunk in self.chunks if chunk.rows]

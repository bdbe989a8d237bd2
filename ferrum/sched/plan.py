"""What one step computes.

Owns: `StepPlan`, the scheduler's only output and the executor's only input. Refuses to know: how it came about.
Specs: SCHED-02. Next: `ferrum.sched.order`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ferrum.sched.sequence import TokenSequence


@dataclass(slots=True)  # not frozen, which would double the time it takes to make one, and a step makes hundreds
class Chunk:
    """Tokens start … start + count - 1 of a sequence that is computed up to `start`.

    `rows`: of how many of them, counted from the last, logits are wanted: 1 if the chunk reaches the end of the
    sequence, so that its next token can be sampled; 0 in the middle of a prompt; all, if the prompt is to be scored.
    """

    sequence: TokenSequence
    start: int
    count: int
    rows: int

    @property
    def is_sampled(self) -> bool:
        """Does it reach the end of the sequence, so that there is a next token to sample?"""
        if not self.sequence.scores_prompt:
            return self.rows > 0
        return self.start + self.count == len(self.sequence.token_ids)


class StepPlan:
    """The chunks of one step, of distinct sequences."""

    __slots__ = ("chunks", "rows", "sampled")

    def __init__(self, chunks: tuple[Chunk, ...]) -> None:
        self.chunks = chunks
        self.sampled = [chunk.sequence for chunk in chunks if chunk.is_sampled]
        """The sequences that get a new token, in the order of the rows of logits."""
        self.rows = sum([chunk.rows for chunk in chunks])
        """Of how many tokens logits are wanted: one for each of `sampled`, and more where prompts are scored."""

    def without(self, sequences: Collection[TokenSequence]) -> StepPlan:
        """What is left of it when these sequences have ended."""
        return StepPlan(tuple(chunk for chunk in self.chunks if chunk.sequence not in sequences)) if sequences else self

    @property
    def tokens(self) -> int:
        """How many tokens the step computes."""
        return sum(chunk.count for chunk in self.chunks)

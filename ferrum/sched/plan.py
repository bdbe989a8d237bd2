"""What one step computes.

Owns: `StepPlan`, the scheduler's only output and the executor's only input; what a plan with drafts makes known beyond
its own step. Refuses to know: how it came about.
Specs: SCHED-02, DRAFT-01, DRAFT-02. Paper: speculative decoding 2211.17192. Next: `ferrum.sched.order`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ferrum.sched.sequence import SequenceState, TokenSequence


@dataclass(slots=True)  # not frozen, which would double the time it takes to make one, and a step makes hundreds
class Chunk:
    """Tokens start … start + count - 1 of a sequence that is computed up to `start`.

    `rows`: of how many of them, counted from the last, logits are wanted: 1 if the chunk reaches the end of the
    sequence, so that its next token can be sampled; 0 in the middle of a prompt; all, if the prompt is to be scored.
    `drafts`: tokens that may come next, computed with the others and not counted among them; logits of each are wanted.
    """

    sequence: TokenSequence
    start: int
    count: int
    rows: int
    drafts: tuple[int, ...] = ()

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
        self.rows = sum([chunk.rows + len(chunk.drafts) for chunk in chunks])
        """Of how many tokens logits are wanted: one for each of `sampled` and each draft, more in scored prompts."""

    def without(self, sequences: Collection[TokenSequence]) -> StepPlan:
        """What is left of it when these sequences have ended."""
        return StepPlan(tuple(chunk for chunk in self.chunks if chunk.sequence not in sequences)) if sequences else self

    @property
    def tokens(self) -> int:
        """How many tokens the step computes."""
        return sum([chunk.count + len(chunk.drafts) for chunk in self.chunks])

    def confirmed(self) -> StepPlan:
        """Once this plan is committed: the next step of those sequences whose new token is their first draft. All that
        such a step computes is known already, the logits behind the draft too."""
        running = SequenceState.RUNNING
        return StepPlan(
            tuple(
                Chunk(chunk.sequence, chunk.sequence.computed, 1, 1, chunk.drafts[1:])
                for chunk in self.chunks
                if chunk.drafts and chunk.sequence.state is running and chunk.sequence.token_ids[-1] == chunk.drafts[0]
            )
        )

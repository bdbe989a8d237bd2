"""What one step computes.

Owns: `StepPlan`, the scheduler's only output and the executor's only input; the further tokens of a plan with drafts.
Refuses to know: why a token is in the plan.
Specs: SCHED-02, DRAFT-01, DRAFT-02. Paper: speculative decoding 2211.17192. Next: `ferrum.sched.order`.
"""

from __future__ import annotations

from collections.abc import Collection
from dataclasses import dataclass

from ferrum.sched.sequence import SequenceState, TokenSequence


@dataclass(slots=True)  # not frozen: that would double the time to make one, and a step makes hundreds
class Chunk:
    """Tokens start … start + count - 1 of a sequence whose first `start` tokens are computed."""

    sequence: TokenSequence
    start: int
    count: int
    rows: int  # last tokens of the chunk whose logits are needed: 1 at the end of the text, 0 before, all if scored
    drafts: tuple[int, ...] = ()  # tokens that may come next, computed too; not part of `count`, each has a row

    @property
    def is_sampled(self) -> bool:
        """True if the chunk reaches the end of the text, so that the next token is sampled."""
        if not self.sequence.scores_prompt:
            return self.rows > 0
        return self.start + self.count == len(self.sequence.token_ids)


class StepPlan:
    """The chunks of one step, of distinct sequences."""

    __slots__ = ("chunks", "rows", "sampled")

    def __init__(self, chunks: tuple[Chunk, ...]) -> None:
        self.chunks = chunks
        self.sampled = [chunk.sequence for chunk in chunks if chunk.is_sampled]
        """The sequences that get a new token, in the order of their rows of logits."""
        self.rows = sum([chunk.rows + len(chunk.drafts) for chunk in chunks])
        """Tokens whose logits are needed: one for each of `sampled` and for each draft, more in scored prompts."""

    def without(self, sequences: Collection[TokenSequence]) -> StepPlan:
        """The same plan without the chunks of these sequences."""
        return StepPlan(tuple(chunk for chunk in self.chunks if chunk.sequence not in sequences)) if sequences else self

    @property
    def tokens(self) -> int:
        """How many tokens the step computes, drafts included."""
        return sum([chunk.count + len(chunk.drafts) for chunk in self.chunks])

    def confirmed(self) -> StepPlan:
        """To be called when this plan is committed: a plan for the sequences whose new token is equal to their first
        draft. It needs no forward pass: this plan has computed its tokens and their logits already."""
        running = SequenceState.RUNNING
        return StepPlan(
            tuple(
                Chunk(chunk.sequence, chunk.sequence.computed, 1, 1, chunk.drafts[1:])
                for chunk in self.chunks
                if chunk.drafts and chunk.sequence.state is running and chunk.sequence.token_ids[-1] == chunk.drafts[0]
            )
        )

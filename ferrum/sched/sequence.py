"""One sequence on its way through the engine.

Owns: the state of a sequence between two steps: its tokens, how many of them are computed, its blocks. There is no flag
for prefill or decode: a sequence has pending tokens, many of a prompt or the one that was sampled last.
Refuses to know: text, arrays, other sequences except its siblings.
Specs: SCHED-01. Next: `ferrum.sched.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ferrum.kv.block_table import BlockTable
from ferrum.sampling_params import SamplingParams
from ferrum.types import Priority


class SequenceState(Enum):
    """The state of a sequence. It holds blocks on the device only in RUNNING, on the host only in PREEMPTED."""

    NEW = "new"  # not submitted yet
    WAITING = "waiting"  # submitted, and has never run
    RUNNING = "running"
    PREEMPTED = "preempted"  # has run, and waits again
    FINISHED = "finished"


NO_BLOCKS = BlockTable(1)
"""The table of a sequence before it is submitted: it has no blocks."""


class TokenSequence:
    """A prompt and the tokens generated after it. The ruler above `BlockTable` shows its lengths in one picture."""

    __slots__ = (
        "accepted", "arrival", "arrival_step", "cached", "computed", "drafted", "max_length", "params", "priority",
        "prompt_length", "rank", "scores_prompt", "seed", "siblings", "state", "table", "token_ids",
    )  # fmt: skip

    def __init__(
        self,
        prompt_ids: Iterable[int],
        params: SamplingParams,
        seed: int,
        priority: Priority = Priority.NORMAL,
        source: TokenSequence | None = None,
    ) -> None:
        """`source`: another sequence of the same request, for a prompt with several choices."""
        self.token_ids = list(prompt_ids)  # all tokens so far, of the prompt and generated
        self.prompt_length = len(self.token_ids)
        self.params = params
        self.seed = seed  # of this choice
        self.priority = priority
        self.siblings: list[TokenSequence] = [] if source is None else source.siblings  # all choices of one prompt
        self.siblings.append(self)
        self.scores_prompt = params.prompt_logprobs is not None and source is None  # logits of the whole prompt
        self.computed = 0  # leading tokens whose keys and values are in memory
        self.cached = 0  # leading tokens of the prompt that were in memory when it ran first
        self.drafted = 0  # drafts that were computed
        self.accepted = 0  # drafts that turned out right
        self.state = SequenceState.NEW
        # set when it is submitted
        self.max_length = self.prompt_length  # it ends at this length at the latest
        self.arrival = 0  # its number in the order of submission, from 1
        self.arrival_step = 0  # the number of steps planned before
        self.rank: tuple[int, int] = (0, 0)  # its place in the scheduler's order, the smallest first
        self.table = NO_BLOCKS  # its blocks

    @property
    def length(self) -> int:
        """All its tokens."""
        return len(self.token_ids)

    @property
    def pending(self) -> int:
        """Tokens that are not computed yet: the rest of the prompt, or the one sampled last."""
        return len(self.token_ids) - self.computed

    @property
    def output_ids(self) -> list[int]:
        """The generated tokens."""
        return self.token_ids[self.prompt_length :]

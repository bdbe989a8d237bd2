"""One sequence on its way through the engine.

Owns: what is known of a sequence between two steps: its tokens, how many of them have been computed, its blocks.
There is no flag for prefill or decode: a sequence has pending tokens, and it does not matter how many.
Refuses to know: text, arrays, other sequences but the one it is a copy of.
Specs: SCHED-01. Next: `ferrum.sched.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ferrum.kv.block_table import BlockTable
from ferrum.sampling_params import SamplingParams
from ferrum.types import Priority


class SequenceState(Enum):
    """Where a sequence stands. Blocks on the device are held in RUNNING only, on the host in PREEMPTED only."""

    NEW = "new"  # not submitted yet
    WAITING = "waiting"
    RUNNING = "running"
    PREEMPTED = "preempted"  # waits again, after it has run
    FINISHED = "finished"


NO_BLOCKS = BlockTable(1)
"""The table of a sequence that was not submitted yet: it has room for nothing."""


class TokenSequence:
    """A prompt and what has been generated after it.

    `token_ids`: all tokens so far. `computed`: how many of them have their keys and values in memory. `cached`: how
    many of those of the prompt were there when it first ran. `drafted`: tokens that were computed before they had come;
    `accepted`: how many of them came. `scores_prompt`: are the logits of all its prompt wanted?
    `max_length`: the length at which the sequence ends.
    `table`: its blocks. `rank`: its place in the scheduler's order, the smallest first. `siblings`: all choices of one
    prompt, itself among them. `max_length`, `table` and `rank` are set on submission.
    """

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
        """`source`: a sequence of the same prompt, of which this one is another choice."""
        self.token_ids = list(prompt_ids)
        self.prompt_length = len(self.token_ids)
        self.params = params
        self.seed = seed
        self.priority = priority
        self.siblings: list[TokenSequence] = [] if source is None else source.siblings
        self.siblings.append(self)
        self.scores_prompt = params.prompt_logprobs is not None and source is None
        self.computed = 0
        self.cached = 0
        self.drafted = self.accepted = 0
        self.max_length = self.prompt_length
        self.arrival = 0  # how many came before
        self.arrival_step = 0  # in which step it came
        self.rank: tuple[int, int] = (0, 0)
        self.state = SequenceState.NEW
        self.table = NO_BLOCKS

    @property
    def length(self) -> int:
        return len(self.token_ids)

    @property
    def pending(self) -> int:
        """Tokens not computed yet: the rest of the prompt, or the one token sampled last."""
        return len(self.token_ids) - self.computed

    @property
    def output_ids(self) -> list[int]:
        """The generated tokens."""
        return self.token_ids[self.prompt_length :]

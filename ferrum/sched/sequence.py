"""One sequence on its way through the engine.

Owns: what is known of a sequence between two steps: its tokens, how many of them have been computed, its blocks.
There is no flag for prefill or decode: a sequence has pending tokens, and it does not matter how many.
Refuses to know: text, arrays, other sequences.
Specs: SCHED-01. Next: `ferrum.sched.plan`.
"""

from __future__ import annotations

from collections.abc import Iterable
from enum import Enum

from ferrum.kv.block_table import BlockTable
from ferrum.types import SamplingParams


class SequenceState(Enum):
    """Where a sequence stands. Blocks are held in RUNNING only."""

    NEW = "new"  # not submitted yet
    WAITING = "waiting"
    RUNNING = "running"
    FINISHED = "finished"


class TokenSequence:
    """A prompt and what has been generated after it.

    `token_ids`: all tokens so far. `computed`: how many of them have their keys and values written. `max_length`: the
    length at which the sequence ends; the scheduler sets it on submission. `table`: its blocks while it runs.
    """

    __slots__ = ("computed", "max_length", "params", "prompt_length", "seed", "state", "table", "token_ids")

    def __init__(self, prompt_ids: Iterable[int], params: SamplingParams, seed: int) -> None:
        self.token_ids = list(prompt_ids)
        self.prompt_length = len(self.token_ids)
        self.params = params
        self.seed = seed
        self.computed = 0
        self.max_length = self.prompt_length
        self.state = SequenceState.NEW
        self.table: BlockTable | None = None

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

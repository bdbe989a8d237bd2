"""Log probabilities of the tokens of a prompt, collected step by step.

Owns: which row of logits belongs to which token. Refuses to know: how logits are computed, the text of tokens.
Specs: ENGINE-42. Next: `ferrum.engine.request`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ferrum.sample.logprobs import Ranked, log_softmax, ranked


class PromptScores:
    """`ranked` has one entry for each token: None for the first token, and for those not computed yet."""

    def __init__(self, prompt_ids: Sequence[int], count: int) -> None:
        """`count`: how many most likely tokens are reported besides the token of the prompt."""
        self._prompt_ids = prompt_ids
        self._count = count
        self.ranked: list[Ranked | None] = [None] * len(prompt_ids)

    def add(self, start: int, logits: NDArray[Any]) -> None:
        """logits [tokens, vocab] of the tokens from position `start` on. Rows beyond the prompt are ignored; rows that
        are computed again after a preemption give the same entries. Raises ModelError if a logit is not finite."""
        for position, row in enumerate(logits[: max(0, len(self._prompt_ids) - 1 - start)], start + 1):
            self.ranked[position] = ranked(log_softmax(row), self._prompt_ids[position], self._count)

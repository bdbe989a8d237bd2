"""How likely a prompt was to its model: log probabilities of its tokens, collected step by step.

Owns: which row of logits tells of which token. Refuses to know: how logits come about, the text of tokens.
Specs: ENGINE-42. Next: `ferrum.engine.request`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from numpy.typing import NDArray

from ferrum.sample.logprobs import Ranked, log_softmax, ranked


class PromptScores:
    """`ranked`: one entry for each token, None for the first, which nothing comes before, and while unknown."""

    def __init__(self, prompt_ids: Sequence[int], count: int) -> None:
        """`count`: of how many most likely tokens the caller wants to know, besides the prompt's own."""
        self._prompt_ids = prompt_ids
        self._count = count
        self.ranked: list[Ranked | None] = [None] * len(prompt_ids)

    def add(self, start: int, logits: NDArray[Any]) -> None:
        """logits [tokens, vocab] of the tokens from position `start` on. What goes beyond the prompt is passed over;
        what is computed again after a preemption says the same again. Raises ModelError for logits that are not
        finite."""
        for position, row in enumerate(logits[: max(0, len(self._prompt_ids) - 1 - start)], start + 1):
            self.ranked[position] = ranked(log_softmax(row), self._prompt_ids[position], self._count)

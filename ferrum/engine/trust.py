"""How many tokens it is worth to propose, for one text.

Owns: the share of proposed tokens that turned out right, in which old ones count less, and what follows from it: a
draft k places ahead is right with the chance share ** k, and as many are proposed as bring the most tokens in a unit of
time. Refuses to know: who proposes.
Specs: DRAFT-12. Paper: speculative decoding 2211.17192, section 3.5. Next: `ferrum.engine.proposer`.
"""

from __future__ import annotations

from ferrum.engine.pace import Pace

KEPT = 0.9
"""What a judged proposal counts, once another one was judged: about the last ten have a say."""
RIGHT, WRONG = 1.4, 0.6
"""Proposals of a text of which nothing is known yet."""
MARGIN = 1.05
"""Drafts must bring so much more: what they take is an estimate."""


class Trust:
    """What one text's proposals were worth so far."""

    def __init__(self) -> None:
        self._right, self._wrong = RIGHT, WRONG

    @property
    def share(self) -> float:
        """Between 0 and 1: the chance that the next proposed token is right, if those before it are."""
        return self._right / (self._right + self._wrong)

    def length(self, pace: Pace, cost: float, sequences: int, most: int) -> int:
        """How many tokens to propose for each of so many sequences, where a proposed token takes `cost` by itself, in
        the time of a step of one token."""
        best, most_tokens, expected, chance = 0, MARGIN / pace.time(sequences), 1.0, 1.0
        for count in range(1, most + 1):
            chance *= self.share
            expected += chance
            rate = expected / (pace.time(sequences * (1 + count)) + count * cost)
            if rate > most_tokens:
                best, most_tokens = count, rate
        return best

    def learn(self, right: int, all_right: bool) -> None:
        """So many proposed tokens were right, in a row from the first, and the one behind them was not, unless there
        was none."""
        self._right = KEPT * self._right + right
        self._wrong = KEPT * self._wrong + (not all_right)

"""The number of tokens to propose for one text.

Owns: the share of proposed tokens that were right, in which older ones count less, and the decision that follows: the
k-th draft is right with probability share ** k, and the number of drafts is the one that gives the most tokens per unit
of time. Refuses to know: who proposes.
Specs: DRAFT-12. Paper: speculative decoding 2211.17192, section 3.5. Next: `ferrum.engine.proposer`.
"""

from __future__ import annotations

from ferrum.engine.pace import Pace

KEPT = 0.9
"""Factor of all older judgements at each new one: about the last ten proposals count."""
RIGHT, WRONG = 1.4, 0.6
"""The counts that a new text begins with."""
MARGIN = 1.05
"""Drafts must be faster by this factor, since their time is only estimated."""


class Trust:
    """The accuracy of one text's proposals so far."""

    def __init__(self) -> None:
        self._right, self._wrong = RIGHT, WRONG

    @property
    def share(self) -> float:
        """The estimated probability that a proposed token is right if those before it are."""
        return self._right / (self._right + self._wrong)

    def length(self, pace: Pace, cost: float, sequences: int, most: int) -> int:
        """The number of tokens to propose for each of `sequences` sequences, at most `most`. `cost`: the time to
        propose one token, in steps of one token."""
        best, most_tokens, expected, chance = 0, MARGIN / pace.time(sequences), 1.0, 1.0
        for count in range(1, most + 1):
            chance *= self.share
            expected += chance
            rate = expected / (pace.time(sequences * (1 + count)) + count * cost)
            if rate > most_tokens:
                best, most_tokens = count, rate
        return best

    def learn(self, right: int, all_right: bool) -> None:
        """Counts a proposal: its first `right` tokens were right, and the next one was wrong unless `all_right`."""
        self._right = KEPT * self._right + right
        self._wrong = KEPT * self._wrong + (not all_right)

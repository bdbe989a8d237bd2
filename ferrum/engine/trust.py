"""How many tokens it is worth to propose, for one text.

Owns: the share of proposed tokens that turned out right, in which old ones count less, and what follows from it: a
draft `k` places ahead is right with the chance share ** k, and worth its price while the chance is above it. Everything
is counted and nothing measured, so that the same text is computed in the same steps on any machine.
Refuses to know: who proposes. Specs: DRAFT-12. Paper: speculative decoding 2211.17192, section 3.5.
Next: `ferrum.engine.proposer`.
"""

from __future__ import annotations

import math

KEPT = 0.9
"""What a judged proposal counts, once another one was judged: about the last ten have a say."""
RIGHT, WRONG = 1.4, 0.6
"""Proposals of a text of which nothing is known yet."""


class Trust:
    """What one text's proposals were worth so far."""

    def __init__(self) -> None:
        self._right, self._wrong = RIGHT, WRONG

    @property
    def share(self) -> float:
        """Between 0 and 1: the chance that the next proposed token is right, if those before it are."""
        return self._right / (self._right + self._wrong)

    def length(self, price: float, most: int) -> int:
        """How many tokens to propose where each takes `price` of the time that one which is right saves."""
        if price >= self.share:
            return 0
        return min(most, int(math.log(max(price, 1e-9)) / math.log(self.share)))

    def learn(self, right: int, all_right: bool) -> None:
        """So many proposed tokens were right, in a row from the first, and the one behind them was not, unless there
        was none."""
        self._right = KEPT * self._right + right
        self._wrong = KEPT * self._wrong + (not all_right)

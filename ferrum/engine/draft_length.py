"""The number of tokens to propose for one text.

Owns: the decision: as many drafts as give the most tokens per unit of time. It rests on the share of a text's proposals
that were right (the k-th draft is right with probability share ** k), and on estimates of the time of a step with
drafts. The estimates are constants, not measured while the program runs, so that a text is computed in the same steps
on every machine; benchmarks/speculation.py measures them. Refuses to know: who proposes.
Specs: DRAFT-12. Paper: speculative decoding 2211.17192, section 3.5. Next: `ferrum.engine.proposer`.
"""

from __future__ import annotations

from dataclasses import dataclass

from ferrum.tensor.compositions import TensorOps

STRIP = 4
"""Number of tokens that a kernel computes with one reading of a weight."""


@dataclass(frozen=True)
class Pace:
    """Times of a step, in units of a step of one token."""

    beside: float  # for each further token of the first strip of STRIP tokens
    strip: float  # for each further strip

    def time(self, tokens: int) -> float:
        """The time of a step of so many tokens, at least one."""
        first, strips = min(tokens, STRIP), -(-max(0, tokens - STRIP) // STRIP)
        return 1 + self.beside * (first - 1) + self.strip * strips


EXACT = Pace(0.17, 1.2)  # SmolLM2-135M in Q4_1, two cores with AVX-512
INT8 = Pace(0.12, 0.6)  # the same model and machine
DEVICE = Pace(0.03, 0.1)  # an estimate: weights are read once for many tokens


def pace_of(ops: TensorOps) -> Pace:
    """The pace of a backend."""
    if not ops.on_host:
        return DEVICE
    return INT8 if ops.compute == "int8" else EXACT


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

    def length(self, pace: Pace, cost: float, sequences: int, limit: int) -> int:
        """The number of tokens to propose for each of `sequences` sequences, at most `limit`. `cost`: the time to
        propose one token, in steps of one token."""
        best, most_tokens, expected, chance = 0, MARGIN / pace.time(sequences), 1.0, 1.0
        for count in range(1, limit + 1):
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

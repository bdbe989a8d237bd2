"""Who proposes what may come next.

Owns: the protocol. A proposal may be anything: it decides how long a text takes, never what is in it.
Refuses to know: who judges. Specs: DRAFT-01. Next: `ferrum.engine.ngram`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ferrum.sched.sequence import TokenSequence


class Proposer(Protocol):
    """Asked again and again about sequences that grow at their end."""

    cost: float
    """The time of one proposed token, in steps of the model that judges it."""

    def propose(self, asked: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        """For each sequence, at most so many tokens that may follow its last."""
        ...

    def forget(self, sequence: TokenSequence) -> None:
        """The sequence has ended. May be one that was never asked about."""
        ...

    def reset(self) -> None:
        """Nothing that was known can be trusted; sequences that were asked about may be asked about again."""
        ...

"""The protocol of proposers, which guess the next tokens of a text.

Owns: the protocol. Any proposal is allowed: it changes how long a text takes, never which tokens it has. Refuses to
know: how proposals are judged. Specs: DRAFT-01. Next: `ferrum.engine.ngram`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

from ferrum.sched.sequence import TokenSequence


class Proposer(Protocol):
    """Proposes tokens for sequences that grow at their end between two calls."""

    cost: float
    """The time that one proposed token takes, in steps of the model that judges it."""

    def propose(self, limits: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        """For each sequence a list of tokens that may follow its last token. `limits`: how long each list may be."""
        ...

    def forget(self, sequence: TokenSequence) -> None:
        """Drops the state of a sequence that has ended; it may never have been asked about."""
        ...

    def reset(self) -> None:
        """Drops all state, which an error may have damaged. The same sequences may be asked about again."""
        ...

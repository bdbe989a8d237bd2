"""Which tokens a sequence consists of, and how often each: what penalties are about.

Owns: counting, one token at a time. Refuses to know: what the counts are used for.
Specs: SAMPLE-17, SAMPLE-19. Next: `ferrum.sample.state`.
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Collection, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class TokenHistory:
    """A prompt, and what has been generated after it."""

    def __init__(self, prompt_ids: Sequence[int]) -> None:
        self.length = len(prompt_ids)
        self.generated = 0
        self._seen = set(prompt_ids)
        self._counts: Counter[int] = Counter()

    def push(self, token: int) -> None:
        """One more generated token."""
        self.length += 1
        self.generated += 1
        self._seen.add(token)
        self._counts[token] += 1

    def seen(self, but: Collection[int] = ()) -> Ids:
        """The distinct tokens of prompt and output, ascending, but for those."""
        return np.array(sorted(self._seen.difference(but)), np.int64)

    def counts(self) -> tuple[Ids, Ids]:
        """The distinct generated tokens, and how often each was."""
        return np.array(list(self._counts), np.int64), np.array(list(self._counts.values()), np.int64)

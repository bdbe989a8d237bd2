"""Which tokens a sequence consists of, and how often each: what penalties are about.

Owns: counting, one token at a time, in arrays that are ready for the next step however long the text is.
Refuses to know: what the counts are used for.
Specs: SAMPLE-17 to SAMPLE-19. Next: `ferrum.sample.state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class _Growing:
    """An array that numbers are added to at the end, without a copy of it for each."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._array = np.fromiter(values, np.int64)
        self._size = len(self._array)

    def append(self, value: int) -> None:
        if self._size == len(self._array):
            self._array = np.concatenate((self._array, np.zeros(self._size + 16, np.int64)))
        self._array[self._size] = value
        self._size += 1

    def values(self) -> Ids:
        """What has been added; not to be kept, since it may change with the next token."""
        return self._array[: self._size]


class TokenHistory:
    """A prompt, and what has been generated after it."""

    def __init__(self, prompt_ids: Sequence[int], exempt: frozenset[int] = frozenset()) -> None:
        """`exempt`: tokens that `seen` does not tell of."""
        self.length = len(prompt_ids)
        self.generated = 0
        self._exempt = exempt
        self._distinct = set(prompt_ids)
        self._seen: _Growing | None = None  # made when it is first asked for: most requests have no such penalty
        self._places: dict[int, int] = {}  # of generated tokens in the two arrays
        self._tokens, self._counts = _Growing(), _Growing()

    def push(self, token: int) -> None:
        """One more generated token."""
        self.length += 1
        self.generated += 1
        if token not in self._distinct:
            self._distinct.add(token)
            if self._seen is not None and token not in self._exempt:
                self._seen.append(token)
        place = self._places.get(token)
        if place is None:
            self._places[token] = len(self._places)
            self._tokens.append(token)
            self._counts.append(1)
        else:
            self._counts.values()[place] += 1

    def seen(self) -> Ids:
        """The distinct tokens of prompt and output, in no particular order, but for those that are exempt."""
        if self._seen is None:
            self._seen = _Growing(self._distinct - self._exempt)
        return self._seen.values()

    def counts(self) -> tuple[Ids, Ids]:
        """The distinct generated tokens, and how often each was."""
        return self._tokens.values(), self._counts.values()

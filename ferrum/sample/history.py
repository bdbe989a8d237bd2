"""The tokens of a sequence and their counts, for penalties.

Owns: counting, one token at a time, in arrays that need no work per step that grows with the text. Refuses to know:
what the counts are used for.
Specs: SAMPLE-17 to SAMPLE-19. Next: `ferrum.sample.state`.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import numpy as np
from numpy.typing import NDArray

Ids = NDArray[np.int64]


class _Growing:
    """An array to which numbers are appended, with a copy of the array only now and then."""

    def __init__(self, values: Iterable[int] = ()) -> None:
        self._array = np.fromiter(values, np.int64)
        self._size = len(self._array)

    def append(self, value: int) -> None:
        if self._size == len(self._array):
            self._array = np.concatenate((self._array, np.zeros(self._size + 16, np.int64)))
        self._array[self._size] = value
        self._size += 1

    def values(self) -> Ids:
        """The numbers so far, as a view that may change with the next token."""
        return self._array[: self._size]


class TokenHistory:
    """The tokens of a prompt, and those generated after it."""

    def __init__(self, prompt_ids: Sequence[int], exempt: frozenset[int] = frozenset()) -> None:
        """`exempt`: tokens that `seen` leaves out."""
        self.length = len(prompt_ids)
        self.generated = 0
        self._exempt = exempt
        self._distinct = set(prompt_ids)
        self._seen: _Growing | None = None  # made on first use: most requests have no repetition penalty
        self._places: dict[int, int] = {}  # generated token -> its index in the two arrays
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
        """The distinct tokens of prompt and output, without the exempt ones, in no particular order."""
        if self._seen is None:
            self._seen = _Growing(self._distinct - self._exempt)
        return self._seen.values()

    def counts(self) -> tuple[Ids, Ids]:
        """The distinct generated tokens, and how often each was generated."""
        return self._tokens.values(), self._counts.values()

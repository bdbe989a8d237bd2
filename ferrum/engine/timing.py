"""When things happened to a request.

Owns: the moments of one request and the rates that follow. Refuses to know: what the request asks.
Specs: ENGINE-16. Next: `ferrum.engine.output`.
"""

from __future__ import annotations

import time

from ferrum.types import Timings


class Stopwatch:
    """Moments of a monotonic clock, in seconds."""

    def __init__(self) -> None:
        self._submitted = time.perf_counter()
        self._first: float | None = None
        self._last = self._submitted
        self._tokens = 0

    def tick(self) -> None:
        """A token has been generated."""
        self._last = time.perf_counter()
        self._tokens += 1
        if self._first is None:
            self._first = self._last

    def timings(self, prompt_tokens: int) -> Timings:
        """Rates so far. The first token belongs to the prefill, the others to the decode."""
        if self._first is None:
            return Timings()
        waited = self._first - self._submitted
        return Timings(waited, _rate(prompt_tokens, waited), _rate(self._tokens - 1, self._last - self._first))


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0

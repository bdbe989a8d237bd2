"""The times of a request: submitted, started, first token, last token.

Owns: these times and the rates that follow from them. Refuses to know: the request.
Specs: ENGINE-16. Next: `ferrum.engine.output`.
"""

from __future__ import annotations

from collections.abc import Callable

from ferrum.types import Timings

Clock = Callable[[], float]
"""Returns seconds since a fixed moment; never decreases."""


class Stopwatch:
    """The times of one request, in seconds of a clock."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.submitted = clock()
        self.started: float | None = None
        """The time of the first step with this request."""
        self._first: float | None = None
        self._last = self.submitted
        self._tokens = 0

    def start(self) -> float:
        """Notes the first step -> seconds since the submission. Later calls change nothing."""
        if self.started is None:
            self.started = self._clock()
        return self.started - self.submitted

    def tick(self) -> float:
        """Notes a generated token -> the time."""
        self._last = self._clock()
        self._tokens += 1
        if self._first is None:
            self._first = self._last
        return self._last

    def timings(self, prompt_tokens: int) -> Timings:
        """Rates so far. The first token belongs to the prefill, the others to the decode."""
        if self._first is None:
            return Timings()
        waited = self._first - self.submitted
        return Timings(waited, _rate(prompt_tokens, waited), _rate(self._tokens - 1, self._last - self._first))


def _rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0

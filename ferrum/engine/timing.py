"""When things happened to a request.

Owns: the moments of one request and the rates that follow. Refuses to know: what the request asks.
Specs: ENGINE-16. Next: `ferrum.engine.output`.
"""

from __future__ import annotations

from collections.abc import Callable

from ferrum.types import Timings

Clock = Callable[[], float]
"""Seconds since some moment in the past; never goes back."""


class Stopwatch:
    """Moments of a clock, in seconds."""

    def __init__(self, clock: Clock) -> None:
        self._clock = clock
        self.submitted = clock()
        self.started: float | None = None
        """When the request first ran."""
        self._first: float | None = None
        self._last = self.submitted
        self._tokens = 0

    def start(self) -> float:
        """The request runs -> seconds that it waited. Later calls change nothing."""
        if self.started is None:
            self.started = self._clock()
        return self.started - self.submitted

    def tick(self) -> float:
        """A token has been generated -> the moment."""
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

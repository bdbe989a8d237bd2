"""The deadlines of requests.

Owns: the order in which deadlines pass. Refuses to know: what happens to a request after its deadline.
Specs: ENGINE-24. Next: `ferrum.engine.turns`.
"""

from __future__ import annotations

from collections.abc import Iterator
from heapq import heapify, heappop, heappush
from itertools import count

from ferrum.engine.request import Request


class Deadlines:
    """Requests by deadline, in seconds of the engine's clock."""

    def __init__(self) -> None:
        self._entries: list[tuple[float, int, Request]] = []
        self._number = count()  # requests cannot be compared
        self._room = 16

    def add(self, deadline: float, request: Request) -> None:
        """Adds a request with its deadline."""
        if len(self._entries) > self._room:  # finished requests must not stay in memory until their deadline
            self._entries = [entry for entry in self._entries if not entry[2].finished]
            heapify(self._entries)
            self._room = 2 * len(self._entries) + 16
        heappush(self._entries, (deadline, next(self._number), request))

    def passed(self, now: float) -> Iterator[tuple[Request, float]]:
        """The unfinished requests whose deadline has passed, each once, with the seconds they were given."""
        entries = self._entries
        while entries and (entries[0][0] <= now or entries[0][2].finished):
            deadline, _, request = heappop(entries)
            if not request.finished:
                yield request, deadline - request.stopwatch.submitted

    def clear(self) -> None:
        """Removes all requests."""
        self._entries.clear()

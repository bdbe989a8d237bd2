"""The record of one request: its times, its text, its failure.

Owns: the record that a request leaves, and the names of the ways to fail. Refuses to know: clocks; all times are
seconds on one clock. Specs: BENCH-11, BENCH-12. Next: `ferrum.load_test.figures`.
"""

from __future__ import annotations

from dataclasses import dataclass

NO_CONNECTION = "no connection"
TIMED_OUT = "timed out"
BROKEN = "broken stream"
TOLD = "error in the stream"
NO_TEXT = "no text"


@dataclass(frozen=True)
class Failure:
    """Why there is no answer: the kind, by which failures are counted ("status 429", or a name above), and what the
    server or the connection said."""

    kind: str
    message: str


@dataclass(frozen=True)
class Usage:
    """Tokens as the server counts them."""

    prompt: int
    output: int


@dataclass(frozen=True)
class Timeline:
    """One request. `planned`: when it was to be sent; `texts`: when each chunk that holds text arrived."""

    planned: float
    sent: float
    ended: float
    texts: tuple[float, ...] = ()
    usage: Usage | None = None
    failure: Failure | None = None

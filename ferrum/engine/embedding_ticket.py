"""Jobs for vectors that were handed to the engine's thread, and the wait for their results.

Owns: how other threads wait for a job or cancel it, and the list of open jobs. Refuses to know: what is computed.
Specs: ENGINE-74. Next: `ferrum.engine.stream`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable

from ferrum.engine.embedder import Embedder
from ferrum.engine.embedding import EmbeddingJob
from ferrum.engine.observer import Listener, tell
from ferrum.errors import Cancelled, FerrumError
from ferrum.types import Embedding


class EmbeddingTicket:
    """One job that the engine's thread computes."""

    def __init__(
        self, job: EmbeddingJob, listener: Listener | None, withdraw: Callable[[EmbeddingTicket], None]
    ) -> None:
        """`listener` is called once, in the engine's thread, when the job has ended for any reason. `withdraw` asks
        that thread to end the job."""
        self.job = job
        self._listener, self._withdraw = listener, withdraw
        self._done = threading.Event()

    # ---- for any thread
    @property
    def finished(self) -> bool:
        return self._done.is_set()

    def result(self, timeout_s: float | None = None) -> list[Embedding]:
        """Waits for the vectors. Raises TimeoutError if they take longer, or the error that ended the job."""
        if not self._done.wait(timeout_s):
            raise TimeoutError("the vectors are not computed yet")
        return self.job.result()

    def cancel(self) -> None:
        """Ends the job with Cancelled and frees its blocks within a step. May be called at any time, and again."""
        if not self.finished:
            self._withdraw(self)

    # ---- for the engine's thread
    def close(self) -> None:
        """Marks the job as ended."""
        self._done.set()
        tell(self._listener)


class OpenEmbeddings:
    """The tickets whose jobs an embedder works on. For the engine's thread alone."""

    def __init__(self, embedder: Embedder) -> None:
        self._embedder = embedder
        self._tickets: list[EmbeddingTicket] = []

    def __len__(self) -> int:
        return len(self._tickets)

    def add(self, ticket: EmbeddingTicket) -> None:
        if ticket.job.finished:  # it has no texts
            ticket.close()
            return
        self._tickets.append(ticket)
        self._embedder.add(ticket.job)

    def step(self) -> bool:
        """As `Embedder.step`; then closes the tickets of finished jobs."""
        stepped = self._embedder.step()
        self._close_finished()
        return stepped

    def cancel(self, ticket: EmbeddingTicket) -> None:
        """Ends the job of a ticket; does nothing if it has ended already."""
        self._embedder.cancel([ticket.job], Cancelled("the texts were withdrawn"))
        self._close_finished()

    def fail(self, error: FerrumError) -> None:
        """Ends all open jobs with an error."""
        self._embedder.cancel([ticket.job for ticket in self._tickets], error)
        self._close_finished()

    def _close_finished(self) -> None:
        ended = [ticket for ticket in self._tickets if ticket.job.finished]
        self._tickets = [ticket for ticket in self._tickets if not ticket.job.finished]
        for ticket in ended:
            ticket.close()

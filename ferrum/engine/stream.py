"""A completion on its way: an iterator of chunks that can be left at any time.

Owns: driving the engine while a caller reads, and cancelling when it stops. A class and not a generator, because a
generator that was never started cannot clean up. If a step raises, also by Ctrl-C, the stream cancels its own request,
so that its blocks are free, and raises again; the command line then exits with code 130. Refuses to know: where chunks
go. Specs: ENGINE-21. Next: `ferrum.engine.answers`.
"""

from __future__ import annotations

from collections.abc import Iterator
from types import TracebackType

from ferrum.engine.engine import Engine
from ferrum.engine.request import Request
from ferrum.errors import FerrumError
from ferrum.types import Completion, StreamChunk


class TokenStream(Iterator[StreamChunk]):
    """The chunks of the only generation of a request. Asking for one runs steps of the engine, which compute other
    requests as well."""

    def __init__(self, engine: Engine, request: Request) -> None:
        self._engine = engine
        self._request = request
        self._generation = request.generations[0]
        self._shown = 0

    @property
    def seed(self) -> int:
        """The seed of the request, given or drawn."""
        return self._generation.sequence.seed

    @property
    def error(self) -> FerrumError | None:
        """The error, if the stream ended with "error"."""
        return self._request.error

    def __next__(self) -> StreamChunk:
        chunks = self._generation.chunks
        while self._shown == len(chunks):
            if self._request.finished:
                raise StopIteration
            self._run()
        self._shown += 1
        return chunks[self._shown - 1]

    def completion(self) -> Completion:
        """All chunks so far as a completion, with usage and timings; "cancelled" if the stream was closed early."""
        return self._request.completion()

    def close(self) -> None:
        """Cancels the request if it is not finished, and frees its blocks. Dropping the stream does the same."""
        self._engine.cancel(self._request)

    def __enter__(self) -> TokenStream:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    def __del__(self) -> None:
        self.close()

    def _run(self) -> None:
        try:
            self._engine.step()
        except BaseException:  # also an interrupt: after it no blocks must be held
            self.close()
            raise

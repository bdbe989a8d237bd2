"""A request to the engine, awaited on an event loop.

Owns: handing a prompt to the engine's thread, waiting for its chunks without a blocked thread, and cancelling it when
its client is gone. Refuses to know: what the chunks become.
Specs: API-06, API-07. Next: `ferrum.api.reader`.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Sequence

from ferrum.engine.thread import EngineThread, IndexedChunk, Ticket
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion, Logprobs, Priority


class Answering:
    """One prompt in the engine, for one client."""

    def __init__(self, ticket: Ticket, news: asyncio.Event) -> None:
        self._ticket = ticket
        self._news = news

    @classmethod
    async def begin(
        cls,
        thread: EngineThread,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Answering:
        """Submits the prompt. Slow work, such as compiling a grammar, is done in another thread. Raises the errors of
        `EngineThread.submit`."""
        loop, news = asyncio.get_running_loop(), asyncio.Event()

        def hear() -> None:
            loop.call_soon_threadsafe(news.set)

        def submit() -> Ticket:
            return thread.submit(prompt_ids, params, priority=priority, timeout_s=timeout_s, listener=hear)

        if params.structured_outputs is None:
            return cls(submit(), news)
        making = asyncio.ensure_future(asyncio.to_thread(submit))
        try:
            return cls(await asyncio.shield(making), news)
        except asyncio.CancelledError:  # the thread goes on; its request must be withdrawn
            making.add_done_callback(_withdraw)
            raise

    async def chunks(self) -> AsyncIterator[IndexedChunk]:
        """The chunks of all choices as they come. Raises the error that ended the request, if one did."""
        finished = False
        while not finished:
            self._news.clear()
            finished = self._ticket.finished
            for chunk in self._ticket.take():
                yield chunk
            if not finished:
                await self._news.wait()
        self._ticket.result()

    def completion(self) -> Completion:
        """The whole answer, once it is finished. Raises the error that ended the request."""
        return self._ticket.result()

    def prompt_logprobs(self) -> Sequence[Logprobs | None] | None:
        """The log probabilities of the prompt, which are complete when the first chunk comes; None if they were not
        requested."""
        request = self._ticket.request
        assert request is not None
        return request.prompt_logprobs()

    def cancel(self) -> None:
        self._ticket.cancel()


def _withdraw(made: asyncio.Future[Ticket]) -> None:
    """Cancels a request that its client no longer waits for."""
    if not made.cancelled() and made.exception() is None:
        made.result().cancel()

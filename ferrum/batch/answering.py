"""Answering lines with a service, many at a time.

Owns: which endpoint a line asks, the seed of a line that has none, how many lines are open at a time. Some failures may
be the fault of another line: a full queue, and an engine that fails at a step of all lines. After one of them fewer
lines are open, and only a line that fails alone has failed.
Refuses to know: files. Specs: BATCH-06, BATCH-09, BATCH-20 to BATCH-23. Next: `ferrum.batch.ray_answering`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Iterable
from itertools import islice
from typing import Any

from ferrum.api.errors import as_api_error, invalid
from ferrum.api.protocol.base import Answer, Body, read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.completion import CompletionRequest
from ferrum.api.protocol.embedding import EmbeddingRequest
from ferrum.api.protocol.responses import ResponsesRequest
from ferrum.api.service import Call, Service
from ferrum.batch.request_line import RequestLine, derived_seed
from ferrum.batch.result_line import Result, answered, faulty, refused
from ferrum.errors import BackendError, DeviceError, InternalError, ResourceExhausted

LINES_A_SEQUENCE = 2
"""Lines that are open for each sequence that the engine computes at a time: the next ones are ready when it is."""
PERHAPS_OF_OTHERS = (ResourceExhausted, InternalError, DeviceError, BackendError)
"""Errors that a line may have because of others."""
Keep = Callable[[Result], object]


class Answerer:
    """Asks a service, about at most `at_a_time` lines at a time. To be used on one event loop."""

    def __init__(self, service: Service, seed: int, at_a_time: int) -> None:
        self.at_a_time = at_a_time
        self._service = service
        self._seed = seed
        self._endpoints: dict[str, tuple[type[Body], Callable[[Any, Call], Awaitable[Answer]]]] = {
            "/v1/chat/completions": (ChatRequest, service.chat),
            "/v1/completions": (CompletionRequest, service.complete),
            "/v1/responses": (ResponsesRequest, service.respond),
            "/v1/embeddings": (EmbeddingRequest, service.embed),
        }
        self._room = at_a_time  # lines that may be open now
        self._open = 0  # lines that are
        self._again = 0  # lines that wait to be tried again, before all others
        self._news = asyncio.Event()

    async def result(self, line: RequestLine) -> Result:
        """The result of the line. Raises the error that ended the engine: it is not the answer to a line."""
        if line.fault is not None:
            return faulty(line, line.fault)
        again = False
        while True:
            alone = await self._enter(again)
            try:
                answer = await self._answer(line)
                self._room = min(self._room + 1, self.at_a_time)
                return answered(line, answer)
            except PERHAPS_OF_OTHERS as error:
                if not self._service.health().ready:
                    raise
                if alone:
                    return refused(line, as_api_error(error))
                self._room, again = max(1, self._open - 1), True
            except Exception as error:
                return refused(line, as_api_error(error))
            finally:
                self._open -= 1
                self._news.set()

    async def _enter(self, again: bool) -> bool:
        """Waits until one more line may be open. -> True if it will be the only open line."""
        self._again += again
        while self._open >= self._room or (self._again and not again):
            self._news.clear()
            await self._news.wait()
        self._again -= again
        self._open += 1
        return self._room == 1

    async def _answer(self, line: RequestLine) -> Answer:
        assert line.body is not None and line.custom_id is not None
        body_type, ask = self._endpoints[line.url]
        body = dict(line.body)
        if body.get("stream") is True:
            raise invalid("stream cannot be true in a file of requests", "stream", "unsupported_parameter")
        if "seed" in body_type.model_fields and body.get("seed") is None:
            body["seed"] = derived_seed(line.custom_id, self._seed)
        return await ask(read(body_type, body), Call())


async def answer_all(answerer: Answerer, lines: Iterable[RequestLine], keep: Keep) -> None:
    """Answers all lines, begun in their order; `keep` gets each result when it is there."""
    coming, begun, done = iter(lines), set[asyncio.Task[Result]](), set[asyncio.Task[Result]]()
    try:
        while True:
            for line in islice(coming, answerer.at_a_time - len(begun)):
                begun.add(asyncio.create_task(answerer.result(line)))
            if not begun:
                return
            done, begun = await asyncio.wait(begun, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                keep(task.result())
    finally:
        for task in begun:
            task.cancel()
        await asyncio.gather(*begun, *done, return_exceptions=True)  # their errors were raised above

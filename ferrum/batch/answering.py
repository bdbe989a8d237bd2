"""Lines become answers: what a service says to each, many at a time.

Owns: which endpoint a line asks, the seed of a line that has none, how many lines are open at a time. Some failures may
be the fault of another line: a full queue, and an engine that fails at a step of all lines. After one of them fewer
lines are open, and only a line that fails alone has failed.
Refuses to know: files. Specs: BATCH-06, BATCH-09, BATCH-20 to BATCH-23. Next: `ferrum.cli.batch`.
"""

from __future__ import annotations

import asyncio
from collections import deque
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
Keep = Callable[[Result], None]


class Answerer:
    """Asks a service."""

    def __init__(self, service: Service, seed: int) -> None:
        self._service = service
        self._seed = seed
        self._endpoints: dict[str, tuple[type[Body], Callable[[Any, Call], Awaitable[Answer]]]] = {
            "/v1/chat/completions": (ChatRequest, service.chat),
            "/v1/completions": (CompletionRequest, service.complete),
            "/v1/responses": (ResponsesRequest, service.respond),
            "/v1/embeddings": (EmbeddingRequest, service.embed),
        }

    async def result(self, line: RequestLine) -> Result:
        """What becomes of the line. Raises PERHAPS_OF_OTHERS."""
        if line.fault is not None:
            return faulty(line, line.fault)
        try:
            return answered(line, await self._answer(line))
        except PERHAPS_OF_OTHERS:
            raise
        except Exception as error:
            return refused(line, as_api_error(error))

    def check_alive(self, error: Exception) -> None:
        """Raises the error if it was the end of the engine: no line is to be answered with that."""
        if not self._service.health().ready:
            raise error

    async def _answer(self, line: RequestLine) -> Answer:
        assert line.body is not None and line.custom_id is not None
        wanted, ask = self._endpoints[line.url]
        body = dict(line.body)
        if body.get("stream") is True:
            raise invalid("stream cannot be true in a file of requests", "stream", "unsupported_parameter")
        if "seed" in wanted.model_fields and body.get("seed") is None:
            body["seed"] = derived_seed(line.custom_id, self._seed)
        return await ask(read(wanted, body), Call())


async def answer_all(answerer: Answerer, lines: Iterable[RequestLine], at_a_time: int, keep: Keep) -> None:
    """Answers all lines, begun in their order; `keep` gets each result when it is there."""
    coming, again = iter(lines), deque[RequestLine]()
    open_lines: dict[asyncio.Task[Result], RequestLine] = {}
    room = at_a_time
    try:
        while True:
            while again and len(open_lines) < room:
                _open(open_lines, answerer, again.popleft())
            for line in islice(coming, max(0, room - len(open_lines))):
                _open(open_lines, answerer, line)
            if not open_lines:
                return
            alone = len(open_lines) == 1
            done, _ = await asyncio.wait(open_lines, return_when=asyncio.FIRST_COMPLETED)
            for task in done:
                line = open_lines.pop(task)
                try:
                    keep(task.result())
                    room = min(room + 1, at_a_time)
                except PERHAPS_OF_OTHERS as error:
                    answerer.check_alive(error)
                    if alone:
                        keep(refused(line, as_api_error(error)))
                    else:
                        again.append(line)
                        room = max(1, len(open_lines))
    finally:
        for task in open_lines:
            task.cancel()
        await asyncio.gather(*open_lines, return_exceptions=True)


def _open(open_lines: dict[asyncio.Task[Result], RequestLine], answerer: Answerer, line: RequestLine) -> None:
    open_lines[asyncio.create_task(answerer.result(line))] = line

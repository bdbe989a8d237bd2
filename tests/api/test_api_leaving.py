"""API-03, API-06, API-07, API-20, API-50: requests that are dropped or cancelled before their answer has begun."""

from __future__ import annotations

import asyncio
import gc
import threading
from collections.abc import AsyncIterator
from typing import Any

import pytest

from ferrum.api.merging import merged
from ferrum.api.protocol.base import read
from ferrum.api.protocol.chat import ChatRequest
from ferrum.api.protocol.completion import CompletionRequest
from ferrum.api.protocol.embedding import EmbeddingRequest
from ferrum.api.service import Call, Service
from ferrum.engine.thread import EngineThread, Ticket
from ferrum.errors import ResourceExhausted
from tests.api.asking import asked, chat, hidden

LONG = "word " * 2000


class Slow:
    """Makes submissions to an engine's thread wait until the test sets `let_go`."""

    def __init__(self, patch: pytest.MonkeyPatch) -> None:
        self.entered, self.let_go = threading.Event(), threading.Event()
        self.tickets: list[Ticket] = []
        submit = EngineThread.submit

        def slow(thread: EngineThread, *given: Any, **more: Any) -> Ticket:
            self.entered.set()
            assert self.let_go.wait(30)
            self.tickets.append(submit(thread, *given, **more))
            return self.tickets[-1]

        patch.setattr(EngineThread, "submit", slow)


def free(service: Service) -> int:
    stats = service.stats()
    return stats.device.free + stats.device.cached


async def until(what: Any) -> None:
    async with asyncio.timeout(30):
        while not what():
            await asyncio.sleep(0.001)


@pytest.mark.clause("API-07")
def test_a_request_that_is_left_while_its_grammar_is_made_leaves_the_engine(monkeypatch: pytest.MonkeyPatch) -> None:
    slow = Slow(monkeypatch)
    body = read(ChatRequest, chat("x", structured_outputs={"regex": "[a-z]{4000}"}))

    async def leave(service: Service) -> None:
        task = asyncio.ensure_future(service.chat(body, Call()))
        await until(slow.entered.is_set)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task
        await asyncio.wait_for(service.idle(), 30)
        slow.let_go.set()
        await until(lambda: slow.tickets and slow.tickets[0].finished)
        assert slow.tickets[0].result().choices[0].finish_reason == "cancelled"

    asked(leave)


@pytest.mark.clause("API-50", "API-06")
@pytest.mark.parametrize("stream", [False, True])
def test_a_request_that_is_cancelled_before_it_says_anything_still_has_its_echo(
    stream: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    slow = Slow(monkeypatch)
    prompt = hidden(LONG)
    form = {"structured_outputs": {"regex": "[a-z]{4000}"}}
    body = read(CompletionRequest, {"prompt": prompt, "echo": True, "max_tokens": 4000, "stream": stream, **form})

    async def cancel(service: Service) -> None:
        asking = service.complete_stream(body, Call("mine")) if stream else service.complete(body, Call("mine"))
        task: Any = asyncio.ensure_future(asking)
        await until(slow.entered.is_set)
        assert service.cancel("mine")
        slow.let_go.set()
        answer = await task
        choices = [part.choices[0] async for part in answer] if stream else answer.choices
        assert "".join(choice.text for choice in choices).startswith(prompt)
        assert choices[-1].finish_reason == "cancelled"

    asked(cancel)


@pytest.mark.clause("API-07")
def test_a_stream_that_is_dropped_unread_leaves_the_engine() -> None:
    async def drop(service: Service) -> None:
        stream = await service.chat_stream(read(ChatRequest, chat(LONG, stream=True)), Call())
        del stream
        gc.collect()
        await asyncio.wait_for(service.idle(), 30)
        await until(lambda: not service.stats().running and not service.stats().waiting)
        assert service.metrics.generation_tokens < len(LONG), "it was not let finish"

    asked(drop)


@pytest.mark.clause("API-07", "API-51")
def test_a_stream_that_ends_with_an_error_is_open_no_more() -> None:
    async def fail(service: Service) -> None:
        stream = await service.chat_stream(read(ChatRequest, chat(LONG, stream=True)), Call(None, 0.05))
        with pytest.raises(Exception, match="within"):
            [part async for part in stream]
        await asyncio.wait_for(service.idle(), 30)

    asked(fail)


@pytest.mark.clause("API-03", "API-07")
def test_vectors_that_take_too_long_are_told_so() -> None:
    async def wait(service: Service) -> None:
        before = free(service)
        with pytest.raises(TimeoutError):
            await service.embed(read(EmbeddingRequest, {"input": [LONG] * 50}), Call(None, 0.001))
        await until(lambda: free(service) == before)

    asked(wait)


@pytest.mark.clause("API-07", "API-20")
def test_of_several_prompts_none_stays_where_one_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    tickets: list[Ticket] = []
    submit = EngineThread.submit

    def crowded(thread: EngineThread, *given: Any, **more: Any) -> Ticket:
        if len(tickets) == 2:
            raise ResourceExhausted("the queue is full")
        tickets.append(submit(thread, *given, **more))
        return tickets[-1]

    monkeypatch.setattr(EngineThread, "submit", crowded)
    body = read(CompletionRequest, {"prompt": [hidden(LONG)] * 3, "max_tokens": 4000})

    async def ask(service: Service) -> None:
        with pytest.raises(ResourceExhausted):
            await service.complete(body, Call())
        await until(lambda: all(ticket.finished for ticket in tickets))
        assert [ticket.result().choices[0].finish_reason for ticket in tickets] == ["cancelled"] * 2

    asked(ask)


@pytest.mark.clause("API-20")
def test_if_one_of_several_streams_fails_the_others_are_not_waited_for() -> None:
    async def endless() -> AsyncIterator[int]:
        yield 1
        await asyncio.Event().wait()

    async def failing() -> AsyncIterator[int]:
        yield 2
        raise ValueError("it failed")

    async def read_all() -> list[tuple[int, int]]:
        found = []
        async with asyncio.timeout(30):
            with pytest.raises(ValueError, match="it failed"):
                async for item in merged([endless(), failing()]):
                    found.append(item)
        return found

    assert asyncio.run(read_all()) == [(0, 1), (1, 2)]

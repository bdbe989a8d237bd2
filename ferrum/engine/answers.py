"""Many prompts through one engine, and their completions in order.

Owns: keeping the queue as full as it may be, running the engine, and cancelling what nobody waits for any more.
Refuses to know: models, text. Specs: ENGINE-12, ENGINE-13, ENGINE-47. Next: `ferrum.engine.llm`.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator, Iterable, Sequence

from ferrum.engine.admission import Prepared
from ferrum.engine.engine import Engine
from ferrum.engine.request import Request
from ferrum.errors import ResourceExhausted
from ferrum.types import Completion, Priority


def complete_each(engine: Engine, calls: Sequence[tuple[Prepared, Priority]]) -> Generator[Completion]:
    """Submits as many as the queue takes, runs the engine, and hands out what is complete, in order."""
    coming = deque(calls)
    requests: deque[Request] = deque()
    try:
        while coming or requests:
            while coming and (request := _submitted(engine, coming[0])):
                requests.append(request)
                coming.popleft()
            while requests and requests[0].finished:
                yield requests.popleft().completion()
            if coming or requests:
                engine.step()
    finally:
        for request in requests:
            engine.cancel(request)


def _submitted(engine: Engine, call: tuple[Prepared, Priority]) -> Request | None:
    """None where the queue is full, which may be other threads' doing."""
    prepared, priority = call
    if not engine.scheduler.room_for(prepared.params.n):
        return None
    try:
        return engine.submit_prepared(prepared, priority=priority)
    except ResourceExhausted:
        return None


def answers(completions: Iterable[Completion]) -> list[Completion]:
    """All of them. Raises the first error where nothing else came."""
    found = list(completions)
    if found and all(each.error is not None and not any(choice.token_ids for choice in each.choices) for each in found):
        raise found[0].error  # type: ignore[misc] # looked at above
    return found

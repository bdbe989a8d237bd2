"""Many prompts through one engine, and their completions in order.

Owns: keeping the queue full, running the engine, and cancelling the rest if the caller stops.
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
    """Submits prompts while the queue has room, runs the engine, and yields completions in the order of prompts."""
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
    """The request; None if the queue is full, perhaps with requests of other threads."""
    prepared, priority = call
    if not engine.scheduler.room_for(prepared.params.n):
        return None
    try:
        return engine.submit_prepared(prepared, priority=priority)
    except ResourceExhausted:
        return None


def answers(completions: Iterable[Completion]) -> list[Completion]:
    """All completions as a list. Raises the first error if every prompt failed without a token."""
    results = list(completions)
    if results and all(
        each.error is not None and not any(choice.token_ids for choice in each.choices) for each in results
    ):
        raise results[0].error  # type: ignore[misc] # looked at above
    return results

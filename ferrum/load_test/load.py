"""Many requests: closed and open loop.

Owns: what is sent when. Closed: so many users, each of whom asks again when the answer is there; a slow server is asked
less. Open: requests come when they come, however long the others take; where the client is late, `planned` still says
when a request should have been sent. Refuses to know: what a request is. The clock is the event loop's.
Source: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006.
Specs: BENCH-20 to BENCH-23. Next: `ferrum.load_test.server`.
"""

from __future__ import annotations

import asyncio
import math
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager, nullcontext
from dataclasses import dataclass
from itertools import count

from ferrum.load_test.arrivals import poisson
from ferrum.load_test.plan import Plan
from ferrum.load_test.timeline import Timeline

Ask = Callable[[int, float], Awaitable[Timeline]]
"""(number, when it was planned) -> what happened."""


@dataclass(frozen=True)
class Run:
    """What happened, in the order in which the requests ended. `unfinished` ones were broken off with the run."""

    started: float
    ended: float
    timelines: tuple[Timeline, ...]
    unfinished: int
    interrupted: bool


class Load:
    """One run of a plan. `changed` is called whenever a request begins or ends."""

    def __init__(self, plan: Plan, ask: Ask, changed: Callable[[Load], None]) -> None:
        self.plan = plan
        self.begun = 0
        self.failed = 0
        self.timelines: list[Timeline] = []
        self._ask = ask
        self._changed = changed

    @property
    def under_way(self) -> int:
        return self.begun - len(self.timelines)

    async def run(self, stop: asyncio.Event) -> Run:
        """Runs until the plan is done or `stop` is set; then nothing is waited for."""
        clock = asyncio.get_running_loop().time
        started = clock()
        work = asyncio.ensure_future(self._open() if self.plan.rate else self._closed())
        stopped = asyncio.ensure_future(stop.wait())
        try:
            await asyncio.wait({work, stopped}, return_when=asyncio.FIRST_COMPLETED)
            interrupted = not work.done()
        finally:
            stopped.cancel()
            work.cancel()  # no effect on finished tasks
            await asyncio.wait({work})
        if not work.cancelled():
            work.result()  # raises the error of the task
        return Run(started, clock(), tuple(self.timelines), self.under_way, interrupted)

    async def _closed(self) -> None:
        clock = asyncio.get_running_loop().time
        end = clock() + self._duration
        numbers = iter(count() if self.plan.requests is None else range(self.plan.requests))

        async def user() -> None:
            while (now := clock()) < end and (number := next(numbers, None)) is not None:
                await self._one(number, now)

        async with asyncio.TaskGroup() as users:
            for _ in range(self.plan.concurrency or 1):
                users.create_task(user())

    async def _open(self) -> None:
        assert self.plan.rate is not None
        clock = asyncio.get_running_loop().time
        started = clock()
        room = asyncio.Semaphore(self.plan.concurrency) if self.plan.concurrency else nullcontext()
        async with asyncio.TaskGroup() as requests:
            for number, at in enumerate(poisson(self.plan.rate, self.plan.seed)):
                if number == self.plan.requests or at >= self._duration:
                    break
                await asyncio.sleep(max(0.0, started + at - clock()))
                requests.create_task(self._when_there_is(room, number, started + at))

    async def _when_there_is(self, room: AbstractAsyncContextManager[None], number: int, planned: float) -> None:
        async with room:
            await self._one(number, planned)

    async def _one(self, number: int, planned: float) -> None:
        self.begun += 1
        self._changed(self)
        timeline = await self._ask(number, planned)
        self.timelines.append(timeline)
        self.failed += timeline.failure is not None
        self._changed(self)

    @property
    def _duration(self) -> float:
        return math.inf if self.plan.duration is None else self.plan.duration

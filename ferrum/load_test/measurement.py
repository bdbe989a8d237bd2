"""One measurement: warm-up, run and result.

Owns: the order: which model, requests that warm the server up and do not count, then the run. Where nothing works, a
measurement ends before it begins, with the server's own words. Refuses to know: who watches, and what is done with the
result.
Specs: BENCH-20, BENCH-30 to BENCH-33. Next: `ferrum.load_test.report`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from contextlib import AbstractContextManager, suppress
from typing import Any

from ferrum.errors import FerrumError, listed
from ferrum.load_test.load import Load, Run
from ferrum.load_test.plan import Plan, Setup
from ferrum.load_test.question import Question
from ferrum.load_test.server import Server, connected
from ferrum.load_test.summary import each, summarise
from ferrum.load_test.timeline import Timeline
from ferrum.load_test.workload import Workload

Show = Callable[[str], None]
"""Called with a line about the progress."""


Stoppable = Callable[[Callable[[], None]], AbstractContextManager[None]]
"""A context manager: within the block, calling its argument ends the run early."""


async def measure(setup: Setup, show: Show, stoppable: Stoppable) -> dict[str, Any]:
    """Measures a server -> the summary, with `each` request, as JSON has it. `show` is told what is going on, and again
    whenever that changes. Raises FerrumError where there is nothing to measure."""
    async with connected(setup.base, setup.api_key, setup.timeout) as server:
        model = setup.model or (await server.models())[0]
        measurement = Measurement(server, setup.question(model), setup.workload, show)
        await measurement.warm_up(setup.warmup, setup.plan.concurrency)
        stop = asyncio.Event()
        with stoppable(stop.set):
            run = await measurement.run(setup.plan, stop)
    return {**setup.facts(model), **summarise(run, setup.goals), "each": each(run)}


class Measurement:
    """Questions for one server."""

    def __init__(self, server: Server, question: Question, workload: Workload, show: Show) -> None:
        self._server = server
        self._question = question
        self._workload = workload
        self._show = show

    async def warm_up(self, requests: int, concurrency: int | None) -> None:
        """Sends requests that do not count. Raises FerrumError where none of them succeeds."""
        if requests:
            plan = Plan(requests, concurrency=concurrency or requests)
            load = Load(plan, lambda number, planned: self._ask(-1 - number, planned), self._watch("warming up: "))
            run = await load.run(asyncio.Event())
            if load.failed == requests:
                raise await self._hopeless(run)

    async def run(self, plan: Plan, stop: asyncio.Event) -> Run:
        """The run that counts, until it ends or `stop` is set."""
        return await Load(plan, self._ask, self._watch("")).run(stop)

    async def _hopeless(self, run: Run) -> FerrumError:
        """What the first request was told, and which models there are where the server does not know ours."""
        first = next(timeline.failure for timeline in run.timelines if timeline.failure)
        names: list[str] = []
        if first.kind == "status 404":
            with suppress(FerrumError):
                names = await self._server.models()
        error = self._server.error(first)
        return FerrumError(f"{error}; the server has {listed(names)}") if names else error

    async def _ask(self, number: int, planned: float) -> Timeline:
        body = self._question.body(self._workload.prompt(number))
        return await self._server.ask(self._question.path, body, planned, asyncio.get_running_loop().time)

    def _watch(self, before: str) -> Callable[[Load], None]:
        def changed(load: Load) -> None:
            of = f" of {load.plan.requests}" if load.plan.requests else ""
            self._show(f"{before}{len(load.timelines)}{of} requests, {load.under_way} under way, {load.failed} failed")

        return changed

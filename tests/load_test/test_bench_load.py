"""BENCH-20 to BENCH-23: closed and open loop, on a clock that moves only when tasks sleep."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from itertools import islice

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.load_test.arrivals import poisson
from ferrum.load_test.load import Load, Run
from ferrum.load_test.plan import Plan
from ferrum.load_test.timeline import Timeline
from tests.load_test.clock import be_busy, run

COUNT = st.integers(1, 12)
USERS = st.integers(1, 5)
SEED = st.integers(0, 100)


def loaded(plan: Plan, seconds: Callable[[int], float], stop_at: float | None = None) -> tuple[Run, list[int]]:
    """Runs a plan in which request `number` takes `seconds(number)`. Returns the run, and the number of requests that
    were running at each change."""
    under_way: list[int] = []

    async def ask(number: int, planned: float) -> Timeline:
        clock = asyncio.get_running_loop().time
        sent = clock()
        await asyncio.sleep(seconds(number))
        return Timeline(planned, sent, clock(), (clock(),))

    async def work() -> Run:
        stop = asyncio.Event()
        if stop_at is not None:
            asyncio.get_running_loop().call_later(stop_at, stop.set)
        return await Load(plan, ask, lambda load: under_way.append(load.under_way)).run(stop)

    return run(work()), under_way


@pytest.mark.clause("BENCH-20")
@given(requests=COUNT, users=USERS, takes=st.lists(st.integers(1, 9), min_size=12, max_size=12))
def test_a_closed_loop_has_all_its_users_waiting(requests: int, users: int, takes: list[int]) -> None:
    result, under_way = loaded(Plan(requests, concurrency=users), lambda number: float(takes[number]))
    assert max(under_way) == min(requests, users) and under_way[-1] == 0
    assert len(result.timelines) == requests
    free = [0.0] * users  # an oracle: each request goes to the user who has been waiting longest
    for taken in takes[:requests]:
        first = min(range(users), key=free.__getitem__)
        free[first] += taken
    assert result.ended - result.started == pytest.approx(max(free))
    assert all(timeline.planned == timeline.sent for timeline in result.timelines)


@pytest.mark.clause("BENCH-21")
@given(requests=COUNT, seed=SEED, takes=st.integers(0, 1000))
def test_an_open_loop_does_not_wait_for_answers(requests: int, seed: int, takes: int) -> None:
    result, _ = loaded(Plan(requests, concurrency=None, rate=2.0, seed=seed), lambda _number: float(takes))
    times = list(islice(poisson(2.0, seed), requests))
    assert sorted(timeline.planned for timeline in result.timelines) == pytest.approx(times)
    assert sorted(timeline.sent for timeline in result.timelines) == pytest.approx(times)
    assert result.ended == pytest.approx(times[-1] + takes)


@pytest.mark.clause("BENCH-21")
@pytest.mark.clause("BENCH-22")
@given(requests=COUNT, seed=SEED)
def test_a_limit_makes_requests_late_and_keeps_their_plan(requests: int, seed: int) -> None:
    result, under_way = loaded(Plan(requests, concurrency=1, rate=2.0, seed=seed), lambda _number: 3.0)
    assert max(under_way) == 1
    free = 0.0
    for timeline, at in zip(result.timelines, poisson(2.0, seed), strict=False):
        assert timeline.planned == pytest.approx(at)
        assert timeline.sent == pytest.approx(max(at, free))
        free = timeline.sent + 3.0


@pytest.mark.clause("BENCH-21")
@pytest.mark.clause("BENCH-22")
@given(requests=COUNT, seed=SEED, busy=st.floats(0, 3))
def test_a_client_that_is_busy_is_late_and_keeps_the_plan(requests: int, seed: int, busy: float) -> None:
    async def ask(_number: int, planned: float) -> Timeline:
        sent = asyncio.get_running_loop().time()
        be_busy(busy)
        return Timeline(planned, sent, sent + busy, (sent + busy,))

    plan = Plan(requests, concurrency=None, rate=2.0, seed=seed)
    result = run(Load(plan, ask, lambda _load: None).run(asyncio.Event()))
    times = list(islice(poisson(2.0, seed), requests))
    assert [timeline.planned for timeline in result.timelines] == pytest.approx(times)
    free = 0.0
    for timeline, at in zip(result.timelines, times, strict=True):
        assert timeline.sent == pytest.approx(max(at, free))
        free = timeline.sent + busy


@pytest.mark.clause("BENCH-23")
@pytest.mark.parametrize(("requests", "sent"), [(None, 8), (5, 5)])
def test_a_duration_ends_what_is_sent_and_waits_for_the_rest(requests: int | None, sent: int) -> None:
    plan = Plan(requests, duration=10.0, concurrency=2)
    result, _ = loaded(plan, lambda _number: 3.0)  # two users, at 0, 3, 6 and 9
    assert (len(result.timelines), result.unfinished, result.interrupted) == (sent, 0, False)
    assert result.ended - result.started == pytest.approx(12.0 if sent == 8 else 9.0)


@pytest.mark.clause("BENCH-23")
@given(seed=SEED)
def test_a_duration_ends_an_open_loop(seed: int) -> None:
    result, _ = loaded(Plan(None, duration=10.0, concurrency=None, rate=1.0, seed=seed), lambda _number: 3.0)
    assert len(result.timelines) == sum(at < 10 for at in islice(poisson(1.0, seed), 100))


@pytest.mark.clause("BENCH-23")
@pytest.mark.clause("BENCH-19")
@pytest.mark.parametrize("rate", [None, 1000.0])
def test_a_stop_breaks_off_and_keeps_what_came(rate: float | None) -> None:
    plan = Plan(9, concurrency=3, rate=rate)
    result, _ = loaded(plan, lambda number: 1.0 if number < 4 else 100.0, stop_at=5.0)
    assert (len(result.timelines), result.unfinished, result.interrupted) == (4, 3, True)
    assert result.ended == pytest.approx(5.0)


def test_what_goes_wrong_in_a_request_is_raised() -> None:
    async def ask(number: int, planned: float) -> Timeline:
        raise ZeroDivisionError

    with pytest.raises(ExceptionGroup, match="unhandled"):
        run(Load(Plan(3), ask, lambda _load: None).run(asyncio.Event()))

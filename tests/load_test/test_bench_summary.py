"""BENCH-12, BENCH-16 to BENCH-19, BENCH-22: the figures of many timelines."""

from __future__ import annotations

import json
import statistics

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.errors import InvalidParameter
from ferrum.load_test.figures import figures
from ferrum.load_test.goals import Goal, read_goal
from ferrum.load_test.load import Run
from ferrum.load_test.summary import each, spread, summarise
from ferrum.load_test.timeline import BROKEN, TIMED_OUT, Failure, Timeline, Usage

SECONDS = st.integers(0, 6400).map(lambda number: number / 64)
USAGE = st.none() | st.builds(Usage, st.integers(0, 50), st.integers(1, 50))


@st.composite
def timelines(draw: st.DrawFn) -> Timeline:
    """Draws the times of one answer, half of the time of one that failed."""
    planned, *times = draw(st.lists(SECONDS, min_size=4, max_size=10).map(sorted))
    if draw(st.booleans()):
        kind = draw(st.sampled_from([BROKEN, TIMED_OUT, "status 429"]))
        return Timeline(planned, times[0], times[-1], tuple(times[1:-1]), draw(USAGE), Failure(kind, f"{planned}"))
    return Timeline(planned, times[0], times[-1], tuple(times[1:-1]), draw(USAGE))


RUNS = st.builds(
    Run, st.just(-1.0), st.integers(101, 200).map(float), st.lists(timelines(), max_size=12).map(tuple),
    st.integers(0, 3), st.booleans(),
)  # fmt: skip


@pytest.mark.clause("BENCH-16")
@given(seconds=st.lists(SECONDS, min_size=2, max_size=60))
def test_percentiles_lie_between_neighbours(seconds: list[float]) -> None:
    cuts = statistics.quantiles([1000 * value for value in seconds], n=100, method="inclusive")
    found = spread(seconds)
    assert found is not None
    assert {name: found[name] for name in ("p50", "p90", "p95", "p99")} == pytest.approx(
        {"p50": cuts[49], "p90": cuts[89], "p95": cuts[94], "p99": cuts[98]}
    )
    assert found["mean"] == pytest.approx(1000 * statistics.fmean(seconds)) and found["max"] == 1000 * max(seconds)
    assert spread([]) is None and spread([2.0]) == dict.fromkeys(("mean", "p50", "p90", "p95", "p99", "max"), 2000.0)


@pytest.mark.clause("BENCH-12")
@pytest.mark.clause("BENCH-17")
@pytest.mark.clause("BENCH-22")
@given(run=RUNS)
def test_failures_enter_nothing_but_their_count(run: Run) -> None:
    clean = tuple(timeline for timeline in run.timelines if timeline.failure is None)
    whole = summarise(run)
    without = summarise(Run(run.started, run.ended, clean, run.unfinished, run.interrupted))
    for name in ("ttft_ms", "tpot_ms", "itl_ms", "e2e_ms", "throughput", "tokens"):
        assert whole[name] == without[name]
    assert sum(kind["count"] for kind in whole["failures"]) == whole["requests"]["failed"]
    for kind in whole["failures"]:
        named = [t.failure for t in run.timelines if t.failure is not None and t.failure.kind == kind["kind"]]
        assert (kind["count"], kind["message"]) == (len(named), named[0].message)
    if run.timelines:
        assert whole["lateness_ms"]["max"] == 1000 * max(t.sent - t.planned for t in run.timelines)


@pytest.mark.clause("BENCH-17")
@pytest.mark.clause("BENCH-14")
@given(run=RUNS)
def test_throughput_times_seconds_is_what_succeeded(run: Run) -> None:
    found = summarise(run)
    answers = [t for t in run.timelines if t.failure is None]
    seconds = run.ended - run.started
    output = sum(t.usage.output if t.usage else len(t.texts) for t in answers)
    assert found["throughput"]["requests_s"] * seconds == pytest.approx(len(answers))
    assert found["throughput"]["output_tok_s"] * seconds == pytest.approx(output)
    assert (found["throughput"]["total_tok_s"] is None) == any(t.usage is None for t in answers)
    if found["throughput"]["total_tok_s"] is not None:
        total = output + sum(t.usage.prompt for t in answers if t.usage)
        assert found["throughput"]["total_tok_s"] * seconds == pytest.approx(total)
    assert found["tokens"]["counted_by_usage"] == sum(t.usage is not None for t in answers)
    assert found["tokens"]["counted_by_chunks"] == sum(t.usage is None for t in answers)


@pytest.mark.clause("BENCH-18")
@given(run=RUNS, limits=st.tuples(*[st.integers(1, 100_000).map(float)] * 3))
def test_goodput_counts_answers_that_meet_every_goal(run: Run, limits: tuple[float, float, float]) -> None:
    goals = [Goal(name, limit) for name, limit in zip(("ttft", "tpot", "e2e"), limits, strict=True)]
    found = summarise(run, goals)["goodput"]
    good = 0
    for timeline in run.timelines:
        if (answer := figures(timeline)) is not None:
            times = (answer.ttft, answer.tpot or 0.0, answer.e2e)
            good += all(1000 * time <= limit for time, limit in zip(times, limits, strict=True))
    assert found["met"] == good
    assert found["requests_s"] * (run.ended - run.started) == pytest.approx(good)
    assert found["share"] == (good / len(run.timelines) if run.timelines else 0)
    assert summarise(run)["goodput"] is None


@pytest.mark.clause("BENCH-18")
def test_goals_are_read_and_refused() -> None:
    assert read_goal("ttft:500") == Goal("ttft", 500.0) and read_goal("e2e:0.5") == Goal("e2e", 0.5)
    exactly = figures(Timeline(0.0, 0.0, 1.0, (0.5,)))
    assert exactly and Goal("ttft", 500.0).met(exactly) and not Goal("ttft", 499.0).met(exactly)
    for text in ("ttft", "ttft:", "ttft:x", "ttft:0", "ttft:-1", "ttft:nan", "ttft:inf", "itl:5", ":5", ""):
        with pytest.raises(InvalidParameter, match="slo"):
            read_goal(text)


@pytest.mark.clause("BENCH-19")
@given(run=RUNS)
def test_every_request_is_in_one_place(run: Run) -> None:
    found, requests = summarise(run), each(run)
    counts = found["requests"]
    assert sum(counts.values()) == len(run.timelines) + run.unfinished
    assert len(requests) == len(run.timelines)
    assert sum("failure" in request for request in requests) == counts["failed"]
    json.dumps({**found, "each": requests}, allow_nan=False)
    for timeline, request in zip(run.timelines, requests, strict=True):
        assert request["planned_s"] == timeline.planned + 1 and request["sent_s"] == timeline.sent + 1
        if timeline.failure is None:
            assert request["ttft_ms"] == 1000 * (timeline.texts[0] - timeline.planned)


@pytest.mark.clause("BENCH-17")
def test_a_run_that_took_no_time_has_no_rate() -> None:
    assert set(summarise(Run(1.0, 1.0, (), 0, True))["throughput"].values()) == {0.0}

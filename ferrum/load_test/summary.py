"""The summary of a run: percentiles, throughput, goodput, failures.

Owns: percentiles, throughput, goodput, failures by kind, how late the client was; and the figures of each request for a
file. Times leave this module in milliseconds under names that end in `_ms`. Refuses to know: how it is shown.
Specs: BENCH-16 to BENCH-19, BENCH-22. Next: `ferrum.load_test.measurement`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np

from ferrum.load_test.figures import Figures, figures
from ferrum.load_test.goals import Goal, all_met
from ferrum.load_test.load import Run
from ferrum.load_test.timeline import Timeline

PERCENTILES = (50, 90, 95, 99)


def summarise(run: Run, goals: Sequence[Goal] = ()) -> dict[str, Any]:
    """The numbers of a run, as JSON has them."""
    answers = [found for timeline in run.timelines if (found := figures(timeline)) is not None]
    seconds = run.ended - run.started
    return {
        "requests": {
            "succeeded": len(answers),
            "failed": len(run.timelines) - len(answers),
            "unfinished": run.unfinished,
        },
        "interrupted": run.interrupted,
        "wall_s": seconds,
        "tokens": tokens(answers),
        "throughput": throughput(answers, seconds),
        "ttft_ms": spread([answer.ttft for answer in answers]),
        "tpot_ms": spread([answer.tpot for answer in answers if answer.tpot is not None]),
        "itl_ms": spread([gap for answer in answers for gap in answer.gaps]),
        "e2e_ms": spread([answer.e2e for answer in answers]),
        "lateness_ms": spread([timeline.sent - timeline.planned for timeline in run.timelines]),
        "goodput": goodput(answers, len(run.timelines), seconds, goals) if goals else None,
        "failures": failures(run.timelines),
    }


def spread(seconds: Sequence[float]) -> dict[str, float] | None:
    """Mean, percentiles (interpolated between neighbours) and maximum in milliseconds; None of nothing."""
    if not seconds:
        return None
    milliseconds = np.asarray(seconds) * 1000
    found = {"mean": float(milliseconds.mean())}
    found |= {f"p{p}": float(np.percentile(milliseconds, p)) for p in PERCENTILES}
    return found | {"max": float(milliseconds.max())}


def tokens(answers: Sequence[Figures]) -> dict[str, Any]:
    """How many there were, and who has counted them. A sum of which a part is unknown is unknown."""
    prompts = [answer.prompt_tokens for answer in answers]
    by_server = sum(answer.counted == "usage" for answer in answers)
    return {
        "prompt": None if None in prompts else sum(filter(None, prompts)),
        "output": sum(answer.output_tokens for answer in answers),
        "counted_by_usage": by_server,
        "counted_by_chunks": len(answers) - by_server,
    }


def throughput(answers: Sequence[Figures], seconds: float) -> dict[str, float | None]:
    """Answers and tokens a second, over the whole run: what failed has used time and counts for nothing."""
    count = tokens(answers)
    return {
        "requests_s": rate(len(answers), seconds),
        "output_tok_s": rate(count["output"], seconds),
        "total_tok_s": None if count["prompt"] is None else rate(count["prompt"] + count["output"], seconds),
    }


def rate(count: int, seconds: float) -> float:
    return count / seconds if seconds > 0 else 0.0


def goodput(answers: Sequence[Figures], asked: int, seconds: float, goals: Sequence[Goal]) -> dict[str, Any]:
    """Answers that meet all goals: a second, and as a share of all requests; one that failed meets none."""
    good = sum(all_met(goals, answer) for answer in answers)
    return {
        "goals_ms": {goal.name: goal.milliseconds for goal in goals},
        "met": good,
        "requests_s": rate(good, seconds),
        "share": good / asked if asked else 0.0,
    }


def failures(timelines: Sequence[Timeline]) -> list[dict[str, Any]]:
    """How many of each kind, most first, each with what was said the first time."""
    kinds: dict[str, dict[str, Any]] = {}
    for timeline in timelines:
        if timeline.failure is not None:
            first = {"kind": timeline.failure.kind, "count": 0, "message": timeline.failure.message}
            kinds.setdefault(timeline.failure.kind, first)["count"] += 1
    return sorted(kinds.values(), key=lambda kind: -kind["count"])


def each(run: Run) -> list[dict[str, Any]]:
    """Every request: its times since the start, its figures, or its failure."""
    return [one(timeline, run.started) for timeline in run.timelines]


def one(timeline: Timeline, started: float) -> dict[str, Any]:
    answer, failure = figures(timeline), timeline.failure
    times = {
        "planned_s": timeline.planned - started,
        "sent_s": timeline.sent - started,
        "ended_s": timeline.ended - started,
    }
    if failure is not None or answer is None:
        return {**times, "failure": failure and {"kind": failure.kind, "message": failure.message}}
    return {
        **times,
        "ttft_ms": answer.ttft * 1000,
        "tpot_ms": None if answer.tpot is None else answer.tpot * 1000,
        "e2e_ms": answer.e2e * 1000,
        "itl_ms": [gap * 1000 for gap in answer.gaps],
        "prompt_tokens": answer.prompt_tokens,
        "output_tokens": answer.output_tokens,
        "counted": answer.counted,
    }

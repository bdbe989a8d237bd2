"""The metrics that servers report, collected by an observer of the engine.

Owns: counters and histograms, with the buckets that dashboards of other engines use. Refuses to know: how metrics are
published. Specs: ENGINE-31. Next: `ferrum.engine.draft_length`.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Sequence

from ferrum.engine.observer import EngineObserver
from ferrum.sched.plan import StepPlan
from ferrum.types import FinishReason

SECONDS = (0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0, 60.0, 120.0)


class Histogram:
    """Counts of numbers by bucket: `counts[i]` for those up to bounds[i], the last for all larger ones."""

    def __init__(self, bounds: Sequence[float] = SECONDS) -> None:
        self.bounds = tuple(bounds)
        self.counts = [0] * (len(self.bounds) + 1)
        self.total = 0.0

    @property
    def count(self) -> int:
        return sum(self.counts)

    def observe(self, value: float) -> None:
        self.counts[bisect_left(self.bounds, value)] += 1
        self.total += value

    def quantile(self, share: float) -> float:
        """The upper bound of the bucket that contains this quantile; 0 without numbers."""
        rank, cumulative = share * self.count, 0
        for bound, count in zip((*self.bounds, float("inf")), self.counts, strict=True):
            cumulative += count
            if cumulative and cumulative >= rank:
                return bound
        return 0.0


class EngineMetrics(EngineObserver):
    """Totals since the start."""

    def __init__(self) -> None:
        self.queue_time = Histogram()
        self.time_to_first_token = Histogram()
        self.inter_token_latency = Histogram()
        self.request_latency = Histogram()
        self.step_time = Histogram()
        self.finished: Counter[FinishReason] = Counter()
        self.prompt_tokens = 0  # of finished generations
        self.generation_tokens = 0
        self.computed_tokens = 0  # without cached prompt tokens; a token that is computed twice counts twice

    def request_started(self, queue_s: float) -> None:
        self.queue_time.observe(queue_s)

    def first_token(self, ttft_s: float) -> None:
        self.generation_tokens += 1
        self.time_to_first_token.observe(ttft_s)

    def next_token(self, latency_s: float) -> None:
        self.generation_tokens += 1
        self.inter_token_latency.observe(latency_s)

    def generation_finished(self, reason: FinishReason, latency_s: float, prompt_tokens: int, tokens: int) -> None:
        self.finished[reason] += 1
        self.prompt_tokens += prompt_tokens
        self.request_latency.observe(latency_s)

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        self.computed_tokens += plan.tokens
        self.step_time.observe(duration_s)

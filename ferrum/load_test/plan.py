"""The plan of a measurement: number, rate and form of its requests.

Owns: how many requests, how they come, and everything else that was asked for. Refuses to know: how it is done.
Specs: BENCH-20 to BENCH-22. Next: `ferrum.load_test.load`.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any

from ferrum.load_test.goals import Goal
from ferrum.load_test.question import Endpoint, Question
from ferrum.load_test.workload import Workload


@dataclass(frozen=True)
class Plan:
    """Ends after `requests`, or when `duration` seconds have passed, whichever is first; what has been sent by then is
    waited for. With a `rate` the loop is open; `concurrency` then limits how many requests are under way, None: nothing
    does."""

    requests: int | None
    duration: float | None = None
    concurrency: int | None = 1
    rate: float | None = None
    seed: int = 0


@dataclass(frozen=True)
class Setup:
    """A measurement of the server at `base`. `timeout`: seconds that a whole answer may take; `model` None: the first
    that the server lists; `usage`: ask the server how many tokens there were."""

    base: str
    endpoint: Endpoint
    max_tokens: int
    workload: Workload
    plan: Plan
    model: str | None = None
    api_key: str | None = field(default=None, repr=False)
    timeout: float = 600.0
    temperature: float | None = None
    ignore_eos: bool = False
    usage: bool = True
    warmup: int = 1
    goals: tuple[Goal, ...] = ()

    def question(self, model: str) -> Question:
        return Question(self.endpoint, model, self.max_tokens, self.temperature, self.ignore_eos, self.usage)

    def facts(self, model: str) -> dict[str, Any]:
        """What was measured, for the head of a result."""
        return {
            "url": self.base,
            "model": model,
            "endpoint": self.endpoint,
            "concurrency": self.plan.concurrency,
            "rate": self.plan.rate,
            "seed": self.plan.seed,
            "prompts": self.workload.facts(),
            "max_tokens": self.max_tokens,
            "temperature": self.temperature,
            "ignore_eos": self.ignore_eos,
            "warmup": self.warmup,
            "timeout_s": self.timeout,
        }

"""Goals for latencies, and which answers meet all of them.

Owns: goals as people write them (`ttft:500`, in milliseconds) and what it means to meet them. Refuses to know: what
follows from meeting them.
Source: goodput as in Zhong et al., "DistServe", arXiv 2401.09670.
Specs: BENCH-18. Next: `ferrum.load_test.plan`.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass

from ferrum.errors import InvalidParameter, quoted
from ferrum.load_test.figures import Figures

NAMES = ("ttft", "tpot", "e2e")


@dataclass(frozen=True)
class Goal:
    """The figure `name` takes at most so many milliseconds."""

    name: str
    milliseconds: float

    def met(self, answer: Figures) -> bool:
        """True if the answer meets the goal, or has no such figure."""
        seconds: float | None = getattr(answer, self.name)
        return seconds is None or seconds * 1000 <= self.milliseconds


def read_goal(text: str) -> Goal:
    """`ttft:500` -> the goal. Raises InvalidParameter."""
    name, _, number = text.partition(":")
    try:
        milliseconds = float(number)
    except ValueError:
        milliseconds = math.nan
    if name not in NAMES or not 0 < milliseconds < math.inf:
        expected = f"one of {', '.join(NAMES)}, a colon and milliseconds (ttft:500)"
        raise InvalidParameter("slo", f"is {quoted(text)}, but must be {expected}")
    return Goal(name, milliseconds)


def all_met(goals: Sequence[Goal], answer: Figures) -> bool:
    return all(goal.met(answer) for goal in goals)

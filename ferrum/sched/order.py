"""The rank of a sequence: the two scheduling policies.

Owns: the rank, a pair of integers that is set when a sequence is submitted or its priority changes. The sequence with
the smallest rank is the most important: it is admitted first, and the one with the largest is preempted first.
- "fifo": (0, number of arrival).
- "priority": (step of arrival - class * AGEING, number of arrival). One class higher is worth AGEING steps of waiting,
  so a sequence that has waited longer than that comes before a new one of the next class. No rank changes with time.
  The step of arrival is the number of steps planned before. The classes are LOW (0), NORMAL (1), HIGH (2) and CRITICAL
  (3). Example: A of class NORMAL arrives before the first step: its rank is (-256, 1). B of class HIGH arrives after
  100 steps and has (100 - 512, 2) = (-412, 2): it comes before A. C of class HIGH arrives after 300 steps and has
  (-212, 3): A comes before it.
Refuses to know: queues and blocks. Specs: SCHED-05, SCHED-20 to SCHED-22. Next: `ferrum.sched.waiting`.
"""

from __future__ import annotations

from collections.abc import Callable

from ferrum.errors import InvalidParameter
from ferrum.sched.sequence import TokenSequence

Rank = tuple[int, int]
Order = Callable[[TokenSequence], Rank]
"""Computes the rank of a sequence. No two sequences have the same, because no two have the same number of arrival."""

AGEING = 256
"""Steps of waiting that count as one class of priority."""


def fifo_rank(sequence: TokenSequence) -> Rank:
    """First in, first out."""
    return (0, sequence.arrival)


def priority_rank(sequence: TokenSequence) -> Rank:
    """By class, and within a class by arrival; every `AGEING` steps of waiting count as one class more."""
    return (sequence.arrival_step - sequence.priority * AGEING, sequence.arrival)


ORDERS: dict[str, Order] = {"fifo": fifo_rank, "priority": priority_rank}


def find_order(name: str) -> Order:
    """The policy of that name. Raises InvalidParameter."""
    if name not in ORDERS:
        raise InvalidParameter("scheduler", f"must be one of {', '.join(ORDERS)}, not {name!r}")
    return ORDERS[name]

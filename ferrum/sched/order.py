"""Who comes first: the two scheduling policies.

Owns: the rank of a sequence, fixed when it is submitted or its priority changes. Everything else that a scheduler
decides follows from ranks: the smallest runs first, the largest gives way first.

Ageing needs no clock: a class is worth `ageing` steps of waiting, so that (step of arrival - class * ageing) never
changes while everybody waits, and a request that has waited that long comes before a newer one of the next class.
Refuses to know: queues and blocks. Specs: SCHED-05, SCHED-20 to SCHED-22. Next: `ferrum.sched.waiting`.
"""

from __future__ import annotations

from collections.abc import Callable

from ferrum.errors import InvalidParameter
from ferrum.sched.sequence import TokenSequence

Rank = tuple[int, int]
Order = Callable[[TokenSequence], Rank]
"""The rank of a sequence: smaller comes first; no two sequences have the same."""

AGEING = 256
"""Steps of waiting that are worth one class of priority."""


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

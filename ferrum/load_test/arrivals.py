"""Arrival times of requests in an open loop.

Owns: the times of a Poisson process: the gaps between arrivals are independent and exponential, as they are where many
users know nothing of each other. Refuses to know: what arrives.
Source: Schroeder, Wierman, Harchol-Balter, "Open Versus Closed: A Cautionary Tale", NSDI 2006.
Specs: BENCH-06. Next: `ferrum.load_test.events`.
"""

from __future__ import annotations

import random
from collections.abc import Iterator


def poisson(rate: float, seed: int) -> Iterator[float]:
    """Seconds after the start at which requests arrive, `rate` of them a second in the mean; without end."""
    generator = random.Random(seed)
    at = 0.0
    while True:
        at += generator.expovariate(rate)
        yield at

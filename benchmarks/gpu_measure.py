"""How `gpu_bench.py` measures on a device: by graphs, so that the host's share of a launch does not count.

A case is captured as a graph of several launches over inputs that take turns, more of them than a cache holds; the
graph is launched until it has taken a while, and the time is divided by all launches. What cannot be captured is
launched as it is, and marked: then the host's share counts. A device without a GPU (`--dry-run`) is measured likewise;
its times mean nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from time import perf_counter
from typing import Any

import numpy as np

from ferrum.backends.cuda.device import Device, NotCapturable

LAUNCHES = 16
"""Of a graph."""
LEAST_SECONDS = 0.03
TRIES = 5


@dataclass(frozen=True)
class Sizes:
    """How much is measured: on a GPU, or where only the program is tried."""

    cache_bytes: int = 256 << 20
    least_seconds: float = LEAST_SECONDS
    tries: int = TRIES


DRY = Sizes(cache_bytes=1, least_seconds=0, tries=1)


@dataclass(frozen=True)
class Time:
    seconds: float  # of one launch
    captured: bool


def copies(one: int, sizes: Sizes) -> int:
    """How many inputs of so many bytes no cache holds together."""
    return max(1, min(64, -(-sizes.cache_bytes // max(one, 1))))


def measured(device: Device, runs: Sequence[Callable[[], Any]], sizes: Sizes) -> Time:
    """The runs in turn. They have no effect that matters."""
    turns = [runs[number % len(runs)] for number in range(max(LAUNCHES, len(runs)) if sizes.tries > 1 else 1)]

    def whole() -> Any:
        return [run() for run in turns][-1]

    whole()
    try:
        graph, _ = device.capture(whole)
        launch, captured = graph.launch, True
    except NotCapturable:
        launch, captured = whole, False
    return Time(best_seconds(device, launch, sizes) / len(turns), captured)


def best_seconds(device: Device, launch: Callable[[], Any], sizes: Sizes) -> float:
    """Of one launch, the host's wait at the end shared out among many."""
    wait = waiter(device)
    launch()
    wait()
    count, best = 1, float("inf")
    for _ in range(sizes.tries):
        while True:
            started = perf_counter()
            for _ in range(count):
                launch()
            wait()
            taken = perf_counter() - started
            if taken >= sizes.least_seconds:
                break
            count *= 2
        best = min(best, taken / count)
    return best


def waiter(device: Device) -> Callable[[], Any]:
    """Returns when all that was launched is done."""
    mark = device.upload(np.zeros(1, np.float32))
    return lambda: device.download(mark)

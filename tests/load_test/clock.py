"""An event loop whose clock moves only when tasks sleep: an hour passes at once, and each run is the same."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Moves the clock in place of waiting, and returns at once."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0

    def select(self, timeout: float | None = None) -> list[Any]:
        assert timeout is not None, "a deadlock: every thread waits for another"
        self.now += max(timeout, 0.0)
        return super().select(0)


class _Loop(asyncio.SelectorEventLoop):
    def __init__(self) -> None:
        self._scripted = _Selector()
        super().__init__(self._scripted)

    def time(self) -> float:
        return self._scripted.now


def be_busy(seconds: float) -> None:
    """Moves the clock as if the program computed for this time without a pause."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop._scripted.now += seconds


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine from the time 0 on."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)

"""An event loop whose clock is moved by nothing but sleeping: an hour passes at once, and always alike."""

from __future__ import annotations

import asyncio
import selectors
from collections.abc import Coroutine
from typing import Any, TypeVar

T = TypeVar("T")


class _Selector(selectors.SelectSelector):
    """Returns at once, with the time moved on."""

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
    """The program computes for so long, and nothing else can happen meanwhile."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, _Loop)
    loop._scripted.now += seconds


def run(work: Coroutine[Any, Any, T]) -> T:
    """Runs a coroutine from the time 0 on."""
    with asyncio.Runner(loop_factory=_Loop) as runner:
        return runner.run(work)

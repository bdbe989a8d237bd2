"""Whose turn it is: a backend works for one thread at a time, and so does every engine on it.

Owns: one lock for each backend, and what was left to the end of a turn. A thread that comes back stands behind those
that wait, so that a long answer does not keep a newcomer out. Refuses to know: what is done in a turn.
Specs: ENGINE-46. Next: `ferrum.engine.observer`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from ferrum.errors import SchedulerError


class Turns:
    """The turns of one backend. Both locks are entered and left by `with`, which no interrupt comes between, and may be
    entered again by who has them: a signal handler may come while its own thread waits."""

    def __init__(self) -> None:
        self._queue = threading.RLock()
        self._lock = threading.RLock()
        self._left: list[Callable[[], bool]] = []

    @property
    def mine(self) -> bool:
        """Is this thread in its turn?"""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def next(self) -> threading.RLock:
        """What to hold during a turn: `with turns.next(): …`, and `settle` after it. Waits for those that came before.
        Raises SchedulerError for a thread that is in its turn already: an observer or a signal handler that calls what
        it is called by."""
        if self.mine:
            raise SchedulerError("the engine was called from within one of its own steps: call it after the step")
        with self._queue, self._lock:  # whoever had the last turn has to wait here for those that wait
            pass
        return self._lock

    def leave(self, task: Callable[[], bool]) -> None:
        """Has this done now if nobody has the turn, else at the end of the turn; never waits. `task` returns whether it
        was done: some are for one thread alone."""
        self._left.append(task)
        self.settle()

    def settle(self) -> None:
        """Does what was left. Whoever finds the turn taken leaves it to whoever has it."""
        refused: list[Callable[[], bool]] = []
        while len(self._left) > len(refused) and not self.mine:
            try:
                if not self._lock.acquire(blocking=False):
                    return
                refused = []
                while self._left:
                    task = self._left.pop()
                    if not task():
                        refused.append(task)
                self._left.extend(refused)
            finally:
                if self.mine:  # whatever came between
                    self._lock.release()


_known: WeakKeyDictionary[object, Turns] = WeakKeyDictionary()
_known_lock = threading.Lock()


def turns_of(backend: object) -> Turns:
    """The turns of a backend: the same for all engines that share it."""
    with _known_lock:
        return _known.setdefault(backend, Turns())

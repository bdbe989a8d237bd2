"""Turns: a backend works for one thread at a time, and so does every engine on it.

Owns: one lock for each backend, the tasks that are done at the end of a turn, and which thread may use an engine.
A thread that asks for another turn waits behind those that wait already, so that a long answer does not keep other
threads out. Refuses to know: what is done in a turn.
Specs: ENGINE-46. Next: `ferrum.engine.observer`.
"""

from __future__ import annotations

import threading
from collections.abc import Callable
from weakref import WeakKeyDictionary

from ferrum.errors import SchedulerError

Task = Callable[[], bool]


class Turns:
    """The turns of one backend. Both locks are entered and left by `with`, which an interrupt cannot split, and are
    reentrant: a signal handler may run while its own thread waits for a turn."""

    def __init__(self) -> None:
        self._queue = threading.RLock()
        self._lock = threading.RLock()
        self._tasks: list[Task] = []

    @property
    def mine(self) -> bool:
        """True if the calling thread has the turn."""
        return self._lock._is_owned()  # type: ignore[attr-defined,no-any-return]

    def next(self) -> threading.RLock:
        """The lock to hold during a turn: `with turns.next(): …`, and `settle` after it. Waits for the threads that
        asked before. Raises SchedulerError for a thread that has the turn already: an observer or a signal handler that
        calls the engine which called it."""
        if self.mine:
            raise SchedulerError("the engine was called from within one of its own steps: call it after the step")
        with self._queue, self._lock:  # the thread that had the last turn waits here for those that asked before it
            pass
        return self._lock

    def leave(self, task: Task) -> None:
        """Runs the task now if no thread has the turn, else at the end of the turn; never waits. A task that returns
        False is kept and tried again: it is for another thread."""
        self._tasks.append(task)
        self.settle()

    def settle(self) -> None:
        """Runs the tasks that were left. If another thread has the turn, that thread runs them."""
        refused: list[Task] = []
        while len(self._tasks) > len(refused) and not self.mine:
            try:
                if not self._lock.acquire(blocking=False):
                    return
                refused = []
                while self._tasks:
                    task = self._tasks.pop()
                    if not task():
                        refused.append(task)
                self._tasks.extend(refused)
            finally:
                if self.mine:  # also after an interrupt
                    self._lock.release()


class UsedInTurns:
    """An object that threads use in turns, or that one thread has claimed."""

    def __init__(self, backend: object) -> None:
        """`backend`: all objects on the same backend share its turns."""
        self.turns = turns_of(backend)
        self._owner: int | None = None

    @property
    def is_allowed(self) -> bool:
        """True unless another thread has claimed the object."""
        return self._owner in (None, threading.get_ident())

    def check_owner(self) -> None:
        """Raises SchedulerError if another thread has claimed the object."""
        if not self.is_allowed:
            raise SchedulerError("this engine belongs to an EngineThread: ask that one")

    def turn(self) -> threading.RLock:
        """The lock to hold, by `with engine.turn(): …`, while no other thread may use this object or another one on its
        backend; call `settle` after it. Raises SchedulerError if another thread has claimed the object, and for a call
        from within a turn of the same thread."""
        self.check_owner()
        return self.turns.next()

    def settle(self) -> None:
        """Runs what was left to the end of a turn, such as the end of cancelled requests."""
        self.turns.settle()

    def claim(self) -> None:
        """Until `release`, only the calling thread may use the object; other threads may cancel requests and ask for
        statistics. Raises SchedulerError if another thread has claimed it."""
        with self.turn():
            self.check_owner()
            self._owner = threading.get_ident()
        self.settle()

    def release(self) -> None:
        """From now on any thread may use the object, one at a time."""
        self._owner = None


_turns: WeakKeyDictionary[object, Turns] = WeakKeyDictionary()
_turns_lock = threading.Lock()


def turns_of(backend: object) -> Turns:
    """The turns of a backend: the same for all engines that share it."""
    with _turns_lock:
        return _turns.setdefault(backend, Turns())

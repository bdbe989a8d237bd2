"""An engine in a thread of its own, for programs in which many threads have questions.

Owns: the one thread that calls the engine, the queue of commands to it, the queue of chunks to each listener.
Refuses to know: HTTP, and what is generated. Specs: ENGINE-33 to ENGINE-35. Next: `ferrum.engine.prompts`.
"""

from __future__ import annotations

import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from ferrum.engine.engine import Engine
from ferrum.engine.request import Request
from ferrum.errors import Cancelled, FerrumError, InternalError, ResourceExhausted
from ferrum.types import Completion, Priority, SamplingParams, StreamChunk

Command = Callable[[], None]
IndexedChunk = tuple[int, StreamChunk]
"""The number of the choice, and what it says."""


class Ticket:
    """A request that was handed to the thread. To be used by one listener."""

    def __init__(self, withdraw: Callable[[Ticket], None]) -> None:
        self.request: Request | None = None
        """Set once the engine has it; read it when `finished`."""
        self._withdraw = withdraw
        self._chunks: queue.SimpleQueue[IndexedChunk | None] = queue.SimpleQueue()  # None: there are no more
        self._shown: list[int] = []  # chunks of each choice that were delivered
        self._done = threading.Event()
        self._error: FerrumError | None = None

    # ---- for the listener
    @property
    def finished(self) -> bool:
        return self._done.is_set()

    def __iter__(self) -> Iterator[IndexedChunk]:
        """The chunks of all choices as they come. Raises the error that ended the request, if one did."""
        while (item := self._chunks.get()) is not None:
            yield item
        self._chunks.put(None)  # for whoever asks again
        if self._error is not None:
            raise self._error

    def result(self, timeout_s: float | None = None) -> Completion:
        """Waits for the answer. Raises TimeoutError if it takes longer, or the error that ended the request."""
        if not self._done.wait(timeout_s):
            raise TimeoutError("the answer is not complete yet")
        if self._error is not None:
            raise self._error
        assert self.request is not None
        return self.request.completion()

    def cancel(self) -> None:
        """Ends the request and frees its blocks within a step. May be called at any time, and again."""
        self._withdraw(self)

    # ---- for the thread
    def deliver(self) -> bool:
        """Passes on what is new -> is the request finished?"""
        if self.request is None:
            return False
        generations = self.request.generations
        self._shown = self._shown or [0] * len(generations)
        finished = self.request.finished  # read first: all chunks are there by then
        for index, generation in enumerate(generations):
            for chunk in generation.chunks[self._shown[index] :]:
                self._chunks.put((index, chunk))
            self._shown[index] = len(generation.chunks)
        if finished:
            self.close(self.request.error)
        return finished

    def close(self, error: FerrumError | None) -> None:
        """Nothing more will come."""
        self._error = error
        self._done.set()
        self._chunks.put(None)


class EngineThread:
    """Runs an engine as long as it is open. Nobody else may use the engine meanwhile."""

    def __init__(self, engine: Engine) -> None:
        self.engine = engine
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._tickets: list[Ticket] = []  # touched by the thread only
        self._lock = threading.Lock()  # over `_coming` and `_closed`
        self._coming = 0  # sequences handed over that the engine does not have yet
        self._closed = False
        self._thread = threading.Thread(target=self._run, name="ferrum-engine", daemon=True)
        self._thread.start()

    # ---- for any thread
    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Ticket:
        """Hands a prompt to the engine. Raises at once what `Engine.submit` raises, and Cancelled after `close`."""
        self.engine.check(prompt_ids, params)
        ticket = Ticket(lambda own: self._commands.put(lambda: self._cancel(own)))

        def command() -> None:
            with self._lock:
                self._coming -= params.n
            try:
                ticket.request = self.engine.submit(prompt_ids, params, priority=priority, timeout_s=timeout_s)
            except FerrumError as error:
                ticket.close(error)
            else:
                self._tickets.append(ticket)

        with self._lock:
            if self._closed:
                raise Cancelled("the engine is closed")
            if not self.engine.scheduler.room_for(self._coming + params.n):
                raise ResourceExhausted("the queue is full: try again later")
            self._coming += params.n
            self._commands.put(command)
        return ticket

    def call(self, command: Command) -> None:
        """Has `command()` called between two steps, in the engine's thread; returns at once."""
        self._commands.put(command)

    def close(self) -> None:
        """Ends open requests as cancelled, and the thread. May be called again."""
        with self._lock:
            self._closed = True
        self._commands.put(lambda: None)
        if threading.current_thread() is not self._thread:
            self._thread.join()

    def __enter__(self) -> EngineThread:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, traceback: TracebackType | None
    ) -> None:
        self.close()

    # ---- the thread
    def _run(self) -> None:
        try:
            while not self._closed:
                self._obey()
                if self.engine.has_work:
                    self._step()
                self._tickets = [ticket for ticket in self._tickets if not ticket.deliver()]
        finally:  # also if a command failed: nobody must wait for an answer that never comes
            with self._lock:
                self._closed = True
            self._obey()
            for ticket in self._tickets:
                self._cancel(ticket)
                ticket.deliver()

    def _obey(self) -> None:
        """Carries out what has been asked for; waits for something if there is nothing else to do."""
        if not self.engine.has_work and not self._closed:
            self._commands.get()()
        while True:
            try:
                command = self._commands.get_nowait()
            except queue.Empty:
                return
            command()

    def _step(self) -> None:
        try:
            self.engine.step()
        except FerrumError as error:
            self.engine.fail(error)
        except Exception as error:  # a defect, but not a reason to leave everybody waiting
            self.engine.fail(InternalError(f"a step failed: {type(error).__name__}: {error}"))

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.request is not None:
            self.engine.cancel(ticket.request)

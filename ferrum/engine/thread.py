"""An engine in a thread of its own, for programs in which many threads have questions.

Owns: the one thread that calls the engine, the queue of commands to it, the queue of chunks to each listener.
Refuses to know: HTTP, and what is generated. Specs: ENGINE-33 to ENGINE-35, ENGINE-74. Next: `ferrum.engine.prompts`.
"""

from __future__ import annotations

import logging
import queue
import threading
from collections.abc import Callable, Iterator, Sequence
from types import TracebackType

from ferrum.engine.admission import check_urgency
from ferrum.engine.embedder import Embedder
from ferrum.engine.embedding import EmbeddingJob
from ferrum.engine.embedding_ticket import EmbeddingTicket, OpenEmbeddings
from ferrum.engine.engine import Engine
from ferrum.engine.observer import Listener, tell
from ferrum.engine.request import Request
from ferrum.errors import Cancelled, FerrumError, InternalError, ResourceExhausted, memory_told
from ferrum.sampling_params import SamplingParams
from ferrum.types import Completion, Priority, StreamChunk

logger = logging.getLogger(__name__)

Command = Callable[[], None]
IndexedChunk = tuple[int, StreamChunk]
"""The number of the choice, and what it says."""


class Ticket:
    """A request that was handed to the thread. To be used by one listener."""

    def __init__(self, thread: EngineThread, listener: Listener | None = None) -> None:
        self.request: Request | None = None
        """Set once the engine has it; read it when `finished`."""
        self._thread = thread
        self._listener = listener
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

    def take(self) -> list[IndexedChunk]:
        """The chunks that have come since the last time, without waiting: for who is told by a listener. What ended
        the request is told by `result`."""
        found = []
        for _ in range(self._chunks.qsize()):
            if (item := self._chunks.get()) is not None:
                found.append(item)
        return found

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
        if not self.finished:
            self._thread.withdraw(self)

    # ---- for the thread
    def deliver(self, request: Request) -> None:
        """Passes on what is new."""
        self._shown = self._shown or [0] * len(request.generations)
        for index, generation in enumerate(request.generations):
            for chunk in generation.chunks[self._shown[index] :]:
                self._chunks.put((index, chunk))
            self._shown[index] = len(generation.chunks)
        tell(self._listener)

    def close(self, error: FerrumError | None) -> None:
        """Nothing more will come."""
        if not self.finished:
            self._error = error
            self._done.set()
            self._chunks.put(None)
            tell(self._listener)


class EngineThread:
    """Runs an engine as long as it is open. Nobody else can use the engine meanwhile."""

    def __init__(self, engine: Engine) -> None:
        """Raises SchedulerError for an engine that another thread has, ResourceExhausted where no thread can be had."""
        self.engine = engine
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._tickets: dict[Request, Ticket] = {}  # open ones; touched by the thread only
        self._embeddings = OpenEmbeddings(Embedder(engine.executor, engine.scheduler))  # likewise
        self._lock = threading.Lock()  # over the next four
        self._coming = self._coming_jobs = 0  # sequences, jobs handed over that the engine does not have yet
        self._closed = False
        self._defect: InternalError | None = None  # why the thread ended, if nobody closed it
        self._claimed = threading.Event()  # or refused
        self._refusal: FerrumError | None = None
        self._thread = threading.Thread(target=self._run, name="ferrum-engine", daemon=True)
        try:
            self._thread.start()
        except RuntimeError as error:
            raise ResourceExhausted(f"no thread can be started for the engine: {error}") from error
        self._claimed.wait()
        if self._refusal is not None:
            raise self._refusal

    # ---- for any thread
    @property
    def defect(self) -> InternalError | None:
        """Why the thread ended, if nobody closed it."""
        return self._defect

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
        listener: Listener | None = None,
    ) -> Ticket:
        """Hands a prompt to the engine; `listener` hears of news. Raises at once what `Engine.submit` raises, and
        Cancelled after `close`."""
        prepared = self.engine.prepare(prompt_ids, params)
        check_urgency(priority, timeout_s)
        ticket = Ticket(self, listener)

        def command() -> None:
            with self._lock:
                self._coming -= params.n
            try:
                ticket.request = self.engine.submit_prepared(prepared, priority=priority, timeout_s=timeout_s)
                self._tickets[ticket.request] = ticket
            except Exception as error:
                ticket.close(_as_ferrum(error))

        with self._lock:
            self._check_open()
            if not self.engine.scheduler.room_for(self._coming + params.n):
                raise ResourceExhausted("the queue is full: try again later")
            self._coming += params.n
            self._commands.put(command)
        return ticket

    def embed(self, job: EmbeddingJob, *, listener: Listener | None = None) -> EmbeddingTicket:
        """Has the vectors of a job computed, a step between two steps of the engine. `listener` hears when it has
        ended. Raises ResourceExhausted where too many jobs wait, and Cancelled after `close`."""
        ticket = EmbeddingTicket(job, listener, lambda own: self._leave(lambda: self._embeddings.cancel(own)))

        def command() -> None:
            with self._lock:
                self._coming_jobs -= 1
            self._embeddings.add(ticket)

        with self._lock:
            self._check_open()
            if len(self._embeddings) + self._coming_jobs >= self.engine.scheduler.limits.max_waiting:
                raise ResourceExhausted("the queue is full: try again later")
            self._coming_jobs += 1
            self._commands.put(command)
        return ticket

    def call(self, command: Command) -> None:
        """Has `command()` called between two steps, in the engine's thread; returns at once. What it raises is logged.
        Raises Cancelled after `close`."""
        with self._lock:
            self._check_open()
            self._commands.put(command)

    def withdraw(self, ticket: Ticket) -> None:
        """Cancels a ticket's request; too late is no error."""
        self._leave(lambda: self._cancel(ticket))

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
            self.engine.claim()
        except FerrumError as error:
            self._refusal = error
            return
        finally:
            self._claimed.set()
        try:
            while not self._closed:
                self._obey()
                self._deliver()
                if self.engine.has_work:
                    self._step()
                    self._deliver()
                if self._embeddings:
                    self._embed()
        except BaseException as error:
            self._defect = InternalError(f"the engine's thread ended: {error!r}")
            logger.exception("the engine's thread ends")
        finally:
            self._end()

    def _obey(self) -> None:
        """Carries out what has been asked for by now; waits for something if there is nothing else to do. What comes
        meanwhile has to wait until after the next step: a flood of commands must not keep answers back."""
        busy = self.engine.has_work or self._embeddings
        commands = [] if busy or self._closed else [self._commands.get()]
        commands += [self._commands.get() for _ in range(self._commands.qsize())]
        for command in commands:
            try:
                command()
            except Exception:
                logger.exception("a command to the engine failed")

    def _step(self) -> None:
        try:
            self.engine.step()
        except Exception as error:  # perhaps a defect, but not a reason to leave everybody waiting
            self.engine.fail(_as_ferrum(error))

    def _embed(self) -> None:
        """A step of the texts that are to become vectors. Where memory is full, they wait for requests to end."""
        try:
            with self.engine.turn(), memory_told():
                if not self._embeddings.step() and not self.engine.has_work:
                    raise ResourceExhausted("there are not enough free blocks for a text")
        except Exception as error:
            self._embeddings.fail(_as_ferrum(error))
        self.engine.settle()

    def _deliver(self) -> None:
        for request in self.engine.take_news():
            ticket = self._tickets.get(request)
            if ticket is not None:
                ticket.deliver(request)
                if request.finished:
                    del self._tickets[request]
                    ticket.close(request.error)

    def _cancel(self, ticket: Ticket) -> None:
        if ticket.request is not None:
            self.engine.cancel(ticket.request)

    def _end(self) -> None:
        """Nobody must wait for an answer that never comes."""
        with self._lock:
            self._closed = True
        self._obey()  # submissions that came before the end, too
        for request, ticket in self._tickets.items():
            try:
                self.engine.cancel(request)
                ticket.deliver(request)
                ticket.close(self._defect)
            except Exception as error:
                ticket.close(_as_ferrum(error))
        self._tickets.clear()
        self._embeddings.fail(self._defect or Cancelled("the engine is closed"))
        self.engine.release()

    def _leave(self, command: Command) -> None:
        """For the thread to do; after the end there is nothing to be done."""
        with self._lock:
            if not self._closed:
                self._commands.put(command)

    def _check_open(self) -> None:
        if self._defect is not None:
            raise self._defect
        if self._closed:
            raise Cancelled("the engine is closed")


def _as_ferrum(error: Exception) -> FerrumError:
    if isinstance(error, FerrumError):
        return error
    return InternalError(f"{type(error).__name__}: {error}")

"""An engine in its own thread, for programs in which many threads make requests.

Owns: the one thread that calls the engine, the queue of commands to it, the queue of chunks of each request. Refuses to
know: HTTP, and what is generated. Specs: ENGINE-33 to ENGINE-35, ENGINE-74. Next: `ferrum.engine.prompts`.
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
"""The index of a choice, and its chunk."""


class Ticket:
    """A request that was handed to the thread. One thread at a time may read it."""

    def __init__(self, thread: EngineThread, listener: Listener | None = None) -> None:
        self.request: Request | None = None
        """Set when the engine has accepted it; to be read when `finished`."""
        self._thread = thread
        self._listener = listener
        self._chunks: queue.SimpleQueue[IndexedChunk | None] = queue.SimpleQueue()  # None: the end
        self._shown: list[int] = []  # numbers of delivered chunks, by choice
        self._done = threading.Event()
        self._error: FerrumError | None = None

    # ---- for the listener
    @property
    def finished(self) -> bool:
        return self._done.is_set()

    def __iter__(self) -> Iterator[IndexedChunk]:
        """The chunks of all choices as they come. Raises the error of a request that failed."""
        while (item := self._chunks.get()) is not None:
            yield item
        self._chunks.put(None)  # for the next iteration
        if self._error is not None:
            raise self._error

    def take(self) -> list[IndexedChunk]:
        """The chunks since the last call, without waiting: for programs that use a listener. It raises no error;
        `result` does."""
        chunks = []
        for _ in range(self._chunks.qsize()):
            if (item := self._chunks.get()) is not None:
                chunks.append(item)
        return chunks

    def result(self, timeout_s: float | None = None) -> Completion:
        """Waits for the answer. Raises TimeoutError after `timeout_s` seconds, or the error of a failed request."""
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
        """Puts the new chunks into the queue."""
        self._shown = self._shown or [0] * len(request.generations)
        for index, generation in enumerate(request.generations):
            for chunk in generation.chunks[self._shown[index] :]:
                self._chunks.put((index, chunk))
            self._shown[index] = len(generation.chunks)
        tell(self._listener)

    def close(self, error: FerrumError | None) -> None:
        """Marks the end of the chunks."""
        if not self.finished:
            self._error = error
            self._done.set()
            self._chunks.put(None)
            tell(self._listener)


class EngineThread:
    """Runs an engine until it is closed. Until then no other thread can use the engine."""

    def __init__(self, engine: Engine) -> None:
        """Raises SchedulerError if another thread owns the engine, ResourceExhausted if no thread can start."""
        self.engine = engine
        self._commands: queue.SimpleQueue[Command] = queue.SimpleQueue()
        self._tickets: dict[Request, Ticket] = {}  # of unfinished requests; used by the engine's thread only
        self._embeddings = OpenEmbeddings(Embedder(engine.executor, engine.scheduler))  # likewise
        self._lock = threading.Lock()  # for the next four
        self._coming = self._coming_jobs = 0  # sequences and jobs in the queue of commands
        self._closed = False
        self._defect: InternalError | None = None  # set if the thread ended by an error
        self._claimed = threading.Event()  # set when the engine was claimed or refused
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
        """The error because of which the thread ended, if it was not closed."""
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
        """Hands a prompt to the engine; `listener` is called when there are new chunks. Raises the errors of
        `Engine.submit` at once, and Cancelled after `close`."""
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
        """Computes the vectors of a job, one step between two steps of the engine. `listener` is called when the job
        has ended. Raises ResourceExhausted if too many jobs wait, and Cancelled after `close`."""
        ticket = EmbeddingTicket(job, listener, lambda ticket: self._leave(lambda: self._embeddings.cancel(ticket)))

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
        """Calls `command()` between two steps, in the engine's thread; returns at once. Its exception is logged. Raises
        Cancelled after `close`."""
        with self._lock:
            self._check_open()
            self._commands.put(command)

    def withdraw(self, ticket: Ticket) -> None:
        """Cancels a ticket's request, if it is not finished."""
        self._leave(lambda: self._cancel(ticket))

    def close(self) -> None:
        """Ends open requests as cancelled, then the thread. May be called again."""
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
                self._run_commands()
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

    def _run_commands(self) -> None:
        """Runs the commands that are in the queue now; waits for one if there is no other work. Later commands wait
        until after the next step, so that many commands cannot delay the answers."""
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
        except Exception as error:  # also for a defect, requests must end and not wait
            self.engine.fail(_as_ferrum(error))

    def _embed(self) -> None:
        """One step of vectors. If memory is full, texts wait until requests end."""
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
        """Ends every request, so that no thread waits for ever."""
        with self._lock:
            self._closed = True
        self._run_commands()  # the queue may have submissions from before the end
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
        """Puts a command into the queue, unless the thread is closed."""
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

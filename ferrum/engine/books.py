"""The requests that an engine has: how they begin, get tokens, and end.

Owns: the bookkeeping between two forward passes: requests, their deadlines, their sequences in the scheduler, their
drafts, and which of them have news. Each change is all or nothing. Refuses to know: models, sampling, threads.
Specs: ENGINE-11, ENGINE-13, ENGINE-24, ENGINE-25. Next: `ferrum.engine.step_logits`.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager

from ferrum.engine.deadlines import Deadlines
from ferrum.engine.observer import EngineObserver, tell
from ferrum.engine.request import Generation, Request
from ferrum.engine.speculation import Speculation
from ferrum.engine.timing import Clock
from ferrum.errors import FerrumError, InternalError, ResourceExhausted, SchedulerError, Timeout
from ferrum.sample.state import SamplingState
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.types import FinishReason


class Books:
    """All requests of one engine that are not finished."""

    def __init__(self, scheduler: Scheduler, speculation: Speculation, observer: EngineObserver, clock: Clock) -> None:
        """`observer` is told of each generation that ends."""
        self.observer = observer
        self._scheduler = scheduler
        self._speculation = speculation
        self._clock = clock
        self._entries: dict[TokenSequence, tuple[Request, Generation]] = {}
        self._deadlines = Deadlines()
        self._news: dict[Request, None] = {}  # a set that keeps its order

    def __len__(self) -> int:
        """The number of generations that are not finished."""
        return len(self._entries)

    def __getitem__(self, sequence: TokenSequence) -> tuple[Request, Generation]:
        return self._entries[sequence]

    @contextmanager
    def all_or_nothing(self) -> Iterator[None]:
        """The changes inside are made in full, or the engine starts over: if an interrupt, a MemoryError or a defect
        breaks them off, every request ends and every block is free. A defect is an InternalError, a SchedulerError, or
        any error that is no FerrumError. The other errors were foreseen, and are raised before any change."""
        try:
            yield
        except BaseException as error:
            if not isinstance(error, FerrumError) or isinstance(error, (InternalError, SchedulerError)):
                self._start_over(error)
            raise

    def _start_over(self, error: BaseException) -> None:
        is_defect = isinstance(error, Exception)
        for request, generation in self._entries.values():
            generation.finish_reason = FinishReason.ERROR if is_defect else FinishReason.CANCELLED
            request.error = InternalError(f"a step broke off: {error!r}") if is_defect else None
            self._news[request] = None
        self._entries.clear()
        self._speculation.clear()
        self._deadlines.clear()
        self._scheduler.reset()

    # ---- begin
    def check_room(self, sequences: int) -> None:
        """Raises ResourceExhausted if the queue has no room for so many sequences."""
        if not self._scheduler.room_for(sequences):
            waiting = self._scheduler.waiting
            raise ResourceExhausted(f"the queue is full: {waiting} sequences wait; try again later")

    def add(self, request: Request, timeout_s: float | None) -> None:
        """Queues all sequences of a request, for which there is room. `timeout_s`: seconds until its deadline."""
        with self.all_or_nothing():
            for generation in request.generations:
                self._scheduler.add(generation.sequence)
                self._speculation.begin(generation.sequence)
                self._entries[generation.sequence] = request, generation
            if timeout_s is not None:
                self._deadlines.add(request.stopwatch.submitted + timeout_s, request)

    # ---- look up
    def states(self, sequences: Sequence[TokenSequence]) -> list[SamplingState]:
        """What the sampler needs of each sequence."""
        return [self._entries[sequence][1].state for sequence in sequences]

    def requests(self) -> list[Request]:
        """The requests that are not finished, each once."""
        return list(dict.fromkeys(request for request, _ in self._entries.values()))

    # ---- news
    def note_news(self, request: Request) -> None:
        """The request has a new chunk, or has ended."""
        self._news[request] = None

    def take_news(self) -> list[Request]:
        """The requests that have had news since the last call."""
        news = list(self._news)
        self._news.clear()
        return news

    # ---- end
    def finish(self, sequence: TokenSequence, reason: FinishReason) -> None:
        """Ends one generation and frees its blocks."""
        request, generation = self._entries[sequence]
        generation.finish_reason = reason  # first: what breaks off below leaves no generation without an end
        self._news[request] = None
        self._scheduler.finish(sequence)
        self._speculation.forget(sequence)
        del self._entries[sequence]
        latency = self._clock() - request.stopwatch.submitted
        generated = sequence.length - sequence.prompt_length
        tell(self.observer.generation_finished, reason, latency, sequence.prompt_length, generated)
        tell(self.observer.sequence_finished, sequence, reason)

    def fail_one(self, sequence: TokenSequence, error: FerrumError) -> None:
        """Ends the one generation that an error is about."""
        self._entries[sequence][0].error = error
        self.finish(sequence, FinishReason.ERROR)

    def end(self, request: Request, reason: FinishReason) -> None:
        """Ends all generations of a request that are not finished."""
        for generation in request.generations:
            if generation.finish_reason is None:
                self.finish(generation.sequence, reason)

    def fail(self, error: FerrumError, requests: Iterable[Request]) -> None:
        """Ends requests with an error; those that are finished stay as they are."""
        for request in requests:
            if not request.finished:
                request.error = error
                self.end(request, FinishReason.ERROR)

    def expire(self, now: float) -> None:
        """Ends the requests whose deadline has passed, with a Timeout."""
        for request, seconds in self._deadlines.passed(now):
            self.fail(Timeout(f"the request was not answered within {seconds:g} s"), [request])

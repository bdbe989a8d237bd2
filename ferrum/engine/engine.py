"""The loop: plan, run, sample, commit, and say what came of it.

Owns: requests from submission to their last token. One call of `step` is one forward pass; between two steps requests
come and go freely. Threads take turns, a call at a time; `ferrum.engine.thread` serves many of them better.
Refuses to know: how a model is loaded, HTTP, terminals.
Specs: ENGINE-04, ENGINE-10 to ENGINE-15, ENGINE-23 to ENGINE-26, ENGINE-30, ENGINE-46, ENGINE-47.
Next: `ferrum.engine.statistics`.
"""

from __future__ import annotations

import logging
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager

from ferrum.engine.admission import ENCODER, Prepared, check_request, check_urgency
from ferrum.engine.deadlines import Deadlines
from ferrum.engine.observer import EngineObserver
from ferrum.engine.output import OutputText, ending_ids
from ferrum.engine.request import Generation, Request
from ferrum.engine.runner import Executor
from ferrum.engine.speculation import Speculation
from ferrum.engine.statistics import EngineStats, collect
from ferrum.engine.step_logits import StepLogits
from ferrum.engine.timing import Clock, Stopwatch
from ferrum.engine.turns import turns_of
from ferrum.errors import (
    FerrumError,
    InternalError,
    ModelError,
    ResourceExhausted,
    SchedulerError,
    Timeout,
    Unsupported,
    memory_told,
)
from ferrum.sample.randomness import choice_seed, fresh_seed
from ferrum.sample.sampler import Outcome, Sampled, sample
from ferrum.sample.state import Grammar, SamplingState
from ferrum.sampling_params import SamplingParams, StructuredOutputs
from ferrum.sched.plan import StepPlan
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import FinishReason, Priority

GrammarMaker = Callable[[StructuredOutputs], Grammar]

logger = logging.getLogger(__name__)

MOST_IDLE_STEPS = 1000
"""Steps in a row without anything to run, although requests wait, after which the engine gives up. None is needed,
unless memory fails to do what it had room for."""


class Engine:
    """Serves any number of requests at a time with one executor."""

    def __init__(
        self,
        executor: Executor,
        scheduler: Scheduler,
        tokenizer: Callable[[], Tokenizer],
        observer: EngineObserver | None = None,
        clock: Clock = time.perf_counter,
        grammars: GrammarMaker | None = None,
        speculation: Speculation | None = None,
    ) -> None:
        """`tokenizer` is called when the first text is needed: many a caller asks for logits only. It names the tokens
        that end an answer. `grammars` makes the grammars of structured outputs; without it those are refused.
        `speculation`: what proposes tokens, to requests that ask for it."""
        self.executor = executor
        self.scheduler = scheduler
        self.observer = EngineObserver() if observer is None else observer
        self._tokenizer = tokenizer
        self._clock = clock
        self._grammars = grammars
        self.speculation = Speculation({}) if speculation is None else speculation
        self._requests: dict[TokenSequence, tuple[Request, Generation]] = {}
        self._deadlines = Deadlines()
        self._steps = self._idle_steps = self._computed_tokens = 0
        self._turns = turns_of(executor.ops)
        self._news: dict[Request, None] = {}  # requests that have something to tell since the last step began
        self._owner: int | None = None

    def turn(self) -> threading.RLock:
        """What to hold, by `with engine.turn(): …`, while no other thread may use this engine or another on its
        backend; `settle` belongs after it. Raises SchedulerError where the engine belongs to another thread, and for a
        call from within a step."""
        self._check_owner()
        return self._turns.next()

    def settle(self) -> None:
        """Ends what was cancelled during a turn."""
        self._turns.settle()

    def claim(self) -> None:
        """Until `release`, only the calling thread may use the engine; others may cancel, and ask for statistics.
        Raises SchedulerError where it belongs to another."""
        with self.turn():
            self._check_owner()
            self._owner = threading.get_ident()
        self.settle()

    def release(self) -> None:
        """Any thread may use the engine, one at a time."""
        self._owner = None

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    # ---- requests
    def prepare(self, prompt_ids: Sequence[int], params: SamplingParams) -> Prepared:
        """A request that can be served, with its grammars made. Raises RequestValidation or InvalidParameter for one
        that never can, Unsupported where the model is an encoder. Takes no turn and changes nothing: whatever is slow
        is done here, in the caller's thread."""
        if self.executor.encodes:
            raise Unsupported(ENCODER)
        token_ids = check_request(prompt_ids, params, self.executor.vocab_size, self.scheduler)
        self.speculation.check(params)
        structure = params.structured_outputs
        return Prepared(
            token_ids, params, [None if structure is None else self._grammar(structure) for _ in range(params.n)]
        )

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Request:
        """Queues a prompt, which has to be answered within `timeout_s` seconds, if that is given. Raises
        RequestValidation if it can never be served, InvalidParameter for a priority or timeout that is none,
        ResourceExhausted if the queue is full, and changes nothing."""
        return self.submit_prepared(self.prepare(prompt_ids, params), priority=priority, timeout_s=timeout_s)

    def submit_prepared(
        self, prepared: Prepared, *, priority: Priority = Priority.NORMAL, timeout_s: float | None = None
    ) -> Request:
        """The same for what `prepare` has made, once."""
        check_urgency(priority, timeout_s)
        with self.turn():
            self._check_owner()
            request = self._queue(prepared, priority, timeout_s)
        self.settle()
        return request

    def _queue(self, prepared: Prepared, priority: Priority, timeout_s: float | None) -> Request:
        prompt_ids, params, grammars = prepared.prompt_ids, prepared.params, prepared.grammars
        if not self.scheduler.room_for(params.n):
            raise ResourceExhausted(f"the queue is full: {self.scheduler.waiting} sequences wait; try again later")
        seed = fresh_seed() if params.seed is None else params.seed
        first = TokenSequence(prompt_ids, params, choice_seed(seed, 0), priority)
        others = [TokenSequence(prompt_ids, params, choice_seed(seed, i), priority, first) for i in range(1, params.n)]
        tokenizer = self._tokenizer()
        with self._unless_broken_off():
            for sequence in (first, *others):
                self.scheduler.add(sequence)
                self.speculation.begin(sequence)
            generations = [
                self._generation(sequence, tokenizer, grammar)
                for sequence, grammar in zip((first, *others), grammars, strict=True)
            ]
            request = Request(generations, Stopwatch(self._clock))
            self._requests.update((generation.sequence, (request, generation)) for generation in generations)
            if timeout_s is not None:
                self._deadlines.add(request.stopwatch.submitted + timeout_s, request)
        return request

    def cancel(self, request: Request) -> None:
        """Ends what is not finished yet and frees its blocks, after the step if one is running. May be called at any
        time, in any thread, and again: by the garbage collector, for one, that drops a stream."""

        def end() -> bool:
            if self._owner not in (None, threading.get_ident()):
                return False  # the thread that has the engine does it after its next step
            with self._unless_broken_off():
                self._end(request, FinishReason.CANCELLED)
            return True

        self._turns.leave(end)

    def fail(self, error: FerrumError, requests: Iterable[Request] | None = None) -> None:
        """Ends requests, all unless some are named, with the reason "error"; each says which. Not during a step."""
        with self.turn(), self._unless_broken_off():
            self._fail(error, [request for request, _ in self._requests.values()] if requests is None else requests)
        self.settle()

    def _fail(self, error: FerrumError, requests: Iterable[Request]) -> None:
        for request in requests:
            if not request.finished:
                request.error = error
                self._end(request, FinishReason.ERROR)

    def update_priority(self, request: Request, priority: Priority) -> None:
        """Another class for what is not finished yet; it keeps the time it has waited."""
        check_urgency(priority, None)
        with self.turn():
            for generation in request.generations:
                if generation.finish_reason is None:
                    self.scheduler.update_priority(generation.sequence, priority)
        self.settle()

    def stats(self) -> EngineStats:
        """Who waits and runs, what memory holds, what has happened so far. For any thread, and for observers."""
        if self._turns.mine:
            return self._collect()
        self.settle()
        with self._turns.next():
            found = self._collect()
        self.settle()
        return found

    def _collect(self) -> EngineStats:
        return collect(self.scheduler, self.speculation, self._steps, self._computed_tokens, self.executor.decode_steps)

    def take_news(self) -> list[Request]:
        """The requests that have more to say or have ended since they were last asked for, in this step or after it."""
        news = list(self._news)
        self._news.clear()
        return news

    def _grammar(self, structure: StructuredOutputs) -> Grammar:
        """A grammar at its beginning. Raises InvalidParameter for one that makes no sense, Unsupported without a maker
        of grammars."""
        if self._grammars is None:
            raise Unsupported("this engine was made without structured outputs")
        return self._grammars(structure)

    # ---- steps
    def step(self) -> None:
        """One forward pass. Every generation that got a token has one more chunk, and perhaps a finish reason. Raises
        ResourceExhausted where memory runs out, and whatever a backend raises."""
        with self.turn(), memory_told():
            self._check_owner()
            self._news.clear()
            with self._unless_broken_off():
                for request, seconds in self._deadlines.passed(self._clock()):
                    self._fail(Timeout(f"the request was not answered within {seconds:g} s"), [request])
            self._step()
        self.settle()

    def _step(self) -> None:
        began = self._clock()
        with self._unless_broken_off():
            plan = self.scheduler.plan()
        if not plan.chunks:
            self._tell(self.observer.step_planned, plan)
            self._idle()
            return
        if drafts := self.speculation.drafts(plan):
            with self._unless_broken_off():
                plan = self.scheduler.add_drafts(plan, drafts)
        self._tell(self.observer.step_planned, plan)
        self._note_started(plan)
        logits = StepLogits(self.executor.ops, plan, self.executor.run(plan))
        self._take(plan, logits, self._score_prompts(logits))
        known = plan.confirmed()
        while known.chunks:
            self._take(known, logits, {})
            known = known.confirmed()
        self.speculation.learn(plan)
        self._idle_steps = 0
        self._steps += 1
        self._computed_tokens += plan.tokens
        self._tell(self.observer.step_finished, plan, self._clock() - began)

    @contextmanager
    def _unless_broken_off(self) -> Iterator[None]:
        """What is done inside is done in full, or the engine starts over: an interrupt, or memory that runs out, in the
        middle of the books leaves nothing that could be trusted. Every request then ends, and every block is free."""
        try:
            yield
        except BaseException as error:
            if isinstance(error, FerrumError) and not isinstance(error, (InternalError, SchedulerError)):
                raise  # foreseen, and raised before anything was changed
            defect = isinstance(error, Exception)
            for request, generation in self._requests.values():
                generation.finish_reason = FinishReason.ERROR if defect else FinishReason.CANCELLED
                request.error = InternalError(f"a step broke off: {error!r}") if defect else None
                self._news[request] = None
            self._requests.clear()
            self.speculation.clear()
            self._deadlines.clear()
            self.scheduler.reset()
            raise

    def _tell(self, hook: Callable[..., None], *facts: object) -> None:
        """Calls a method of the observer; what goes wrong there does not concern the requests."""
        try:
            hook(*facts)
        except Exception:
            logger.exception("an observer failed")

    def _idle(self) -> None:
        """Nothing to run, which is an error in the long run if requests wait for nobody: what is held while none of
        them runs is borrowed by texts that become vectors, and comes back."""
        borrowed = not self.scheduler.running and self.scheduler.manager.device.held
        self._idle_steps = self._idle_steps + 1 if self.has_work and not borrowed else 0
        if self._idle_steps > MOST_IDLE_STEPS:
            raise InternalError("requests wait, but the scheduler has nothing to run")

    def _note_started(self, plan: StepPlan) -> None:
        for chunk in plan.chunks:
            stopwatch = self._requests[chunk.sequence][0].stopwatch
            if stopwatch.started is None:
                self._tell(self.observer.request_started, stopwatch.start())

    def _score_prompts(self, logits: StepLogits) -> dict[TokenSequence, FerrumError]:
        """-> the prompts of which no log probabilities can be told."""
        failures: dict[TokenSequence, FerrumError] = {}
        for chunk, rows in logits.of_prompts():
            scores = self._requests[chunk.sequence][0].prompt_scores
            try:
                if scores is not None:
                    scores.add(chunk.start, rows)
            except ModelError as error:
                failures[chunk.sequence] = error
        return failures

    def _take(self, plan: StepPlan, logits: StepLogits, failures: dict[TokenSequence, FerrumError]) -> None:
        """The next token of every sequence that the plan samples, but for those that fail, each for its own reason."""
        found: dict[TokenSequence, Sampled] = {}
        for sequence, outcome in zip(plan.sampled, self._sample(logits, plan.sampled), strict=True):
            if isinstance(outcome, ModelError):
                failures[sequence] = outcome
            elif sequence not in failures:
                found[sequence] = outcome
        with self._unless_broken_off():
            for sequence, error in failures.items():
                self._fail_generation(sequence, error)
            self.scheduler.commit(plan.without(failures), [sampled.token for sampled in found.values()])
            for sequence, sampled in found.items():
                self._advance(sequence, sampled)

    def _sample(self, logits: StepLogits, sequences: list[TokenSequence]) -> list[Outcome]:
        """One token per sequence, or why there is none for this one."""
        if not sequences:
            return []
        states = [self._requests[sequence][1].state for sequence in sequences]
        rows = logits.next(sequences)
        self._tell(self.observer.tokens_sampling, sequences, rows, states)
        return sample(self.executor.ops, rows, states)

    def _advance(self, sequence: TokenSequence, sampled: Sampled) -> None:
        """A generation has a new token: its text, its end, and what the observer hears."""
        request, generation = self._requests[sequence]
        now = request.stopwatch.tick()
        if generation.last_token is None:
            self._tell(self.observer.first_token, now - request.stopwatch.submitted)
        else:
            self._tell(self.observer.next_token, now - generation.last_token)
        generation.last_token = now
        self._news[request] = None
        try:
            reason = generation.push(sampled)
        except FerrumError as error:  # no text for this token: the others of the step have theirs
            self._fail_generation(sequence, error)
            return
        if reason is not None:
            self._finish(request, generation, reason)

    # ---- ends
    def _end(self, request: Request, reason: FinishReason) -> None:
        for generation in request.generations:
            if generation.finish_reason is None:
                self._finish(request, generation, reason)

    def _fail_generation(self, sequence: TokenSequence, error: FerrumError) -> None:
        """Ends the one that an error is about."""
        request, generation = self._requests[sequence]
        request.error = error
        self._finish(request, generation, FinishReason.ERROR)

    def _finish(self, request: Request, generation: Generation, reason: FinishReason) -> None:
        sequence = generation.sequence
        self.scheduler.finish(sequence)
        del self._requests[sequence]
        self.speculation.forget(sequence)
        generation.finish_reason = reason
        self._news[request] = None
        latency = self._clock() - request.stopwatch.submitted
        generated = sequence.length - sequence.prompt_length
        self._tell(self.observer.generation_finished, reason, latency, sequence.prompt_length, generated)
        self._tell(self.observer.sequence_finished, sequence, reason)

    def _check_owner(self) -> None:
        if self._owner not in (None, threading.get_ident()):
            raise SchedulerError("this engine belongs to an EngineThread: ask that one")

    def _generation(self, sequence: TokenSequence, tokenizer: Tokenizer, grammar: Grammar | None) -> Generation:
        params, prompt = sequence.params, sequence.token_ids[: sequence.prompt_length]
        output = OutputText(tokenizer, params, prompt, sequence.max_length - sequence.prompt_length)
        state = SamplingState(params, sequence.seed, prompt, ending_ids(params, tokenizer.eos_token_ids), grammar)
        return Generation(sequence, state, output, tokenizer.token_text, [])

"""The engine: requests come in, one step after the other computes their next tokens, and each ends with a reason.

Owns: the loop. `step` is one forward pass: plan, run the model, sample, commit. Between two steps requests may come and
go. Threads use an engine in turns, one call at a time; `ferrum.engine.thread` serves many threads better.
Refuses to know: how a model is loaded, HTTP, terminals.
Specs: ENGINE-04, ENGINE-10 to ENGINE-15, ENGINE-23 to ENGINE-26, ENGINE-30, ENGINE-46, ENGINE-47.
Next: `ferrum.engine.statistics`.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Sequence

from ferrum.engine.admission import ENCODER, Prepared, check_request, check_urgency, open_request
from ferrum.engine.books import Books
from ferrum.engine.observer import EngineObserver, tell
from ferrum.engine.request import Request
from ferrum.engine.runner import Executor
from ferrum.engine.speculation import Speculation
from ferrum.engine.statistics import EngineStats, collect
from ferrum.engine.step_logits import StepLogits
from ferrum.engine.timing import Clock
from ferrum.engine.turns import UsedInTurns
from ferrum.errors import FerrumError, InternalError, ModelError, Unsupported, memory_told
from ferrum.sample.sampler import Outcome, Sampled, sample
from ferrum.sample.state import Grammar
from ferrum.sampling_params import SamplingParams, StructuredOutputs
from ferrum.sched.plan import StepPlan
from ferrum.sched.scheduler import Scheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import FinishReason, Priority

GrammarMaker = Callable[[StructuredOutputs], Grammar]

MOST_IDLE_STEPS = 1000
"""Steps in a row that run nothing although requests wait, after which the engine raises an error. A correct scheduler
needs none, unless a move of blocks fails for which there was room."""


class Engine(UsedInTurns):
    """Serves any number of requests at a time with one executor.

    A *turn* is the time in which one thread uses the engine: `with self.turn()`; other threads wait. A task that needs
    a turn but must not wait, such as a cancellation, is given to `turns.leave`, which runs it at once if no thread has
    the turn. Else the task is kept, and `settle`, which each thread calls after its turn, runs it. `turns.mine` is True
    if the calling thread has the turn. The *owner* is a thread that has claimed the engine, such as that of
    `EngineThread`: in all other threads `check_owner` raises SchedulerError, and `is_allowed` is False
    (`ferrum.engine.turns`)."""

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
        """`tokenizer` is called when the first request comes: programs that only ask for logits need none. `grammars`
        makes the grammars of structured outputs; without it these are refused. `speculation` proposes tokens for the
        requests that ask for it."""
        super().__init__(executor.ops)
        self.executor = executor
        self.scheduler = scheduler
        self.speculation = Speculation({}) if speculation is None else speculation
        self._tokenizer = tokenizer
        self._clock = clock
        self._grammars = grammars
        self._books = Books(scheduler, self.speculation, EngineObserver() if observer is None else observer, clock)
        self._steps = self._idle_steps = self._computed_tokens = 0

    @property
    def observer(self) -> EngineObserver:
        """What is told of each step and of each end; it may be replaced between two steps."""
        return self._books.observer

    @observer.setter
    def observer(self, observer: EngineObserver) -> None:
        self._books.observer = observer

    # ---- the loop
    def step(self) -> None:
        """One forward pass. A generation has one more chunk for each token that it got, and perhaps a finish reason;
        with drafts it may get several tokens. Raises ResourceExhausted if the process has no memory left (Python's
        MemoryError), and the errors of the backend. After an error of the forward pass no token counts as computed, and
        the next step would compute the same ones. The caller decides: `LLM` cancels the requests of the call,
        `EngineThread` fails all requests."""
        with self.turn(), memory_told():
            self.check_owner()
            self._books.take_news()
            with self._books.all_or_nothing():
                self._books.expire(self._clock())
            self._step()
        self.settle()

    def _step(self) -> None:
        began = self._clock()
        plan = self._plan()
        tell(self.observer.step_planned, plan)
        if not plan.chunks:
            self._idle()
            return
        self._start_stopwatches(plan)
        logits = StepLogits(self.executor.ops, plan, self.executor.run(plan))
        self._advance(plan, logits, self._score_prompts(logits))
        confirmed = plan.confirmed()
        while confirmed.chunks:  # drafts that were right: the logits behind them give further tokens
            self._advance(confirmed, logits, {})
            confirmed = confirmed.confirmed()
        self.speculation.learn(plan)
        self._idle_steps = 0
        self._steps += 1
        self._computed_tokens += plan.tokens
        tell(self.observer.step_finished, plan, self._clock() - began)

    def _plan(self) -> StepPlan:
        with self._books.all_or_nothing():
            plan = self.scheduler.plan()
        drafts = self.speculation.drafts(plan) if plan.chunks else {}
        if drafts:
            with self._books.all_or_nothing():
                plan = self.scheduler.add_drafts(plan, drafts)
        return plan

    def _advance(self, plan: StepPlan, logits: StepLogits, failures: dict[TokenSequence, FerrumError]) -> None:
        """Gives each sequence that the plan samples its next token. A sequence that fails, here or in `failures`, ends
        alone, with its own error."""
        sampled: dict[TokenSequence, Sampled] = {}
        for sequence, outcome in zip(plan.sampled, self._sample(logits, plan.sampled), strict=True):
            if isinstance(outcome, ModelError):
                failures[sequence] = outcome
            elif sequence not in failures:
                sampled[sequence] = outcome
        with self._books.all_or_nothing():
            for sequence, error in failures.items():
                self._books.fail_one(sequence, error)
            self.scheduler.commit(plan.without(failures), [each.token for each in sampled.values()])
            for sequence, each in sampled.items():
                self._push(sequence, each)

    def _sample(self, logits: StepLogits, sequences: list[TokenSequence]) -> list[Outcome]:
        """For each sequence its next token, or the error because of which it has none."""
        if not sequences:
            return []
        states, rows = self._books.states(sequences), logits.next(sequences)
        tell(self.observer.tokens_sampling, sequences, rows, states)
        return sample(self.executor.ops, rows, states)

    def _push(self, sequence: TokenSequence, sampled: Sampled) -> None:
        """A new token: its time, its text, and the end of the generation if it ends with this token."""
        request, generation = self._books[sequence]
        now = request.stopwatch.tick()
        if generation.last_token is None:
            tell(self.observer.first_token, now - request.stopwatch.submitted)
        else:
            tell(self.observer.next_token, now - generation.last_token)
        generation.last_token = now
        self._books.note_news(request)
        try:
            reason = generation.push(sampled)
        except FerrumError as error:  # the token has no text: only this generation fails
            self._books.fail_one(sequence, error)
            return
        if reason is not None:
            self._books.finish(sequence, reason)

    def _score_prompts(self, logits: StepLogits) -> dict[TokenSequence, FerrumError]:
        """Collects the log probabilities of prompts. -> the sequences whose prompt has logits that are not finite."""
        failures: dict[TokenSequence, FerrumError] = {}
        for chunk, rows in logits.of_prompts():
            scores = self._books[chunk.sequence][0].prompt_scores
            try:
                if scores is not None:
                    scores.add(chunk.start, rows)
            except ModelError as error:
                failures[chunk.sequence] = error
        return failures

    def _idle(self) -> None:
        """Nothing runs in this step. It is no error while inputs of `embed` hold blocks, which they give back."""
        is_lent = not self.scheduler.running and self.scheduler.manager.device.held
        self._idle_steps = self._idle_steps + 1 if self.has_work and not is_lent else 0
        if self._idle_steps > MOST_IDLE_STEPS:
            raise InternalError("requests wait, but the scheduler has nothing to run")

    # ---- requests
    @property
    def has_work(self) -> bool:
        """True if a request is not finished."""
        return bool(self._books)

    def prepare(self, prompt_ids: Sequence[int], params: SamplingParams) -> Prepared:
        """Checks a request and makes its grammars, which may be slow: it runs in the caller's thread, takes no turn and
        changes nothing. Raises RequestValidation or InvalidParameter for a request that can never be served,
        Unsupported if the model is an encoder."""
        if self.executor.encodes:
            raise Unsupported(ENCODER)
        token_ids, max_length = check_request(prompt_ids, params, self.executor.vocab_size, self.scheduler)
        self.speculation.check(params)
        structure = params.structured_outputs
        grammars = [None if structure is None else self._grammar(structure) for _ in range(params.n)]
        return Prepared(token_ids, max_length, params, grammars)

    def _grammar(self, structure: StructuredOutputs) -> Grammar:
        """A grammar at its beginning. Raises InvalidParameter for a structure that makes no sense."""
        if self._grammars is None:
            raise Unsupported("this engine was made without structured outputs")
        return self._grammars(structure)

    def submit(
        self,
        prompt_ids: Sequence[int],
        params: SamplingParams,
        *,
        priority: Priority = Priority.NORMAL,
        timeout_s: float | None = None,
    ) -> Request:
        """Queues a prompt. `timeout_s`: seconds in which it must be answered. Raises RequestValidation if it can never
        be served, InvalidParameter for a wrong parameter, priority or timeout, ResourceExhausted if the queue is full;
        a request that is refused changes nothing."""
        return self.submit_prepared(self.prepare(prompt_ids, params), priority=priority, timeout_s=timeout_s)

    def submit_prepared(
        self, prepared: Prepared, *, priority: Priority = Priority.NORMAL, timeout_s: float | None = None
    ) -> Request:
        """As `submit`, for the result of `prepare`, which can be submitted once."""
        check_urgency(priority, timeout_s)
        with self.turn():
            self.check_owner()
            self._books.check_room(prepared.params.n)
            request = open_request(prepared, priority, self._tokenizer(), self._clock)
            self._books.add(request, timeout_s)
        self.settle()
        return request

    def cancel(self, request: Request) -> None:
        """Ends what is not finished of a request and frees its blocks, after the step if one is running. May be called
        at any time, in any thread, also by the garbage collector, and more than once."""

        def end() -> bool:
            if not self.is_allowed:
                return False  # the thread that owns the engine does it after its next step
            with self._books.all_or_nothing():
                self._books.end(request, FinishReason.CANCELLED)
            return True

        self.turns.leave(end)

    def fail(self, error: FerrumError, requests: Iterable[Request] | None = None) -> None:
        """Ends requests with the reason "error", all of them if none are named. Not to be called during a step."""
        with self.turn(), self._books.all_or_nothing():
            self._books.fail(error, self._books.requests() if requests is None else requests)
        self.settle()

    def update_priority(self, request: Request, priority: Priority) -> None:
        """Gives the unfinished generations of a request another priority; the time they have waited still counts."""
        check_urgency(priority, None)
        with self.turn():
            for generation in request.generations:
                if generation.finish_reason is None:
                    self.scheduler.update_priority(generation.sequence, priority)
        self.settle()

    def take_news(self) -> list[Request]:
        """The requests that got a chunk or ended since the last step began, or since the last call."""
        return self._books.take_news()

    # ---- observation
    def stats(self) -> EngineStats:
        """Counts of waiting and running sequences, of blocks, and of all that was done so far. For any thread, and for
        observers during a step."""
        if self.turns.mine:
            return self._collect()
        self.settle()
        with self.turns.next():
            statistics = self._collect()
        self.settle()
        return statistics

    def _collect(self) -> EngineStats:
        return collect(self.scheduler, self.speculation, self._steps, self._computed_tokens, self.executor.decode_steps)

    def _start_stopwatches(self, plan: StepPlan) -> None:
        for chunk in plan.chunks:
            stopwatch = self._books[chunk.sequence][0].stopwatch
            if stopwatch.started is None:
                tell(self.observer.request_started, stopwatch.start())

"""The loop: plan, run, sample, commit, and say what came of it.

Owns: requests from submission to their last token. One call of `step` is one forward pass; between two steps requests
come and go freely. Not thread-safe. Refuses to know: how a model is loaded, HTTP, terminals.
Specs: ENGINE-04, ENGINE-10 to ENGINE-15. Next: `ferrum.engine.setup`.
"""

from __future__ import annotations

from collections.abc import Callable, Collection, Sequence

from ferrum.engine.output import OutputText
from ferrum.engine.request import Generation, Request
from ferrum.engine.runner import Executor
from ferrum.errors import InternalError, RequestValidation
from ferrum.sample.randomness import choice_seed, fresh_seed
from ferrum.sample.sampler import sample
from ferrum.sched.scheduler import FifoScheduler
from ferrum.sched.sequence import TokenSequence
from ferrum.text.tokenizer import Tokenizer
from ferrum.types import FinishReason, SamplingParams, StreamChunk


class Engine:
    """Serves any number of requests at a time with one executor."""

    def __init__(
        self,
        executor: Executor,
        scheduler: FifoScheduler,
        tokenizer: Callable[[], Tokenizer],
        eos_token_ids: Collection[int],
    ) -> None:
        """`tokenizer` is called when the first text is needed: many a caller asks for logits only."""
        self.executor = executor
        self.scheduler = scheduler
        self._tokenizer = tokenizer
        self._eos_token_ids = frozenset(eos_token_ids)
        self._requests: dict[TokenSequence, tuple[Request, Generation]] = {}
        self._stepping = False
        self._left: list[Request] = []  # cancelled while a step was running

    @property
    def has_work(self) -> bool:
        return bool(self._requests)

    def submit(self, prompt_ids: Sequence[int], params: SamplingParams) -> Request:
        """Queues a prompt. Raises RequestValidation, and changes nothing, if it can never be served."""
        self.check_ids(prompt_ids)
        seed = fresh_seed() if params.seed is None else params.seed
        sequences = [TokenSequence(prompt_ids, params, choice_seed(seed, index)) for index in range(params.n)]
        tokenizer = self._tokenizer()
        for sequence in sequences:  # all alike: if one is refused, the first is
            self.scheduler.add(sequence)
        request = Request([self._generation(sequence, tokenizer) for sequence in sequences])
        self._requests.update((generation.sequence, (request, generation)) for generation in request.generations)
        return request

    def step(self) -> None:
        """One forward pass. Every generation that got a token has one more chunk, and perhaps a finish reason."""
        self._stepping = True
        try:
            self._step()
        finally:
            self._stepping = False
            while self._left:
                self.cancel(self._left.pop())

    def cancel(self, request: Request) -> None:
        """Ends what is not finished yet and frees its blocks. May be called at any time, and again."""
        if self._stepping:  # a stream that the garbage collector drops: its blocks are in use until the step is over
            self._left.append(request)
            return
        for generation in request.generations:
            if generation.finish_reason is None:
                self._finish(generation, FinishReason.CANCELLED)

    def check_ids(self, token_ids: Sequence[int]) -> None:
        """Raises RequestValidation for a token outside the vocabulary, or for no token at all."""
        size = self.executor.vocab_size
        if not token_ids:
            raise RequestValidation("the prompt has no tokens")
        for token in (min(token_ids), max(token_ids)):
            if not 0 <= token < size:
                raise RequestValidation(f"token {token} is not in the vocabulary: ids go from 0 to {size - 1}")

    def _step(self) -> None:
        plan = self.scheduler.plan()
        if not plan.chunks:
            if self.has_work:
                raise InternalError("requests wait, but the scheduler has nothing to run")
            return
        logits = self.executor.run(plan)
        sequences = plan.sampled
        tokens = self._sample(logits, sequences) if sequences else []
        self.scheduler.commit(plan, tokens)
        for sequence, token in zip(sequences, tokens, strict=True):
            self._advance(sequence, token)

    def _generation(self, sequence: TokenSequence, tokenizer: Tokenizer) -> Generation:
        max_tokens = sequence.max_length - sequence.prompt_length
        return Generation(sequence, OutputText(tokenizer, sequence.params, self._eos_token_ids, max_tokens), [])

    def _sample(self, logits: object, sequences: list[TokenSequence]) -> list[int]:
        """One token per sequence; its random number is that of the place it is going to have."""
        params = [sequence.params for sequence in sequences]
        seeds = [sequence.seed for sequence in sequences]
        positions = [sequence.length for sequence in sequences]
        tokens: list[int] = sample(self.executor.ops, logits, params, seeds, positions).tolist()
        return tokens

    def _advance(self, sequence: TokenSequence, token: int) -> None:
        request, generation = self._requests[sequence]
        request.stopwatch.tick()
        text, reason = generation.output.push(token)
        generation.chunks.append(StreamChunk(text, token, reason))
        if reason is not None:
            self._finish(generation, reason)

    def _finish(self, generation: Generation, reason: FinishReason) -> None:
        generation.finish_reason = reason
        del self._requests[generation.sequence]
        self.scheduler.finish(generation.sequence)

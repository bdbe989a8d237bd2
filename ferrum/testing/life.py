"""The life of an engine: everything that can happen to it, drawn from one seed.

Owns: `Life`: settings, arrivals, priorities, cancellations, deadlines, failing allocations, moves and steps, and the
checks after each: plans keep their limits, tables and pools agree, and every request gets the answer that the model
gives to it alone, or the beginning of that answer. Refuses to know: clocks and random numbers other than its own.
Specs: ENGINE-41. Next: `ferrum.testing.one_life`.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from random import Random

from ferrum.engine.draft_length import DEVICE, EXACT
from ferrum.engine.engine import Engine
from ferrum.engine.request import Request
from ferrum.engine.speculation import Speculation
from ferrum.errors import DeviceError, FerrumError, InvalidParameter, RequestValidation, ResourceExhausted
from ferrum.kv.eviction import POLICIES
from ferrum.sampling_params import SamplingParams
from ferrum.sched.order import ORDERS
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.speculation import NGRAM, Speculate
from ferrum.tensor.ops import Tensor
from ferrum.testing.audit import audit
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.flaky import Misfortune
from ferrum.testing.stub import StubRunner
from ferrum.text.byte_tokenizer import EOS
from ferrum.types import FinishReason, Priority

LETTERS = b"abc"


def letters(tokens: Sequence[int]) -> int:
    """The next token: it depends on every token so far, and one in thirteen is the end."""
    mixed = sum((place + 1) * (token + 3) for place, token in enumerate(tokens))
    return EOS if mixed % 13 == 0 else LETTERS[mixed % 3]


def alone(prompt: Sequence[int], params: SamplingParams, context: int) -> tuple[list[int], FinishReason]:
    """The answer of the model to a prompt, without an engine."""
    tokens = list(prompt)
    longest = context if params.max_tokens is None else min(context, len(prompt) + params.max_tokens)
    while True:
        tokens.append(letters(tokens))
        if tokens[-1] == EOS and not params.ignore_eos:
            return tokens[len(prompt) :], FinishReason.STOP
        if len(tokens) == longest:
            return tokens[len(prompt) :], FinishReason.LENGTH


@dataclass
class Client:
    """A request, with what its answer is checked against."""

    prompt: list[int]
    params: SamplingParams
    request: Request
    cancelled: bool = False


class WatchedRunner(StubRunner):
    """Checks every plan before it runs, and fails with the probability `failures`."""

    engine: Engine
    chance: Random
    failures: float = 0.0

    def run(self, plan: StepPlan) -> Tensor:
        self.plans.clear()
        limits, device = self.engine.scheduler.limits, self.engine.scheduler.manager.device
        assert 0 < plan.tokens <= limits.max_num_batched_tokens, "a plan exceeds its budget"
        assert self.engine.scheduler.running <= limits.max_num_seqs, "too many sequences run"
        assert len({id(chunk.sequence) for chunk in plan.chunks}) == len(plan.chunks), "a sequence is planned twice"
        for chunk in plan.chunks:
            sequence, end = chunk.sequence, chunk.start + chunk.count
            drafts = len(chunk.drafts)
            assert not drafts or end == sequence.length < sequence.max_length - drafts, "a draft is out of place"
            assert chunk.count >= 1 and chunk.start == sequence.computed, "a chunk does not begin where it should"
            assert chunk.rows == (end == sequence.length), "logits are computed in the wrong place"
            size = sequence.table.block_size
            for block in sequence.table.blocks[chunk.start // size : -(-(end + drafts) // size)]:
                assert device.references(block) == 1 and device.digest(block) is None, "a shared block is written"
        if self.failures and self.chance.random() < self.failures:
            raise DeviceError("a step failed, as simulated")
        return super().run(plan)


class Guesser:
    """Proposes the next tokens of the model, or wrong ones, at random."""

    cost = 0.0

    def __init__(self, chance: Random) -> None:
        self._chance = chance

    def propose(self, limits: Sequence[tuple[TokenSequence, int]]) -> list[list[int]]:
        return [self._guess(list(sequence.token_ids), limit) for sequence, limit in limits]

    def forget(self, sequence: TokenSequence) -> None:
        """Nothing is kept."""

    def reset(self) -> None:
        """Nor is it doubted."""

    def _guess(self, tokens: list[int], limit: int) -> list[int]:
        start = len(tokens)
        for _ in range(limit):
            tokens.append(letters(tokens) if self._chance.random() < 0.8 else self._chance.choice(LETTERS))
        return tokens[start:]


class Life:
    """One engine, one seed."""

    def __init__(self, seed: int) -> None:
        self.random = chance = Random(seed)
        self.settings = settings = random_settings(chance)
        self.now = 0.0
        default = chance.choice((None, Speculate(NGRAM, chance.randint(1, 9))))
        speculation = Speculation({NGRAM: Guesser(chance)}, default, chance.choice((EXACT, DEVICE)))
        self.engine = stub_engine(settings, letters, clock=lambda: self.now, speculation=speculation)
        executor = self.engine.executor
        assert isinstance(executor, StubRunner)
        self.runner: WatchedRunner = WatchedRunner(executor.store, letters)
        self.runner.engine, self.runner.chance = self.engine, chance
        self.runner.failures = chance.choice((0.0, 0.0, 0.02))
        self.engine.executor = self.runner
        self.context: int = min(settings.max_model_len, settings.blocks * settings.block_size)
        self.busy: float = chance.uniform(0.05, 0.8)
        self.clients: list[Client] = []
        self.answered: int = 0

    def run(self, steps: int) -> None:
        """`steps` steps with random events between them, then as many as it takes to answer all requests."""
        for _ in range(steps):
            self.happen()
            self.step()
        self.settings.misfortune.allocation = self.settings.misfortune.move = self.runner.failures = 0.0
        for _ in range(100 * (1 + len(self.clients))):
            if not self.engine.has_work:
                break
            self.step()
        self.end()

    def happen(self) -> None:
        """What clients do between two steps, at random."""
        chance, engine = self.random, self.engine
        self.now += chance.random()
        if chance.random() < self.busy:
            self.arrive()
        if self.clients and chance.random() < 0.05:
            client = chance.choice(self.clients)
            client.cancelled = True
            engine.cancel(client.request)
        if self.clients and chance.random() < 0.05:
            engine.update_priority(chance.choice(self.clients).request, chance.choice(list(Priority)))
        if chance.random() < 0.01:
            engine.scheduler.manager.gc(chance.randrange(4))

    def arrive(self) -> None:
        """A new request; it must be refused if it is too long or the queue is full, and only then."""
        chance, engine = self.random, self.engine
        length = chance.randint(1, min(20, self.context))
        prompt = list(b"abcabcabcabcabcabcab"[:length]) if chance.random() < 0.6 else chance.choices(LETTERS, k=length)
        params = SamplingParams(
            temperature=0, n=chance.choice((1, 1, 1, 2, 3)), max_tokens=chance.choice((None, 1, 3, 8, 15)),
            ignore_eos=chance.random() < 0.5,
        )  # fmt: skip
        timeout = chance.choice((None, None, None, chance.uniform(0, 30)))
        full = not engine.scheduler.room_for(params.n)
        waiting = engine.scheduler.waiting
        longest = min(self.settings.max_model_len, length + (params.max_tokens or 0))
        never = length + 1 > self.context or longest > self.context or params.n > self.settings.max_waiting
        try:
            request = engine.submit(prompt, params, priority=chance.choice(list(Priority)), timeout_s=timeout)
        except FerrumError as error:
            expected = (RequestValidation, InvalidParameter) if never else ResourceExhausted
            assert (never or full) and isinstance(error, expected), f"refused without a reason: {error}"
            assert engine.scheduler.waiting == waiting, "a refused request is in the queue"
        else:
            assert not never and not full, "accepted what cannot be served"
            self.clients.append(Client(prompt, params, request))

    def step(self) -> None:
        """One step of the engine, and the checks after it."""
        try:
            self.engine.step()
        except DeviceError as error:  # either the same step is tried again, or all requests fail
            if self.random.random() < 0.5:
                self.engine.fail(error)
        generations = [generation for client in self.clients for generation in client.request.generations]
        audit(self.engine.scheduler.manager, [generation.sequence.table for generation in generations])
        for client in [client for client in self.clients if client.request.finished]:
            self.check(client)
            self.clients.remove(client)
            self.answered += 1

    def check(self, client: Client) -> None:
        """A finished request has the answer of the model, or its beginning if it was cancelled or failed."""
        tokens, reason = alone(client.prompt, client.params, self.context)
        for choice in client.request.completion().choices:
            answer = list(choice.token_ids)
            if choice.finish_reason in (FinishReason.STOP, FinishReason.LENGTH):
                assert (answer, choice.finish_reason) == (tokens, reason), f"said {answer}, alone {tokens}"
            else:
                assert answer == tokens[: len(answer)], f"said {answer}, alone {tokens}"
                failed = choice.finish_reason is FinishReason.ERROR
                assert client.request.error is not None if failed else client.cancelled, "ended without a reason"

    def end(self) -> None:
        """All requests are answered, and no block is held."""
        manager = self.engine.scheduler.manager
        assert not self.engine.has_work and not self.clients, "requests are never answered"
        assert self.engine.scheduler.waiting == self.engine.scheduler.running == 0
        manager.gc()
        for tier in manager.usage():
            assert tier.free == tier.total, "blocks are never given back"


def random_settings(chance: Random) -> StubSettings:
    """Small memories and limits, so that blocks, places and budget are often missing."""
    blocks, block_size = chance.randint(3, 14), chance.randint(1, 4)
    unlucky = chance.random() < 0.5
    misfortune = Misfortune(
        chance.choice((0.02, 0.2)) if unlucky else 0.0, chance.choice((0.05, 0.4)) if unlucky else 0.0, chance
    )
    return StubSettings(
        blocks=blocks,
        host_blocks=chance.choice((0, 3, 10, 40)),
        block_size=block_size,
        max_num_seqs=chance.randint(1, 6),
        max_num_batched_tokens=chance.randint(1, 16),
        max_model_len=chance.randint(6, 40),
        max_waiting=chance.randint(2, 12),
        scheduler=chance.choice(tuple(ORDERS)),
        eviction=chance.choice(tuple(POLICIES)),
        prefix_caching=chance.random() < 0.8,
        swap_cost=chance.choice((0.0, 0.5, 2.0, 1e9)),
        misfortune=misfortune,
    )

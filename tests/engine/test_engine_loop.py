"""ENGINE-04 to ENGINE-15: any trace of requests over a stub model; each answer against the one it has alone."""

from __future__ import annotations

import math
from itertools import cycle
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.engine.engine import Engine
from ferrum.engine.request import Request
from ferrum.errors import RequestValidation, ResourceExhausted
from ferrum.kv.eviction import POLICIES
from ferrum.sample.definition import sample_by_definition
from ferrum.sample.randomness import choice_seed
from ferrum.sample.sampler import sample
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams
from ferrum.sched.order import ORDERS
from ferrum.sched.plan import StepPlan
from ferrum.testing.audit import audit
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.stub import NextToken, StubRunner
from ferrum.text.byte_tokenizer import BYTES, EOS
from ferrum.types import Choice, FinishReason, Logprobs, Priority
from tests.engine.proposers import Guess, guesses, speculation

LETTERS = b"abcde"


def letters(tokens) -> int:
    """The next token of the stub model depends on all tokens so far: EOS once in 13 tokens, else one of 5 letters."""
    mixed = sum((place + 1) * (token + 3) for place, token in enumerate(tokens))
    return EOS if mixed % 13 == 0 else LETTERS[mixed % 5]


def engine_of(next_token: NextToken = letters, **settings: Any) -> tuple[Engine, StubRunner]:
    engine = stub_engine(StubSettings(**settings), next_token)
    assert isinstance(engine.executor, StubRunner)
    return engine, engine.executor


def nothing_held(engine: Engine) -> bool:
    return not any(tier.held for tier in engine.scheduler.manager.usage())


def alone(prompt: list[int], params: SamplingParams, seed: int, context: int) -> tuple[list[int], str, FinishReason]:
    """The oracle: tokens, text and finish reason of a request without an engine. A token is one character of ASCII."""
    tokens, text, free = list(prompt), "", 0
    limit = context if params.max_tokens is None else min(context, len(prompt) + params.max_tokens)
    endings = set(params.stop_token_ids) | (set() if params.ignore_eos else {EOS})
    state = SamplingState(params, seed, prompt, endings)
    while True:
        logits = np.zeros((1, BYTES + 1), np.float32)
        logits[0, letters(tokens)] = 1
        (sampled,) = sample(NumpyOps(), logits, [state])
        token = sampled.token
        assert sample_by_definition(NumpyOps(), logits, [state]).tolist() == [token]
        state.accept(token, sampled.surprise)
        tokens.append(token)
        said = chr(token) if token < 128 else ""
        if token not in endings or params.include_stop_str_in_output:
            text += said
        if len(tokens) - len(prompt) <= params.min_tokens:
            free = len(text)  # stop strings before this place are ignored
        found = [(place + len(stop), place) for stop in params.stop if (place := text.find(stop, free)) >= 0]
        if found:
            end, start = min(found)
            text = text[: end if params.include_stop_str_in_output else start]
        if found or token in endings:
            return tokens[len(prompt) :], text, FinishReason.STOP
        if len(tokens) == limit:
            return tokens[len(prompt) :], text, FinishReason.LENGTH


@st.composite
def request_params(draw: st.DrawFn) -> SamplingParams:
    """Draws sampling parameters, often greedy ones, of the kinds that the oracle `alone` follows."""
    max_tokens = draw(st.one_of(st.none(), st.integers(1, 12)))
    return SamplingParams(
        temperature=draw(st.sampled_from([0.0, 0.0, 0.2])),
        top_k=2,
        n=draw(st.integers(1, 3)),
        max_tokens=max_tokens,
        min_tokens=draw(st.sampled_from([0, 0, 1, 3])) if max_tokens is None or max_tokens >= 3 else 0,
        seed=draw(st.integers(-3, 3)),
        stop=tuple(draw(st.lists(st.text("abcde", min_size=1, max_size=3), max_size=2))),
        stop_token_ids=draw(st.sampled_from([(), (LETTERS[0],)])),
        ignore_eos=draw(st.booleans()),
        include_stop_str_in_output=draw(st.booleans()),
        repetition_penalty=draw(st.sampled_from([1.0, 1.0, 1.5])),
        frequency_penalty=draw(st.sampled_from([0.0, 0.0, 0.7])),
        logit_bias=draw(st.sampled_from([{}, {}, {LETTERS[1]: 0.6}])),
        mirostat=draw(st.sampled_from([0, 0, 2])),
        logprobs=draw(st.sampled_from([None, None, 0, 2])),
        prompt_logprobs=draw(st.sampled_from([None, None, 0, 2])),
    )


prompts = st.lists(st.sampled_from(LETTERS), min_size=1, max_size=20)


class EngineMachine(RuleBasedStateMachine):
    """Compares the completion of every request with the oracle `alone`, in an engine with any settings and any
    proposer. Rules: submit (also what must be refused), change a priority, steps, cancel. After each rule the blocks
    of memory are audited; at the end every request finishes and no block is held."""

    @initialize(
        settings=st.builds(
            StubSettings,
            blocks=st.integers(5, 20),
            host_blocks=st.sampled_from([0, 3, 20]),
            block_size=st.integers(1, 5),
            max_num_seqs=st.integers(1, 4),
            max_num_batched_tokens=st.integers(1, 12),
            max_model_len=st.integers(2, 30),
            max_waiting=st.just(6),
            scheduler=st.sampled_from(sorted(ORDERS)),
            eviction=st.sampled_from(sorted(POLICIES)),
            prefix_caching=st.booleans(),
            swap_cost=st.sampled_from([0.0, 1.0, 1e9]),
        ),
        guess=st.one_of(st.none(), st.sampled_from(list(guesses(letters, BYTES).values()))),
    )
    def start(self, settings: StubSettings, guess: Guess | None) -> None:
        self.engine = stub_engine(settings, letters, speculation=None if guess is None else speculation(guess))
        self.context = min(settings.max_model_len, settings.blocks * settings.block_size)
        self.longest = settings.max_model_len
        self.open: list[tuple[list[int], SamplingParams, Request]] = []

    @rule(prompt=prompts, params=request_params(), priority=st.sampled_from(Priority))
    def submit(self, prompt: list[int], params: SamplingParams, priority: Priority) -> None:
        scheduler = self.engine.scheduler
        before = (scheduler.waiting, scheduler.running)
        ends = 0 if params.max_tokens is None else min(len(prompt) + params.max_tokens, self.longest)
        if max(len(prompt) + 1, ends) > self.context:
            with pytest.raises(RequestValidation):
                self.engine.submit(prompt, params, priority=priority)
        elif scheduler.waiting + params.n > 6:
            with pytest.raises(ResourceExhausted) as refusal:
                self.engine.submit(prompt, params, priority=priority)
            assert refusal.value.is_retryable
        else:
            self.open.append((prompt, params, self.engine.submit(prompt, params, priority=priority)))
            return
        assert (scheduler.waiting, scheduler.running) == before

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data(), priority=st.sampled_from(Priority))
    def change_priority(self, data: st.DataObject, priority: Priority) -> None:
        self.engine.update_priority(data.draw(st.sampled_from(self.open))[2], priority)

    @rule(steps=st.integers(1, 5))
    def step(self, steps: int) -> None:
        for _ in range(steps):
            self.engine.step()
        for entry in [entry for entry in self.open if entry[2].finished]:
            self.check(*entry)
            self.open.remove(entry)

    @precondition(lambda self: getattr(self, "open", None))
    @rule(data=st.data())
    def cancel(self, data: st.DataObject) -> None:
        entry = data.draw(st.sampled_from(self.open))
        self.engine.cancel(entry[2])
        self.engine.cancel(entry[2])
        assert entry[2].finished
        self.check(*entry)
        self.open.remove(entry)

    def check(self, prompt: list[int], params: SamplingParams, request: Request) -> None:
        completion = request.completion()
        assert completion.prompt_token_ids == tuple(prompt)
        assert len(completion.choices) == params.n
        assert completion.usage.prompt_tokens == len(prompt)
        assert completion.usage.completion_tokens == sum(len(choice.token_ids) for choice in completion.choices)
        for index, (choice, generation) in enumerate(zip(completion.choices, request.generations, strict=True)):
            assert choice.seed == choice_seed(params.seed, index)
            assert choice.text == "".join(chunk.text for chunk in generation.chunks)
            assert choice.token_ids == tuple(chunk.token_id for chunk in generation.chunks)
            tokens, text, reason = alone(prompt, params, choice.seed, self.context)
            if choice.finish_reason is FinishReason.CANCELLED:
                assert tokens[: len(choice.token_ids)] == list(choice.token_ids)
                assert text.startswith(choice.text)
                assert all(chunk.finish_reason is None for chunk in generation.chunks)
            else:
                assert (list(choice.token_ids), choice.text, choice.finish_reason) == (tokens, text, reason)
                reasons = [chunk.finish_reason for chunk in generation.chunks]
                assert reasons == [None] * (len(reasons) - 1) + [reason]
            self.check_logprobs(prompt, params, choice)
        if params.prompt_logprobs is None:
            assert completion.prompt_logprobs is None
        elif FinishReason.CANCELLED not in {choice.finish_reason for choice in completion.choices}:
            self.check_prompt_logprobs(prompt, completion.prompt_logprobs)

    def check_logprobs(self, prompt: list[int], params: SamplingParams, choice: Choice) -> None:
        """Log probabilities are those of the model's logits (1 for one token, 0 for all others), before any edit."""
        if params.logprobs is None:
            assert choice.logprobs is None
            return
        assert choice.logprobs is not None and len(choice.logprobs) == len(choice.token_ids)
        for place, (token, entry) in enumerate(zip(choice.token_ids, choice.logprobs, strict=True)):
            self.check_entry(token, letters([*prompt, *choice.token_ids[:place]]), entry)
            assert len(entry) - params.logprobs in (0, 1)

    def check_prompt_logprobs(self, prompt: list[int], found: tuple[Logprobs | None, ...] | None) -> None:
        assert found is not None and len(found) == len(prompt) and found[0] is None
        for place, entry in enumerate(found[1:], start=1):
            assert entry is not None
            self.check_entry(prompt[place], letters(prompt[:place]), entry)

    def check_entry(self, token: int, likeliest: int, entry: Logprobs) -> None:
        assert next(iter(entry)) == token
        for each, said in entry.items():
            expected = (each == likeliest) - math.log(math.e + BYTES)
            assert said.logprob == pytest.approx(expected)
            assert said.rank == (1 if each == likeliest else each + 1 + (each < likeliest))

    @invariant()
    def nothing_leaks(self) -> None:
        if not hasattr(self, "open"):
            return
        requests = [request for _, _, request in self.open]
        audit(self.engine.scheduler.manager, [g.sequence.table for r in requests for g in r.generations])
        if not self.open:
            assert nothing_held(self.engine)
            assert not self.engine.has_work

    def teardown(self) -> None:
        if not hasattr(self, "open"):
            return
        for _ in range(200 * (1 + len(self.open))):
            if self.open:
                self.step(1)
        assert not self.open
        self.nothing_leaks()


@pytest.mark.clause("ENGINE-01", "ENGINE-04", "ENGINE-05", "ENGINE-06", "ENGINE-07", "ENGINE-08", "ENGINE-09")
@pytest.mark.clause("ENGINE-10", "ENGINE-11", "ENGINE-12", "ENGINE-42", "ENGINE-43", "ENGINE-44", "DRAFT-01")
class TestEngine(EngineMachine.TestCase):  # type: ignore[misc]
    """The machine, under pytest."""


def finish(engine: Engine, *requests: Request) -> None:
    while not all(request.finished for request in requests):
        engine.step()


def spell(text: bytes, *, then: int = EOS) -> NextToken:
    """A stub model that answers any prompt of one token with `text`, and then repeats the token `then`."""
    return lambda tokens: (*text, *[then] * 100)[len(tokens) - 1]


def said(text: bytes, *, then: int = EOS, **params: object) -> tuple[str, int, FinishReason]:
    """Text, number of tokens and finish reason of a greedy generation by a model that says `text`."""
    engine, _ = engine_of(spell(text, then=then))
    request = engine.submit([0], SamplingParams(**{"temperature": 0, "max_tokens": None, **params}))  # type: ignore[arg-type]
    finish(engine, request)
    completion = request.completion()
    return completion.text, len(completion.token_ids), completion.finish_reason


@pytest.mark.clause("ENGINE-05")
def test_end_of_sequence() -> None:
    assert said(b"hello") == ("hello", 6, FinishReason.STOP)
    assert said(b"hello", include_stop_str_in_output=True) == ("hello", 6, FinishReason.STOP)  # special tokens hidden
    shown = said(b"hello", include_stop_str_in_output=True, skip_special_tokens=False)
    assert shown == ("hello<eos>", 6, FinishReason.STOP)
    assert said(b"hello", ignore_eos=True, max_tokens=8) == ("hello", 8, FinishReason.LENGTH)


@pytest.mark.clause("ENGINE-06")
def test_stop_tokens() -> None:
    stop = {"stop_token_ids": [ord("l")]}
    assert said(b"hello", **stop) == ("he", 3, FinishReason.STOP)
    assert said(b"hello", ignore_eos=True, **stop) == ("he", 3, FinishReason.STOP)
    assert said(b"hello", include_stop_str_in_output=True, **stop) == ("hel", 3, FinishReason.STOP)


@pytest.mark.clause("ENGINE-07", "ENGINE-09")
def test_stop_strings() -> None:
    assert said(b"one END two", stop="END") == ("one ", 7, FinishReason.STOP)
    assert said(b"one END two", stop="END", include_stop_str_in_output=True) == ("one END", 7, FinishReason.STOP)
    assert said(b"one EN", stop="END") == ("one EN", 7, FinishReason.STOP)  # held back, then not needed
    assert said(b"one EN", stop="END", max_tokens=6) == ("one EN", 6, FinishReason.LENGTH)


@pytest.mark.clause("ENGINE-08")
def test_length_and_stop_at_once() -> None:
    assert said(b"hello", max_tokens=5) == ("hello", 5, FinishReason.LENGTH)
    assert said(b"hello", max_tokens=6) == ("hello", 6, FinishReason.STOP)
    assert said(b"hello END", max_tokens=9, stop="END") == ("hello ", 9, FinishReason.STOP)
    assert said(b"x" * 100)[1:] == (59, FinishReason.LENGTH)  # a context of 60, a prompt of 1


@pytest.mark.clause("ENGINE-09")
def test_characters_are_whole_or_replaced_at_the_end() -> None:
    engine, _ = engine_of(spell("é€".encode()))
    request = engine.submit([0], SamplingParams(temperature=0, max_tokens=4))
    finish(engine, request)
    assert [chunk.text for chunk in request.generations[0].chunks] == ["", "é", "", "\ufffd"]


@pytest.mark.clause("ENGINE-07", "ENGINE-08")
def test_the_last_character_can_complete_a_stop_string() -> None:
    """Only at the end of the generation is it certain that the last character is incomplete."""
    assert said(b"ab\xe2", stop="b\ufffd", max_tokens=3) == ("a", 3, FinishReason.STOP)


@pytest.mark.clause("ENGINE-44")
@pytest.mark.parametrize(
    ("min_tokens", "answer"), [(2, ("ab", 3, FinishReason.STOP)), (3, ("ab\ufffd", 3, FinishReason.LENGTH))]
)
def test_an_incomplete_last_character_is_no_stop_string_before_min_tokens(
    min_tokens: int, answer: tuple[str, int, FinishReason]
) -> None:
    assert said(b"ab\xe2", stop="\ufffd", max_tokens=3, min_tokens=min_tokens) == answer


@pytest.mark.clause("ENGINE-11")
def test_a_request_can_be_cancelled_in_the_middle_of_a_step() -> None:
    """The garbage collector does this when it finds a stream without references."""
    engine, runner = engine_of()
    stays, leaves = (engine.submit([1, 2], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)) for _ in "ab")
    engine.step()
    run = runner.run

    def cancel_and_run(plan: StepPlan) -> object:
        engine.cancel(leaves)
        return run(plan)

    runner.run = cancel_and_run  # type: ignore[method-assign]
    finish(engine, stays)
    assert leaves.completion().finish_reason is FinishReason.CANCELLED
    assert len(leaves.completion().token_ids) == 2
    assert stays.completion().finish_reason is FinishReason.LENGTH
    assert nothing_held(engine)


@pytest.mark.clause("ENGINE-12", "ENGINE-14")
@pytest.mark.parametrize("prompt", [[], [-1], [1, BYTES + 1], [1, 2**40], [1] * 60])
def test_a_refused_request_changes_nothing(prompt: list[int]) -> None:
    engine, _ = engine_of()
    with pytest.raises(RequestValidation):
        engine.submit(prompt, SamplingParams(n=3))
    assert not engine.has_work
    assert (engine.scheduler.waiting, engine.scheduler.running) == (0, 0)
    engine.step()  # nothing to do is not an error


@pytest.mark.clause("ENGINE-15")
@given(prompt=prompts, seed=st.integers(-(2**70), 2**70), cut=st.integers(1, 9))
def test_generating_on_continues_as_if_unbroken(prompt: list[int], seed: int, cut: int) -> None:
    def tokens(start: list[int], count: int) -> list[int]:
        engine, _ = engine_of()
        request = engine.submit(start, SamplingParams(seed=seed, max_tokens=count, temperature=1, ignore_eos=True))
        finish(engine, request)
        return list(request.completion().token_ids)

    whole = tokens(prompt, 10)
    assert whole == tokens(prompt, 10)
    assert tokens(prompt + whole[:cut], 10 - cut) == whole[cut:]


@pytest.mark.clause("ENGINE-15")
def test_a_seed_is_drawn_and_reported() -> None:
    engine, _ = engine_of()
    requests = [engine.submit([1], SamplingParams(max_tokens=8, ignore_eos=True)) for _ in range(2)]
    finish(engine, *requests)
    first, second = (request.completion() for request in requests)
    assert first.seed != second.seed
    again = engine.submit([1], SamplingParams(max_tokens=8, ignore_eos=True, seed=first.seed))
    finish(engine, again)
    assert again.completion().token_ids == first.token_ids


@pytest.mark.clause("ENGINE-16")
def test_timings_follow_the_clock() -> None:
    now = [100.0]
    engine = stub_engine(StubSettings(), spell(b"abc"), clock=lambda: now[0])
    request = engine.submit([0], SamplingParams(temperature=0, max_tokens=3))
    assert request.completion().timings.ttft_s == 0
    for now[0] in (102.0, 103.0, 106.0):
        engine.step()
    timings = request.completion().timings
    assert (timings.ttft_s, timings.prefill_tok_s, timings.decode_tok_s) == (2.0, 0.5, 0.5)


@pytest.mark.clause("ENGINE-74")
def test_steps_without_work_count_only_in_a_row(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferrum.engine.engine.MOST_IDLE_STEPS", 3)
    engine, _ = engine_of()
    plan, works = engine.scheduler.plan, cycle([False, False, False, True])
    monkeypatch.setattr(engine.scheduler, "plan", lambda: plan() if next(works) else StepPlan(()))
    request = engine.submit([1] * 4, SamplingParams(temperature=0, max_tokens=3, ignore_eos=True))
    for _ in range(12):
        engine.step()
    assert request.finished

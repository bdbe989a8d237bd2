"""ENGINE-13, -34: after any error at any place of a step the engine is usable, and no request gets a wrong token."""

from __future__ import annotations

import random
import sys
from types import FrameType
from typing import Any

import pytest

from ferrum.engine.draft_length import DEVICE
from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.engine.request import Request
from ferrum.engine.speculation import Speculation
from ferrum.errors import InternalError, InvalidParameter, RequestValidation, ResourceExhausted, TokenizerError
from ferrum.sampling_params import SamplingParams
from ferrum.sched.scheduler import Scheduler
from ferrum.speculation import NGRAM, Speculate
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.flaky import FlakyStore
from ferrum.testing.life import alone, letters
from ferrum.text.byte_tokenizer import BYTES
from ferrum.types import FinishReason
from tests.engine.proposers import Guesser, guesses, speculation

PARAMS = SamplingParams(temperature=0, max_tokens=10, ignore_eos=True)
PROMPTS = [list(b"abcabcabca"[: 4 + number]) for number in range(6)]
SETTINGS = StubSettings(blocks=8, host_blocks=20, max_num_seqs=4, max_model_len=30, swap_cost=0.0)


class Interrupter:
    """Raises in the `number`-th line that is executed inside Engine._step."""

    def __init__(self, number: int, error: type[BaseException]) -> None:
        self.left = number
        self._error = error

    def trace(self, frame: FrameType, event: str, argument: Any) -> Any:
        if "ferrum" not in frame.f_code.co_filename or "testing" in frame.f_code.co_filename:
            return None
        if event == "line" and inside_a_step(frame):
            self.left -= 1
            if not self.left:
                raise self._error
        return self.trace


def inside_a_step(frame: FrameType | None) -> bool:
    while frame is not None:
        name = frame.f_code.co_name
        if name in ("reset", "all_or_nothing", "_start_over", "__exit__", "tell"):
            return False  # the code that cleans up after an error, and observers, whose errors are logged
        if name == "_step":
            return True
        frame = frame.f_back
    return False


def run(engine: Engine) -> list[list[int]]:
    """Does what a public call does: submits, steps, and always cancels at the end."""
    requests: list[Request] = []
    try:
        for prompt in PROMPTS:
            requests.append(engine.submit(prompt, PARAMS))
        while not all(request.finished for request in requests):
            engine.step()
    finally:
        for request in requests:
            engine.cancel(request)
    return [list(request.completion().token_ids) for request in requests]


def speculating_engine() -> Engine:
    return stub_engine(SETTINGS, letters, speculation=speculation(guesses(letters, BYTES)["for a while"]))


@pytest.mark.clause("ENGINE-13", "ENGINE-34", "DRAFT-01")
@pytest.mark.parametrize("error", [KeyboardInterrupt, MemoryError])
def test_an_interrupt_in_any_line_leaves_a_usable_engine(error: type[BaseException]) -> None:
    counter = Interrupter(0, error)
    engine = speculating_engine()
    expected = [alone(prompt, PARAMS, 30)[0] for prompt in PROMPTS]
    assert traced(engine, counter) == expected
    chance = random.Random(3)
    for line in chance.sample(range(1, -counter.left), 150):
        engine = speculating_engine()
        with pytest.raises((error, ResourceExhausted)):
            traced(engine, Interrupter(line, error))
        assert not engine.has_work
        assert not any(tier.held for tier in engine.scheduler.manager.usage())
        engine.scheduler.manager.gc()
        assert all(tier.free == tier.total for tier in engine.scheduler.manager.usage())
        assert run(engine) == expected


@pytest.mark.clause("ENGINE-13", "DRAFT-01")
def test_an_engine_that_starts_over_resets_its_proposers(monkeypatch: pytest.MonkeyPatch) -> None:
    """A draft model must not keep blocks of texts that no longer exist."""

    def interrupted(*_arguments: object) -> None:
        raise KeyboardInterrupt

    proposer = Guesser(guesses(letters, BYTES)["right"])
    engine = stub_engine(SETTINGS, letters, speculation=Speculation({NGRAM: proposer}, Speculate(NGRAM, 6), DEVICE))
    engine.submit(PROMPTS[0], PARAMS)
    engine.step()
    monkeypatch.setattr(engine.scheduler, "commit", interrupted)
    with pytest.raises(KeyboardInterrupt):
        engine.step()
    assert proposer.asked and proposer.resets == 1


def traced(engine: Engine, interrupter: Interrupter) -> list[list[int]]:
    before = sys.gettrace()
    sys.settrace(interrupter.trace)
    try:
        return run(engine)
    finally:
        sys.settrace(before)


@pytest.mark.clause("ENGINE-34")
def test_memory_that_runs_out_in_a_move_ends_the_requests_and_nothing_else(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stub_engine(SETTINGS, letters)
    requests = [engine.submit(prompt, PARAMS) for prompt in PROMPTS]

    def exhausted(*_arguments: object) -> None:
        raise MemoryError

    with monkeypatch.context() as patch:
        patch.setattr(FlakyStore, "swap_out", exhausted)
        with pytest.raises(ResourceExhausted, match="out of memory"):
            while engine.has_work:
                engine.step()
    assert {request.completion().finish_reason for request in requests} <= {FinishReason.ERROR, FinishReason.LENGTH}
    assert all(isinstance(request.error, InternalError) for request in requests if request.error)
    assert any(request.error for request in requests)
    assert run(engine) == [alone(prompt, PARAMS, 30)[0] for prompt in PROMPTS]


class Clumsy(EngineObserver):
    """An observer that fails at every event."""

    def first_token(self, ttft_s: float) -> None:
        raise RuntimeError("clumsy")

    next_token = request_started = first_token

    def generation_finished(self, *facts: object) -> None:
        raise RuntimeError("clumsy")

    step_finished = step_planned = tokens_sampling = sequence_finished = generation_finished


@pytest.mark.clause("ENGINE-30", "ENGINE-04")
def test_an_observer_that_fails_changes_no_answer() -> None:
    assert run(stub_engine(SETTINGS, letters, Clumsy())) == [alone(prompt, PARAMS, 30)[0] for prompt in PROMPTS]


@pytest.mark.clause("ENGINE-25")
def test_a_token_without_text_ends_its_own_request_only() -> None:
    engine = stub_engine(SETTINGS, letters)
    broken, sound = (engine.submit(prompt, PARAMS) for prompt in PROMPTS[:2])

    def push(token: int, *, complete: bool) -> Any:
        raise TokenizerError("no such token")

    broken.generations[0].output.push = push  # type: ignore[method-assign]
    while engine.has_work:
        engine.step()
    assert isinstance(broken.error, TokenizerError)
    assert broken.completion().finish_reason is FinishReason.ERROR
    assert list(sound.completion().token_ids) == alone(PROMPTS[1], PARAMS, 30)[0]


@pytest.mark.clause("ENGINE-12", "ENGINE-24")
@pytest.mark.parametrize("timeout", ["5", float("nan"), float("inf"), -1, True])
def test_a_timeout_that_is_none_is_refused_and_changes_nothing(timeout: Any) -> None:
    engine = stub_engine(SETTINGS, letters)
    with pytest.raises(InvalidParameter, match="timeout_s"):
        engine.submit([97], PARAMS, timeout_s=timeout)
    assert not engine.has_work and not engine.scheduler.waiting


@pytest.mark.clause("ENGINE-14", "ENGINE-12")
@pytest.mark.parametrize("prompt", [[1.5], ["a"], [None], [97, 98.0]])
def test_what_is_no_token_is_refused(prompt: list[Any]) -> None:
    engine = stub_engine(SETTINGS, letters)
    with pytest.raises(RequestValidation):
        engine.submit(prompt, PARAMS)
    assert not engine.has_work


@pytest.mark.clause("ENGINE-24")
def test_finished_requests_do_not_wait_for_their_deadlines() -> None:
    engine = stub_engine(SETTINGS, letters)
    for _ in range(200):
        engine.submit([97], SamplingParams(temperature=0, max_tokens=1), timeout_s=1000)
        engine.step()
    assert len(engine._books._deadlines._entries) < 40


@pytest.mark.clause("ENGINE-12")
def test_a_submission_that_breaks_off_leaves_nothing_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stub_engine(SETTINGS, letters)
    add, calls = Scheduler.add, iter(range(9))

    def interrupted(scheduler: Scheduler, sequence: Any) -> None:
        if next(calls) == 1:
            raise KeyboardInterrupt
        add(scheduler, sequence)

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(Scheduler, "add", interrupted)
        engine.submit([97], SamplingParams(n=3))
    assert not engine.has_work and not engine.scheduler.waiting
    assert run(engine) == [alone(prompt, PARAMS, 30)[0] for prompt in PROMPTS]

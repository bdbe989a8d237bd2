"""ENGINE-33 to ENGINE-35: an engine in its own thread, with many threads that read answers."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest

from ferrum.engine.engine import Engine
from ferrum.engine.thread import EngineThread, Ticket
from ferrum.errors import (
    Cancelled,
    FerrumError,
    InternalError,
    InvalidParameter,
    ModelError,
    RequestValidation,
    ResourceExhausted,
    SchedulerError,
    Timeout,
)
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import StepPlan
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.life import alone, letters
from ferrum.types import FinishReason, Priority

PATIENCE = 30.0
"""Seconds after which a test that waits fails. Each wait takes less than a tenth of a second."""
PARAMS = SamplingParams(temperature=0, max_tokens=8)
ENDLESS = SamplingParams(temperature=0, max_tokens=50, ignore_eos=True)


class Gate:
    """An executor that computes a step only when the test opens the gate."""

    def __init__(self, engine: Engine) -> None:
        self._steps = threading.Semaphore(0)
        self._open = False
        self._run = engine.executor.run
        self.entered = threading.Event()
        engine.executor.run = self.run  # type: ignore[method-assign]

    def run(self, plan: StepPlan) -> object:
        self.entered.set()
        if not self._open:
            assert self._steps.acquire(timeout=PATIENCE)
        return self._run(plan)

    def let(self, steps: int) -> None:
        self._steps.release(steps)

    def open(self) -> None:
        self._open = True
        self._steps.release(1000)


@pytest.fixture
def engine() -> Engine:
    return stub_engine(
        StubSettings(blocks=12, host_blocks=8, max_num_seqs=3, max_waiting=20, max_model_len=48), letters
    )


@pytest.fixture
def thread(engine: Engine) -> Iterator[EngineThread]:
    with EngineThread(engine) as running:
        yield running


def held(engine: Engine) -> int:
    return sum(tier.held for tier in engine.scheduler.manager.usage())


@pytest.mark.clause("ENGINE-33")
def test_many_threads_each_hear_their_own_answer(thread: EngineThread, engine: Engine) -> None:
    heard: dict[int, list[int | None]] = {}

    def ask(number: int) -> None:
        ticket = thread.submit([97 + number % 3] * (1 + number % 5), PARAMS, priority=Priority(number % 4))
        heard[number] = [chunk.token_id for _, chunk in ticket]
        assert list(ticket.result(PATIENCE).token_ids) == heard[number]

    threads = [threading.Thread(target=ask, args=(number,)) for number in range(16)]
    for each in threads:
        each.start()
    for each in threads:
        each.join(PATIENCE)
    for number in range(16):
        assert heard[number] == alone([97 + number % 3] * (1 + number % 5), PARAMS, 48)[0]
    assert held(engine) == 0


@pytest.mark.clause("ENGINE-33")
def test_chunks_come_while_the_request_runs(engine: Engine) -> None:
    gate = Gate(engine)
    with EngineThread(engine) as thread:
        ticket = thread.submit([97, 98], ENDLESS)
        chunks = iter(ticket)
        gate.let(1)
        assert next(chunks)[1].token_id is not None  # the second step is still shut
        assert not ticket.finished
        gate.open()
        assert len(list(chunks)) == 45  # a context of 48
        assert list(ticket) == []


@pytest.mark.clause("ENGINE-33")
def test_choices_are_told_apart(thread: EngineThread) -> None:
    ticket = thread.submit([97], SamplingParams(n=3, max_tokens=5, temperature=1, seed=1))
    chunks = list(ticket)
    for index, choice in enumerate(ticket.result(PATIENCE).choices):
        assert "".join(chunk.text for number, chunk in chunks if number == index) == choice.text


@pytest.mark.clause("ENGINE-33")
def test_a_cancelled_request_frees_its_blocks_and_others_go_on(engine: Engine) -> None:
    gate = Gate(engine)
    with EngineThread(engine) as thread:
        stays, leaves = (thread.submit([97], ENDLESS) for _ in range(2))
        leaves.cancel()
        leaves.cancel()
        gate.open()
        assert leaves.result(PATIENCE).finish_reason is FinishReason.CANCELLED
        assert stays.result(PATIENCE).finish_reason is FinishReason.LENGTH
        leaves.cancel()
    assert held(engine) == 0


@pytest.mark.clause("ENGINE-33", "ENGINE-23")
def test_refusals_come_at_once(engine: Engine) -> None:
    gate = Gate(engine)
    with EngineThread(engine) as thread:
        with pytest.raises(RequestValidation):
            thread.submit([], PARAMS)
        accepted = [thread.submit([97], PARAMS)]
        assert gate.entered.wait(PATIENCE)  # the first one runs, those that follow are not seen by the engine yet
        accepted += [thread.submit([97], PARAMS) for _ in range(20)]
        with pytest.raises(ResourceExhausted) as refusal:
            thread.submit([97], PARAMS)
        assert refusal.value.is_retryable
        gate.open()
        assert {ticket.result(PATIENCE).token_ids for ticket in accepted} == {tuple(alone([97], PARAMS, 48)[0])}


@pytest.mark.clause("ENGINE-34")
@pytest.mark.parametrize(
    ("raised", "expected"), [(ModelError("damaged"), ModelError), (IndexError("oops"), InternalError)]
)
def test_a_step_that_fails_ends_what_was_there_and_nothing_else(
    engine: Engine, raised: Exception, expected: type[FerrumError]
) -> None:
    run = engine.executor.run

    def fail(plan: StepPlan) -> object:
        engine.executor.run = run  # type: ignore[method-assign]
        raise raised

    engine.executor.run = fail  # type: ignore[method-assign]
    with EngineThread(engine) as thread:
        with pytest.raises(expected):
            list(thread.submit([97], PARAMS))
        again = thread.submit([97], PARAMS)
        assert list(again.result(PATIENCE).token_ids) == alone([97], PARAMS, 48)[0]
    assert held(engine) == 0


@pytest.mark.clause("ENGINE-13", "ENGINE-34")
@pytest.mark.parametrize("method", ["plan", "commit"])
def test_an_engine_that_starts_over_ends_every_ticket(
    engine: Engine, monkeypatch: pytest.MonkeyPatch, method: str
) -> None:
    """No thread waits without end, also not for a request that has no chunk yet."""

    def fail(*_arguments: object) -> None:
        monkeypatch.undo()
        raise RuntimeError("a defect")

    monkeypatch.setattr(engine.scheduler, method, fail)
    with EngineThread(engine) as thread:
        with pytest.raises(InternalError, match="a defect"):
            thread.submit([97], PARAMS).result(PATIENCE)
        assert list(thread.submit([97], PARAMS).result(PATIENCE).token_ids) == alone([97], PARAMS, 48)[0]
    assert held(engine) == 0


@pytest.mark.clause("ENGINE-35")
def test_closing_ends_what_is_open(engine: Engine) -> None:
    gate = Gate(engine)
    thread = EngineThread(engine)
    tickets = [thread.submit([97], ENDLESS) for _ in range(5)]
    assert gate.entered.wait(PATIENCE)
    closing = threading.Thread(target=thread.close)
    closing.start()
    gate.let(1)
    closing.join(PATIENCE)
    gate.open()
    assert [ticket.result(PATIENCE).finish_reason for ticket in tickets] == [FinishReason.CANCELLED] * 5
    with pytest.raises(Cancelled):
        thread.submit([97], PARAMS)
    thread.close()
    assert held(engine) == 0


def broken() -> None:
    raise RuntimeError("a defect")


@pytest.mark.clause("ENGINE-34")
def test_a_command_that_fails_changes_no_other_request(thread: EngineThread, engine: Engine) -> None:
    for _ in range(3):
        thread.call(broken)
    ticket = thread.submit([97], PARAMS)
    assert list(ticket.result(PATIENCE).token_ids) == alone([97], PARAMS, 48)[0]


@pytest.mark.clause("ENGINE-34")
@pytest.mark.parametrize(
    ("prompt", "options"),
    [
        ([1.5, 2], {}),
        (["a"], {}),
        ([97], {"timeout_s": "5"}),
        ([97], {"timeout_s": float("nan")}),
        ([97], {"timeout_s": -1}),
        ([97], {"priority": None}),
        ([97], {"priority": 2}),
    ],
)
def test_nonsense_is_refused_at_once_and_changes_no_other_request(
    thread: EngineThread, engine: Engine, prompt: list[Any], options: dict[str, Any]
) -> None:
    good = thread.submit(np.array([97]), PARAMS)  # type: ignore[arg-type]  # NumPy's integers are integers
    with pytest.raises((RequestValidation, InvalidParameter)):
        thread.submit(prompt, PARAMS, **options)
    assert list(good.result(PATIENCE).token_ids) == alone([97], PARAMS, 48)[0]


@pytest.mark.clause("ENGINE-34", "ENGINE-35")
def test_if_the_thread_dies_every_request_gets_the_reason(engine: Engine, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(engine, "take_news", lambda: 1 / 0)
    thread = EngineThread(engine)
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        thread.submit([97], ENDLESS).result(PATIENCE)
    with pytest.raises(InternalError, match="ZeroDivisionError"):
        thread.submit([97], ENDLESS)
    thread.close()


@pytest.mark.clause("ENGINE-33")
def test_a_flood_of_commands_does_not_keep_answers_back(engine: Engine) -> None:
    with EngineThread(engine) as thread:
        ticket = thread.submit([97], PARAMS)
        commands = 0

        def again() -> None:
            nonlocal commands
            if not ticket.finished and commands < 10_000:
                commands += 1
                thread.call(again)

        thread.call(again)
        ticket.result(PATIENCE)
        assert commands < 100  # one or two for each step


@pytest.mark.clause("ENGINE-33")
def test_the_engine_of_a_thread_belongs_to_it_alone(engine: Engine) -> None:
    with EngineThread(engine) as thread:
        ticket = thread.submit([97], PARAMS)
        for call in (engine.step, lambda: engine.submit([97], PARAMS), lambda: engine.fail(ModelError("no"))):
            with pytest.raises(SchedulerError, match="EngineThread"):
                call()
        ticket.result(PATIENCE)
    with pytest.raises(Cancelled):
        thread.call(broken)
    ticket.cancel()
    request = engine.submit([97], PARAMS)  # and now it is free again
    while engine.has_work:
        engine.step()
    assert list(request.completion().token_ids) == alone([97], PARAMS, 48)[0]


@pytest.mark.clause("ENGINE-24", "ENGINE-33")
def test_a_deadline_reaches_the_listener(engine: Engine) -> None:
    with EngineThread(engine) as thread:
        ticket: Ticket = thread.submit([97], ENDLESS, timeout_s=0.0)
        with pytest.raises(Timeout):
            ticket.result(PATIENCE)


@pytest.mark.clause("ENGINE-33")
def test_a_listener_hears_of_every_chunk_and_of_the_end_without_waiting() -> None:
    heard = threading.Event()
    found = []
    with EngineThread(stub_engine(StubSettings(), letters)) as thread:
        ticket = thread.submit([1, 2, 3], PARAMS, listener=heard.set)
        while not ticket.finished:
            assert heard.wait(PATIENCE)
            heard.clear()
            found += ticket.take()
        found += ticket.take()
        assert ticket.take() == []
    assert "".join(chunk.text for _, chunk in found) == ticket.result().text
    assert len(found) == PARAMS.max_tokens


@pytest.mark.clause("ENGINE-34")
def test_a_listener_that_fails_changes_no_other_request() -> None:
    def fail() -> None:
        raise RuntimeError("the event loop is closed")

    with EngineThread(stub_engine(StubSettings(), letters)) as thread:
        thread.submit([1, 2, 3], PARAMS, listener=fail)
        assert len(thread.submit([1, 2, 3], PARAMS).result(PATIENCE).token_ids) == PARAMS.max_tokens

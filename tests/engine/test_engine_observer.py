"""ENGINE-23 to ENGINE-32: refusals, deadlines, failures, priorities, and what observers and statistics say."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from ferrum.engine.engine import Engine
from ferrum.engine.metrics import EngineMetrics, Histogram
from ferrum.engine.observer import EngineObserver
from ferrum.errors import DeviceError, InternalError, InvalidParameter, ResourceExhausted, Timeout
from ferrum.sample.state import SamplingState
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import StepPlan
from ferrum.sched.sequence import TokenSequence
from ferrum.tensor.ops import Tensor
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.life import alone, letters
from ferrum.types import FinishReason, Priority

ENDLESS = SamplingParams(temperature=0, max_tokens=20, ignore_eos=True)


class Clock:
    """A clock that moves only when a test sets it."""

    def __init__(self) -> None:
        self.now = 1000.0

    def __call__(self) -> float:
        return self.now


class Notebook(EngineObserver):
    """An observer that records every event."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def request_started(self, queue_s: float) -> None:
        self.heard.append(("started", queue_s))

    def first_token(self, ttft_s: float) -> None:
        self.heard.append(("first", ttft_s))

    def next_token(self, latency_s: float) -> None:
        self.heard.append(("next", latency_s))

    def generation_finished(self, reason: FinishReason, latency_s: float, prompt_tokens: int, tokens: int) -> None:
        self.heard.append(("finished", reason, latency_s, prompt_tokens, tokens))

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        self.heard.append(("step", plan.tokens, duration_s))


def run(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


@pytest.mark.clause("ENGINE-23", "ENGINE-12")
def test_a_full_queue_refuses_and_those_in_it_are_answered() -> None:
    engine = stub_engine(StubSettings(max_waiting=3), letters)
    accepted = [engine.submit([97], ENDLESS), engine.submit([98], SamplingParams(temperature=0, n=2))]
    for params in (ENDLESS, SamplingParams(n=2)):
        with pytest.raises(ResourceExhausted, match="try again later") as refusal:
            engine.submit([99], params)
        assert refusal.value.is_retryable
    assert engine.scheduler.waiting == 3
    run(engine)
    assert [list(choice.token_ids) for choice in accepted[0].completion().choices] == [alone([97], ENDLESS, 60)[0]]
    engine.submit([99], SamplingParams(n=3))  # now there is room
    with pytest.raises(InvalidParameter, match="n must be at most 3"):
        engine.submit([99], SamplingParams(n=4))


@pytest.mark.clause("ENGINE-24")
def test_a_deadline_ends_a_request_that_runs_or_waits() -> None:
    clock = Clock()
    engine = stub_engine(StubSettings(max_num_seqs=1), letters, clock=clock)
    runs = engine.submit([97], ENDLESS, timeout_s=5)
    waits = engine.submit([97], ENDLESS, timeout_s=6)
    patient = engine.submit([97], ENDLESS, timeout_s=1000)
    engine.step()
    clock.now += 5
    engine.step()
    assert isinstance(runs.error, Timeout) and "within 5 s" in str(runs.error)
    assert runs.completion().finish_reason is FinishReason.ERROR
    assert list(runs.completion().token_ids) == alone([97], ENDLESS, 60)[0][:1]
    assert not waits.finished
    clock.now += 2
    engine.step()
    assert isinstance(waits.error, Timeout)
    run(engine)
    assert list(patient.completion().token_ids) == alone([97], ENDLESS, 60)[0]
    assert engine.scheduler.manager.device.held == 0


@pytest.mark.clause("ENGINE-24")
def test_an_answer_in_time_is_not_an_error_afterwards() -> None:
    clock = Clock()
    engine = stub_engine(StubSettings(), letters, clock=clock)
    request = engine.submit([97], ENDLESS, timeout_s=5)
    run(engine)
    clock.now += 100
    engine.step()
    assert request.error is None and request.completion().finish_reason is FinishReason.LENGTH


@pytest.mark.clause("ENGINE-25")
def test_failed_requests_keep_their_words_and_others_go_on() -> None:
    engine = stub_engine(StubSettings(), letters)
    fails, goes_on = engine.submit([97], ENDLESS), engine.submit([98], ENDLESS)
    for _ in range(3):
        engine.step()
    error = DeviceError("the device is gone")
    engine.fail(error, [fails])
    engine.fail(error, [fails])
    assert fails.error is error
    assert fails.completion().finish_reason is FinishReason.ERROR
    assert list(fails.completion().token_ids) == alone([97], ENDLESS, 60)[0][:3]
    run(engine)
    assert list(goes_on.completion().token_ids) == alone([98], ENDLESS, 60)[0]
    last = engine.submit([98], ENDLESS)
    engine.fail(error)
    assert last.error is error and not engine.has_work


@pytest.mark.clause("ENGINE-26")
def test_a_priority_can_be_changed() -> None:
    engine = stub_engine(StubSettings(max_num_seqs=1, scheduler="priority"), letters)
    first, second = engine.submit([97], ENDLESS), engine.submit([98], ENDLESS)
    engine.step()
    engine.update_priority(second, Priority.CRITICAL)
    while not second.finished:
        engine.step()
    assert len(first.completion().token_ids) == 1  # it was preempted
    engine.update_priority(second, Priority.LOW)  # too late, and no error
    run(engine)
    for request, prompt in ((first, [97]), (second, [98])):
        assert list(request.completion().token_ids) == alone(prompt, ENDLESS, 60)[0]


@pytest.mark.clause("ENGINE-26")
def test_a_priority_is_that_of_all_choices() -> None:
    engine = stub_engine(StubSettings(max_num_seqs=1, scheduler="priority"), letters)
    first, second = engine.submit([97], ENDLESS), engine.submit([98], replace(ENDLESS, n=2))
    engine.step()
    engine.update_priority(second, Priority.CRITICAL)
    while not second.finished:
        engine.step()
    assert len(first.completion().token_ids) == 1


@pytest.mark.clause("ENGINE-27")
def test_a_usage_tells_cached_tokens() -> None:
    engine = stub_engine(StubSettings(block_size=4), letters)
    first = engine.submit([97] * 11, ENDLESS)
    run(engine)
    second, third = engine.submit([97] * 11, ENDLESS), engine.submit([97] * 4, ENDLESS)
    run(engine)
    assert [r.completion().usage.cached_tokens for r in (first, second, third)] == [0, 8, 3]


@pytest.mark.clause("ENGINE-30")
def test_an_observer_hears_of_everything_once() -> None:
    clock, notebook = Clock(), Notebook()
    engine = stub_engine(StubSettings(max_num_seqs=1, max_num_batched_tokens=2), letters, notebook, clock)
    engine.submit([97, 98, 99], SamplingParams(temperature=0, max_tokens=2, ignore_eos=True))
    waits = engine.submit([97], ENDLESS)
    for _ in range(3):
        clock.now += 1
        engine.step()
    engine.cancel(waits)
    assert notebook.heard == [
        ("started", 1.0), ("step", 2, 0.0),
        ("first", 2.0), ("step", 1, 0.0),
        ("next", 1.0), ("finished", FinishReason.LENGTH, 3.0, 3, 2), ("step", 1, 0.0),
        ("finished", FinishReason.CANCELLED, 3.0, 1, 0),
    ]  # fmt: skip


class Onlooker(EngineObserver):
    """An observer that records plans, and the logits from which tokens are sampled."""

    def __init__(self) -> None:
        self.heard: list[tuple[Any, ...]] = []

    def step_planned(self, plan: StepPlan) -> None:
        self.heard.append(("planned", plan))

    def tokens_sampling(
        self, sequences: Sequence[TokenSequence], logits: Tensor, states: Sequence[SamplingState]
    ) -> None:
        generated = [state.history.generated for state in states]
        self.heard.append(("sampling", list(sequences), logits.argmax(-1).tolist(), generated))

    def sequence_finished(self, sequence: TokenSequence, reason: FinishReason) -> None:
        self.heard.append(("ended", sequence, reason))

    def step_finished(self, plan: StepPlan, duration_s: float) -> None:
        self.heard.append(("finished", plan))


@pytest.mark.clause("ENGINE-30")
def test_an_observer_sees_each_plan_and_the_logits_of_each_token() -> None:
    onlooker = Onlooker()
    engine = stub_engine(StubSettings(max_num_batched_tokens=4), letters, onlooker)
    requests = [
        engine.submit([first, *[97] * 5], SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
        for first in (98, 99)
    ]
    tokens: dict[TokenSequence, list[int]] = {request.generations[0].sequence: [] for request in requests}
    while engine.has_work:
        onlooker.heard.clear()
        engine.step()
        kinds = [fact[0] for fact in onlooker.heard]
        (_, planned), (_, finished) = onlooker.heard[0], onlooker.heard[-1]
        assert planned is finished
        if not planned.sampled:
            assert kinds == ["planned", "finished"]
            continue
        ended = [fact[1:] for fact in onlooker.heard if fact[0] == "ended"]
        assert kinds == ["planned", "sampling", *["ended"] * len(ended), "finished"]
        assert ended == [(each, FinishReason.LENGTH) for each in planned.sampled if each.length == each.max_length]
        _, sequences, best, generated = onlooker.heard[1]
        assert sequences == list(planned.sampled)
        for sequence, token, count in zip(sequences, best, generated, strict=True):
            assert count == len(tokens[sequence])  # the state is that before the token
            tokens[sequence].append(token)
    answers = [list(request.completion().choices[0].token_ids) for request in requests]
    assert list(tokens.values()) == answers


@pytest.mark.clause("ENGINE-30")
def test_an_observer_sees_an_empty_plan(monkeypatch: pytest.MonkeyPatch) -> None:
    onlooker = Onlooker()
    engine = stub_engine(StubSettings(), letters, onlooker)
    engine.submit([97], ENDLESS)
    with monkeypatch.context() as patch:
        empty = StepPlan(())
        patch.setattr(engine.scheduler, "plan", lambda: empty)
        engine.step()
    assert onlooker.heard == [("planned", empty)]


@pytest.mark.clause("ENGINE-31")
def test_metrics_add_up() -> None:
    clock, metrics = Clock(), EngineMetrics()
    engine = stub_engine(StubSettings(), letters, metrics, clock)
    requests = [engine.submit([97] * 5, ENDLESS), engine.submit([98] * 5, SamplingParams(temperature=0, n=2))]
    while engine.has_work:
        clock.now += 0.5
        engine.step()
    generated = sum(request.completion().usage.completion_tokens for request in requests)
    assert metrics.generation_tokens == generated
    assert metrics.prompt_tokens == 15
    assert metrics.finished.total() == 3
    assert metrics.queue_time.count == 2
    assert metrics.time_to_first_token.count == metrics.request_latency.count == 3
    assert metrics.inter_token_latency.count == generated - 3
    assert metrics.inter_token_latency.total == 0.5 * (generated - 3)
    assert metrics.step_time.count == engine.stats().steps
    assert metrics.computed_tokens == engine.stats().computed_tokens


@pytest.mark.clause("ENGINE-31")
@given(values=st.lists(st.floats(0, 200), max_size=50), share=st.floats(0.01, 1))
def test_histograms_count_and_bound(values: list[float], share: float) -> None:
    histogram = Histogram()
    for value in values:
        histogram.observe(value)
    assert histogram.count == len(values)
    assert histogram.total == pytest.approx(sum(values))
    for index, bound in enumerate(histogram.bounds):
        assert sum(histogram.counts[: index + 1]) == sum(value <= bound for value in values)
    if values:
        quantile = histogram.quantile(share)
        assert sum(value <= quantile for value in values) >= share * len(values)
    else:
        assert histogram.quantile(share) == 0


@pytest.mark.clause("ENGINE-32")
def test_statistics_are_a_picture_of_the_moment() -> None:
    engine = stub_engine(StubSettings(blocks=6, host_blocks=9, block_size=2, max_model_len=12, swap_cost=0), letters)
    for letter in (97, 98):
        engine.submit([letter] * 6, SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
    assert (engine.stats().waiting, engine.stats().running, engine.stats().steps) == (2, 0, 0)
    engine.step()
    stats = engine.stats()
    assert stats.running == 1 and stats.device.held == 3 and stats.device.total == 6
    assert (stats.steps, stats.computed_tokens) == (1, 6)
    run(engine)
    stats = engine.stats()
    assert stats.device.held == stats.host.held == 0
    assert stats.preemptions == stats.preempted_by_swap + stats.preempted_by_recompute
    assert stats.device.cached == 6 - stats.device.free


@pytest.mark.clause("SCHED-10")
@pytest.mark.parametrize("steps", [0, 2])
def test_an_engine_that_cannot_go_on_says_so(monkeypatch: pytest.MonkeyPatch, steps: int) -> None:
    engine = stub_engine(StubSettings(), letters)
    engine.submit([97], ENDLESS)
    for _ in range(steps):  # after which it runs, and holds blocks
        engine.step()
    monkeypatch.setattr(engine.scheduler, "plan", lambda: StepPlan(()))
    with pytest.raises(InternalError, match="nothing to run"):
        for _ in range(2000):
            engine.step()

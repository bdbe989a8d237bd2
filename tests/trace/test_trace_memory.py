"""TRACE-01, TRACE-03, TRACE-04: what a trace says of queue and memory, over random lives of an engine."""

from __future__ import annotations

from collections import Counter
from collections.abc import Sequence
from threading import Thread
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.errors import DeviceError
from ferrum.sampling_params import SamplingParams
from ferrum.sched.plan import StepPlan
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.life import Life, alone, letters
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.trace.memory import Moment
from ferrum.trace.recorder import Recorder, numbers_in
from tests.trace.checks import check_recorded, events

SPELL = ByteTokenizer().token_bytes


def recorded(engine: Engine) -> Recorder:
    recorder = Recorder(engine)
    engine.observer = recorder
    return recorder


def whole(recorder: Recorder) -> dict[str, Any]:
    return {**recorder.recorded(SPELL), "end": recorder.end()}


def greedy(max_tokens: int, **more: Any) -> SamplingParams:
    return SamplingParams(temperature=0, max_tokens=max_tokens, ignore_eos=True, **more)


def run(engine: Engine) -> None:
    while engine.has_work:
        engine.step()


@pytest.mark.clause("TRACE-03", "TRACE-04")
@given(seed=st.integers(0, 2**32))
@example(seed=307748)  # the last step raised an error
@example(seed=1614256187)  # a swap failed, and a cached prefix was found instead
def test_the_trace_of_any_life_is_consistent(seed: int) -> None:
    life = Life(seed)
    recorder = recorded(life.engine)
    life.run(40)
    trace = whole(recorder)
    assert len(trace["steps"]) == life.engine.stats().steps
    check_recorded(trace, life.settings.block_size)
    counters = life.engine.scheduler.manager.counters()
    assert len(events(trace, "copied")) <= counters.copied  # a sequence may be admitted and preempted in one plan
    assert len(events(trace, "finished")) == len(trace["sequences"])


@pytest.mark.clause("TRACE-04")
@given(seed=st.integers(0, 2**32))
@example(seed=147441)
def test_every_copy_in_a_trace_was_made(seed: int) -> None:
    """The pairs of blocks that the store was told to copy are the oracle. A source is unknown if its block was given to
    another sequence in the same plan."""
    life = Life(seed)
    recorder = recorded(life.engine)
    store = life.engine.scheduler.manager.store
    copy, made = store.copy, Counter[tuple[int, int]]()

    def watched(sources: Sequence[int], targets: Sequence[int]) -> None:
        copy(sources, targets)
        made.update(zip(sources, targets, strict=True))

    store.copy = watched  # type: ignore[method-assign]
    life.run(40)
    copied = Counter((event["source"], event["block"]) for event in events(whole(recorder), "copied"))
    unknown = {target for source, target in copied if source is None}
    assert Counter({pair: count for pair, count in copied.items() if pair[0] is not None}) <= made
    assert unknown <= {target for _, target in made}


@pytest.mark.clause("TRACE-04")
def test_the_source_of_a_copy_is_known_if_it_was_evicted_in_the_same_plan() -> None:
    life = Life(26266)
    recorder = recorded(life.engine)
    life.run(40)
    copied = events(whole(recorder), "copied")
    assert copied and all(event["source"] is not None for event in copied)


@pytest.mark.clause("TRACE-01")
@given(seed=st.integers(0, 2**32))
@example(seed=147441)  # a preempted sequence and another choice of its prompt are admitted in one plan
def test_a_life_is_the_same_with_and_without_a_recorder(seed: int) -> None:
    told: list[list[Any]] = []
    for is_recorded in (False, True):
        life = Life(seed)
        if is_recorded:
            recorded(life.engine)
        plans: list[Any] = []
        plan = life.engine.scheduler.plan

        def planned(plan: Any = plan, plans: list[Any] = plans) -> StepPlan:
            made: StepPlan = plan()
            plans.append([(chunk.start, chunk.count, chunk.sequence.table.blocks[:]) for chunk in made.chunks])
            return made

        life.engine.scheduler.plan = planned  # type: ignore[method-assign]
        life.run(30)
        told.append(plans)
    assert told[0] == told[1]


@pytest.mark.clause("TRACE-04")
def test_a_prefix_a_copy_and_a_swap_are_told() -> None:
    engine = stub_engine(StubSettings(blocks=6, host_blocks=6, block_size=4, swap_cost=0.0), letters)
    recorder = recorded(engine)
    engine.submit([97] * 8, greedy(1))
    run(engine)
    engine.submit([97] * 8, greedy(1))  # wholly cached: its last block is copied
    run(engine)
    for letter in (98, 99):
        engine.submit([letter] * 7, greedy(9))
    run(engine)
    trace = whole(recorder)
    check_recorded(trace, 4)
    admitted = events(trace, "admitted")
    assert [(event["computed"], event["source"]) for event in admitted[:2]] == [(0, "nothing"), (7, "prefix")]
    (copied,) = events(trace, "copied")
    first = trace["steps"][0]["tables"]["0"]
    assert copied == {"kind": "copied", "sequence": 1, "index": 1, "block": copied["block"], "source": first[1]}
    assert copied["block"] not in first
    assert [event["way"] for event in events(trace, "preempted")] == ["swap"]
    assert admitted[-1]["source"] == "host" and admitted[-1]["computed"] > 0
    assert any(step["host_tables"] for step in trace["steps"])


@pytest.mark.clause("TRACE-04")
def test_choices_share_the_blocks_of_their_prompt() -> None:
    engine = stub_engine(StubSettings(block_size=4), letters)
    recorder = recorded(engine)
    engine.submit([97] * 6, greedy(3, n=3))
    run(engine)
    trace = whole(recorder)
    check_recorded(trace, 4)
    assert trace["requests"] == [
        {"id": 0, "params": {"n": 3, "max_tokens": 3, "temperature": 0.0, "ignore_eos": True}, "sequences": [0, 1, 2]}
    ]
    assert [event["source"] for event in events(trace, "admitted")] == ["nothing", "sibling", "sibling"]
    assert {table[0] for step in trace["steps"] for table in step["tables"].values()} == {0}
    assert len(events(trace, "copied")) == engine.scheduler.manager.counters().copied > 0


@pytest.mark.clause("TRACE-04")
def test_cancelled_and_failed_sequences_end_for_that_reason() -> None:
    engine = stub_engine(StubSettings(max_num_seqs=2), letters)
    recorder = recorded(engine)
    cancelled, failed, waits = (engine.submit([97 + i] * 3, greedy(9)) for i in range(3))
    engine.step()
    engine.cancel(cancelled)
    engine.fail(DeviceError("gone"), [failed])
    engine.cancel(engine.submit([97], greedy(1)))  # comes and goes between two steps
    run(engine)
    trace = whole(recorder)
    check_recorded(trace, 4)
    assert [sequence["finish_reason"] for sequence in trace["sequences"]] == ["cancelled", "error", "length"]
    assert trace["sequences"][2]["tokens"] == [99] * 3 + alone([99] * 3, greedy(9), 60)[0]
    assert waits.finished
    late = engine.submit([97], greedy(5))
    engine.step()
    engine.cancel(late)
    end = recorder.end()
    assert end["events"] == [{"kind": "finished", "sequence": 3, "reason": "cancelled"}]
    assert not end["running"] and not end["tables"]


@pytest.mark.clause("TRACE-04")
def test_what_a_failed_step_had_planned_is_told_with_the_next_one(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stub_engine(StubSettings(), letters)
    recorder = recorded(engine)
    engine.submit([97] * 3, greedy(2))

    def gone(plan: StepPlan) -> Any:
        raise DeviceError("gone")

    with monkeypatch.context() as patch, pytest.raises(DeviceError):
        patch.setattr(engine.executor, "run", gone)
        engine.step()
    run(engine)
    trace = whole(recorder)
    check_recorded(trace, 4)
    assert [event["kind"] for event in trace["steps"][0]["events"]] == ["arrived", "admitted", "sampled"]


@pytest.mark.clause("TRACE-04")
def test_a_step_that_breaks_off_ends_everything(monkeypatch: pytest.MonkeyPatch) -> None:
    engine = stub_engine(StubSettings(), letters)
    recorder = recorded(engine)
    engine.submit([97] * 3, greedy(9))
    engine.step()
    with monkeypatch.context() as patch, pytest.raises(ZeroDivisionError):
        patch.setattr(engine.scheduler, "commit", lambda *_: 1 // 0)
        engine.step()
    engine.submit([98] * 3, greedy(2))
    run(engine)
    trace = whole(recorder)
    assert [sequence["finish_reason"] for sequence in trace["sequences"]] == ["error", "length"]
    assert [step["running"] for step in trace["steps"]] == [[0], [1], [1]]
    assert {"kind": "finished", "sequence": 0, "reason": "error"} in trace["steps"][1]["events"]


@pytest.mark.clause("TRACE-11")
def test_the_last_steps_are_kept_and_nothing_that_only_older_ones_name() -> None:
    engine = stub_engine(StubSettings(), letters)
    recorder = Recorder(engine, most_steps=4)
    engine.observer = recorder
    for letter in range(97, 123):
        engine.submit([letter] * 3, greedy(3))
        run(engine)
    trace = whole(recorder)
    assert [step["step"] for step in trace["steps"]] == [75, 76, 77, 78]
    assert recorder.steps == 78 and recorder.dropped == 74
    assert [sequence["id"] for sequence in trace["sequences"]] == [24, 25]
    assert [request["id"] for request in trace["requests"]] == [24, 25]
    assert [step["step"] for step in recorder.recorded(SPELL, after=77)["steps"]] == [78]


@pytest.mark.clause("TRACE-11")
def test_steps_of_many_numbers_are_forgotten_earlier_and_share_the_rows_of_unchanged_blocks() -> None:
    engine = stub_engine(StubSettings(blocks=60), letters)
    recorder = Recorder(engine, most_steps=100, most_numbers=1000)
    engine.observer = recorder
    for letter in range(97, 107):
        engine.submit([letter] * 20, greedy(8))
        run(engine)
        steps = recorder.recorded(SPELL)["steps"]
        total = sum(map(numbers_in, steps))
        assert total <= 1000
    assert recorder.dropped and len(steps) > 1
    rows = [row for step in steps for row in step["device"]]
    assert len({id(row) for row in rows}) < len(rows) / 3


@pytest.mark.clause("TRACE-11")
def test_a_recorder_looks_at_the_engine_twice_a_step_and_not_for_each_sequence_that_is_cancelled(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    looks: list[Moment] = []
    of = Moment.of
    monkeypatch.setattr(Moment, "of", lambda *arguments: looks.append(of(*arguments)) or looks[-1])
    engine = stub_engine(StubSettings(max_num_seqs=2), letters)
    recorder = recorded(engine)
    requests = [engine.submit([97 + i] * 3, greedy(4)) for i in range(20)]
    engine.step()
    assert len(looks) == 3
    for request in requests:
        engine.cancel(request)
    assert len(looks) == 3
    trace = whole(recorder)
    assert len(looks) == 4 and not trace["end"]["running"] and len(events(trace, "finished")) == 20


@pytest.mark.clause("TRACE-03")
def test_the_engine_waits_for_no_text_and_no_parameters(monkeypatch: pytest.MonkeyPatch) -> None:
    """A step that runs while another thread spells the tokens of a trace is not held up."""
    engine = stub_engine(StubSettings(), letters)
    recorder = recorded(engine)
    engine.submit([97] * 3, greedy(4))
    engine.step()

    def step() -> None:
        done = Thread(target=engine.step)
        done.start()
        done.join(20)
        assert not done.is_alive()

    monkeypatch.setattr("ferrum.trace.recorder.params_as_json", lambda params: step() or {})
    trace = recorder.recorded(lambda token: step() or SPELL(token))
    assert trace["sequences"][0]["tokens"] == [97] * 4 and recorder.steps == 4


@pytest.mark.clause("TRACE-01")
def test_a_recorder_that_comes_in_the_middle_of_a_step_waits_for_the_next() -> None:
    engine = stub_engine(StubSettings(), letters)

    class Late(EngineObserver):
        """Begins to record when a step is planned."""

        def step_planned(self, plan: StepPlan) -> None:
            if not isinstance(engine.observer, Recorder):
                recorded(engine)

    engine.observer = Late()
    engine.submit([97] * 3, greedy(4))
    run(engine)
    assert isinstance(engine.observer, Recorder)
    trace = whole(engine.observer)
    assert [step["step"] for step in trace["steps"]] == [1, 2, 3]
    assert [sequence["finish_reason"] for sequence in trace["sequences"]] == ["length"]


@pytest.mark.clause("TRACE-04")
def test_evicted_blocks_go_to_the_host_and_come_back() -> None:
    engine = stub_engine(StubSettings(blocks=4, host_blocks=6, block_size=2, max_num_seqs=1), letters)
    recorder = recorded(engine)
    for letter in (97, 98, 97):
        engine.submit([letter] * 7, greedy(1))
        run(engine)
    trace = whole(recorder)
    check_recorded(trace, 2)
    counters = engine.scheduler.manager.counters()
    for kind in ("evicted", "demoted", "promoted"):
        assert sum(len(event["blocks"]) for event in events(trace, kind)) == getattr(counters, kind) > 0
    assert [event["source"] for event in events(trace, "admitted")] == ["nothing", "nothing", "prefix"]


@pytest.mark.clause("TRACE-03")
def test_reading_a_trace_while_steps_go_on_gives_its_beginning() -> None:
    engine = stub_engine(StubSettings(), letters)
    recorder = recorded(engine)
    engine.submit([97] * 3, greedy(4))
    seen: list[Sequence[Any]] = []
    while engine.has_work:
        engine.step()
        seen.append(recorder.recorded(SPELL)["steps"])
    assert [len(steps) for steps in seen] == [1, 2, 3, 4]
    assert all(steps == seen[-1][: len(steps)] for steps in seen)

"""ENGINE-46, -47, -48: threads that share an engine take turns, and a request that fails fails alone."""

from __future__ import annotations

import gc
import signal
import threading
import time
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams, StructuredOutputs
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.engine import llm as llm_module
from ferrum.engine.engine import Engine
from ferrum.engine.observer import EngineObserver
from ferrum.engine.statistics import EngineStats
from ferrum.engine.thread import EngineThread
from ferrum.errors import InvalidParameter, ModelError, SchedulerError
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.testing.life import letters
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import FinishReason
from tests.engine.pairs import GREEDY, SAMPLED, TEXT, Calls, make, together, wrong
from tests.tiny import TinyModel, tiny_config, tiny_params


@pytest.mark.clause("ENGINE-46")
@pytest.mark.parametrize("backend", ["numba", "numpy"])
def test_every_pair_of_calls_has_the_answers_it_has_alone(backend: str) -> None:
    assert wrong(3, backend) == []


@pytest.mark.clause("ENGINE-46")
def test_a_crowd_of_threads(tmp_path: Path) -> None:
    calls = Calls(make(), tmp_path)
    names = calls.names()
    alone = {name: repr(getattr(calls, name)()) for name in names}
    results = together([getattr(calls, name) for name in names * 2], 5)
    for name, answers in zip(names * 2, results, strict=True):
        assert [repr(answer) for answer in answers] == [alone[name]] * 5, name
    assert not calls.llm.engine.has_work and not calls.llm.stats().device.held


@pytest.mark.clause("ENGINE-46")
def test_models_that_share_a_backend_take_turns_too() -> None:
    ops = load_backend("numba", threads=2)
    config = tiny_config(hidden_size=128, intermediate_size=256, head_dim=32, max_positions=256)
    llms = [
        LLM.from_loaded(
            TinyModel(config, tiny_params(config, seed), ByteTokenizer()), ops, EngineConfig(kv_memory=1 << 22)
        )
        for seed in range(3)
    ]
    alone = [llm.generate([TEXT], GREEDY)[0].token_ids for llm in llms]
    found = together([lambda llm=llm: llm.generate([TEXT], GREEDY)[0].token_ids for llm in llms], 20)
    assert found == [[answer] * 20 for answer in alone]


@pytest.mark.clause("ENGINE-46")
def test_a_newcomer_is_not_kept_waiting_by_a_long_answer() -> None:
    llm = make(threads=1)
    steps: list[str] = []

    def long() -> None:
        for _ in llm.stream(TEXT, replace(GREEDY, max_tokens=200)):
            steps.append("long")

    thread = threading.Thread(target=long)
    thread.start()
    while len(steps) < 5:
        time.sleep(0.001)
    for _ in llm.stream(TEXT[1:], replace(GREEDY, max_tokens=10)):
        steps.append("short")
    thread.join()
    assert steps.count("long") == 200 and steps.count("short") == 10
    last = len(steps) - 1 - steps[::-1].index("short")
    assert steps[:last].count("long") < 150  # it had its turns in between


class Calling(EngineObserver):
    """An observer that makes a call itself when the first token of a request comes."""

    def __init__(self) -> None:
        self.call: Any = None
        self.outcomes: list[Any] = []

    def first_token(self, ttft_s: float) -> None:
        if self.call is not None:
            try:
                self.outcomes.append(self.call())
            except Exception as error:
                self.outcomes.append(error)


@pytest.mark.clause("ENGINE-46")
def test_a_call_from_within_a_step_is_refused_and_breaks_nothing(tmp_path: Path) -> None:
    llm = make()
    calls = Calls(llm, tmp_path)
    expected, observer = calls.generate(), Calling()
    llm.engine.observer = observer
    for name in calls.names():
        observer.outcomes, observer.call = [], getattr(calls, name)
        assert calls.generate() == expected
        kinds = {type(outcome) for outcome in observer.outcomes}
        assert kinds == ({int} if name == "stats" else {SchedulerError}), name
    observer.call = None
    assert calls.generate() == expected and not llm.stats().device.held


@pytest.mark.clause("ENGINE-46", "ENGINE-33")
def test_an_engine_of_a_thread_refuses_others_but_for_statistics(tmp_path: Path) -> None:
    llm = make()
    calls = Calls(llm, tmp_path)
    expected = calls.generate()
    with EngineThread(llm.engine) as thread:
        ticket = thread.submit(TEXT, replace(GREEDY, max_tokens=100))
        for name in calls.names():
            if name == "stats":
                assert calls.stats() == llm.scheduler.manager.device.total
                continue
            with pytest.raises(SchedulerError, match="EngineThread"):
                getattr(calls, name)()
        assert len(ticket.result().token_ids) == 100
    assert calls.generate() == expected


@pytest.mark.clause("ENGINE-46", "ENGINE-21")
def test_streams_that_the_collector_drops_in_the_middle_of_a_step_are_cancelled() -> None:
    engine = stub_engine(StubSettings(), letters)
    endless = SamplingParams(max_tokens=20, ignore_eos=True)  # a stop by chance would come before the collector
    left = [engine.submit([97 + number], endless) for number in range(4)]

    class Dropping(EngineObserver):
        def next_token(self, seconds: float) -> None:
            if left:
                engine.cancel(left.pop())
                gc.collect()

    engine.observer = Dropping()
    kept = engine.submit([97], SamplingParams(temperature=0, max_tokens=10, ignore_eos=True))
    requests = list(left)
    while not kept.finished:
        engine.step()
    assert {request.completion().finish_reason for request in requests} == {FinishReason.CANCELLED}
    assert kept.completion().finish_reason is FinishReason.LENGTH and not engine.has_work


def damaged(rows: list[int], value: float) -> LLM:
    """A model in which the embeddings of these tokens are `value`."""
    config = replace(tiny_config(max_positions=256), eos_token_ids=())
    params = tiny_params(config)
    params.embedding.table.data[rows] = value
    model = TinyModel(config, params, ByteTokenizer())
    return LLM.from_loaded(model, load_backend("numpy"), EngineConfig(kv_memory=1 << 22, max_num_batched_tokens=64))


# a product with an infinite embedding is NaN on purpose; NumPy warns of it, the engine reports it
@pytest.mark.filterwarnings("ignore:invalid value encountered in multiply:RuntimeWarning")
@pytest.mark.clause("ENGINE-47", "ENGINE-48")
@pytest.mark.parametrize("value", [np.nan, np.inf])
@pytest.mark.parametrize(
    "params", [GREEDY, SAMPLED, replace(GREEDY, prompt_logprobs=1), replace(GREEDY, logprobs=-1, n=2)]
)
def test_a_row_that_is_no_number_ends_its_own_request(value: float, params: SamplingParams) -> None:
    params = replace(params, logit_bias={200: -100.0, 201: -100.0})  # no sequence samples them by chance
    healthy, bad = damaged([], 0.0), damaged([200, 201], value)
    prompts = [TEXT[:9], [5, 200, 7], TEXT[9:20], [201, *TEXT[:20]], TEXT[20:]]
    expected = healthy.generate(prompts, params)
    answers = bad.generate(prompts, params)
    for index, (answer, right) in enumerate(zip(answers, expected, strict=True)):
        if index in (1, 3):
            assert answer.finish_reason is FinishReason.ERROR and isinstance(answer.error, ModelError)
        else:
            assert answer.error is None and answer.token_ids == right.token_ids
    assert not bad.engine.has_work and not bad.stats().device.held
    with pytest.raises(ModelError, match="damaged weights"):
        bad.generate([[5, 200, 7]], params)  # no other prompt is in the call
    with pytest.raises(ModelError, match="not all finite"):
        bad.logits([5, 200, 7])
    stream = bad.stream([5, 200, 7], replace(params, n=1))
    assert list(stream) == [] and isinstance(stream.error, ModelError)


@pytest.mark.clause("ENGINE-46")
def test_two_threads_that_fill_the_queue_wait_for_each_other() -> None:
    llm = LLM.from_loaded(
        TinyModel(tiny_config(), tiny_params(tiny_config()), ByteTokenizer()),
        load_backend("numpy"),
        EngineConfig(kv_memory=1 << 20, max_num_seqs=2, max_waiting=3),
    )
    prompts = [[number, 1, 2] for number in range(12)]
    params = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    expected = [each.token_ids for each in llm.generate(prompts, params)]
    found = together([lambda: [each.token_ids for each in llm.generate(prompts, params)]] * 3, 2)
    assert found == [[expected] * 2] * 3


@pytest.mark.clause("ENGINE-46")
@pytest.mark.skipif(not hasattr(signal, "setitimer"), reason="needs a timer")
def test_a_signal_handler_that_comes_while_its_thread_waits_is_answered() -> None:
    llm = make(threads=1)
    expected = llm.generate([TEXT], GREEDY)[0].token_ids
    found: list[Any] = []

    def handler(*_: object) -> None:
        for call in (llm.stats, lambda: llm.generate([TEXT], GREEDY)[0].token_ids):
            try:
                found.append(call())
            except SchedulerError as error:
                found.append(error)

    before = signal.signal(signal.SIGALRM, handler)
    busy = threading.Thread(target=lambda: llm.generate([TEXT] * 4, replace(GREEDY, max_tokens=150)))
    busy.start()
    try:
        signal.setitimer(signal.ITIMER_REAL, 0.02, 0.02)
        while busy.is_alive():
            assert llm.generate([TEXT], GREEDY)[0].token_ids == expected
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        busy.join()
    assert found and all(isinstance(each, (SchedulerError, EngineStats)) or each == expected for each in found)
    assert llm.generate([TEXT], GREEDY)[0].token_ids == expected and not llm.stats().device.held


@pytest.mark.clause("ENGINE-46", "ENGINE-33")
def test_an_engine_has_one_thread() -> None:
    engine = stub_engine(StubSettings(), letters)
    with EngineThread(engine) as first:
        deadline = time.monotonic() + 60
        while engine._owner is None and time.monotonic() < deadline:
            time.sleep(0.001)
        with pytest.raises(SchedulerError, match="EngineThread"):
            EngineThread(engine)
        assert first.submit([97], SamplingParams(max_tokens=2, ignore_eos=True)).result(60).token_ids
    with EngineThread(engine):
        pass


@pytest.mark.clause("SEC-06", "KV-35")
@pytest.mark.parametrize("path", [None, 5, 1.5, [], object(), b"bytes", {"a": 1}])
def test_what_is_no_path_is_refused(path: Any) -> None:
    llm = make()
    for call in (lambda: llm.load_prefix(path), lambda: llm.save_prefix(TEXT, path)):
        with pytest.raises(InvalidParameter, match="path must be a path"):
            call()


@pytest.mark.clause("ENGINE-12")
def test_grammars_are_made_in_the_thread_that_asks() -> None:
    llm, makers = make(), list[int]()
    engine = llm.engine
    maker = engine._grammars
    assert maker is not None

    def recording(structure: StructuredOutputs) -> Any:
        makers.append(threading.get_ident())
        return maker(structure)

    engine._grammars = recording
    params = SamplingParams(n=3, max_tokens=5, structured_outputs=StructuredOutputs(regex="[ab]+"))
    with EngineThread(llm.engine) as thread:
        assert len(thread.submit(TEXT, params).result(60).choices) == 3
    assert makers == [threading.get_ident()] * 3


@pytest.mark.clause("ENGINE-46", "ENGINE-33")
def test_of_many_threads_that_want_an_engine_one_has_it() -> None:
    for _ in range(5):
        engine = stub_engine(StubSettings(), letters)
        with engine.turn():  # they all come while another thread has the turn
            made: list[list[Any]] = []

            def crowd(engine: Engine = engine, made: list[list[Any]] = made) -> None:
                made.extend(together([lambda: EngineThread(engine)] * 6))

            waiting = threading.Thread(target=crowd)
            waiting.start()
            time.sleep(0.05)
        waiting.join()
        kept = [each for (each,) in made if isinstance(each, EngineThread)]
        assert len(kept) == 1 and all(isinstance(each, (EngineThread, SchedulerError)) for (each,) in made)
        ticket = kept[0].submit([97], SamplingParams(max_tokens=2, ignore_eos=True))
        assert len(ticket.result(60).token_ids) == 2
        kept[0].close()


@pytest.mark.clause("ENGINE-46", "ENGINE-21")
@pytest.mark.parametrize("name", ["logits", "load_prefix", "save_prefix"])
def test_what_is_cancelled_during_a_turn_ends_with_it(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls(make(), tmp_path)
    stream = calls.llm.stream(TEXT[3:], GREEDY)
    next(stream)
    function = "score" if name == "logits" else name
    original = getattr(llm_module, function)

    def closing(*arguments: Any) -> Any:
        together([stream.close])  # by another thread, in the middle
        return original(*arguments)

    monkeypatch.setattr(llm_module, function, closing)
    getattr(calls, name)()
    assert stream.completion().finish_reason is FinishReason.CANCELLED
    assert not calls.llm.engine.has_work and not calls.llm.scheduler.manager.device.held


@pytest.mark.clause("ENGINE-46")
def test_a_cancellation_by_another_thread_waits_for_the_owner() -> None:
    engine = stub_engine(StubSettings(), letters)
    request = engine.submit([97], SamplingParams(temperature=0))
    owner = threading.Thread(target=engine.claim)
    owner.start()
    owner.join()
    engine.cancel(request)
    assert not request.finished
    engine.release()
    engine.settle()
    assert request.finished and not engine.has_work


@pytest.mark.clause("ENGINE-34")
def test_news_are_those_of_the_last_step() -> None:
    """A program that never reads the news keeps no finished request in memory."""
    engine = stub_engine(StubSettings(), letters)
    for prompt in ([97], [98]):
        request = engine.submit(prompt, SamplingParams(temperature=0, max_tokens=2))
        while not request.finished:
            engine.step()
    assert engine.take_news() == [request]

"""ENGINE-70 to ENGINE-74: vectors of texts, on a random model small enough to check by hand."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.typing import NDArray

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.embedder import Embedder
from ferrum.engine.embedding import EmbeddingJob, EmbeddingOptions, encode_cut
from ferrum.engine.thread import EngineThread
from ferrum.errors import Cancelled, FerrumError, InvalidParameter, ModelError, RequestValidation, ResourceExhausted
from ferrum.testing.build import StubSettings, stub_engine
from ferrum.text.byte_tokenizer import EOS, ByteTokenizer
from ferrum.types import Pooling
from tests.tiny import TinyModel, dense_vectors, tiny_config, tiny_params

CONFIG, PARAMS = tiny_config(), tiny_params(tiny_config())
PATIENCE = 30.0
TEXTS = st.lists(st.lists(st.integers(0, 255), min_size=1, max_size=40), min_size=1, max_size=5)


BEGINNING = 0


class FramingTokenizer(ByteTokenizer):
    """A tokenizer that puts one special token before every text and two behind it."""

    def encode(self, text: str, *, add_special_tokens: bool) -> list[int]:
        own = super().encode(text, add_special_tokens=add_special_tokens)
        return [BEGINNING, *own, EOS, EOS] if add_special_tokens else own


def tiny_llm(deterministic: bool = False, dtype: str = "float64", **engine: Any) -> LLM:
    model = TinyModel(CONFIG, PARAMS, FramingTokenizer())
    ops = NumpyOps(dtype, deterministic=deterministic)
    return LLM.from_loaded(model, ops, EngineConfig(deterministic=deterministic, **engine))


def expected(token_ids: list[int], pooling: str) -> NDArray[np.float64]:
    """The oracle: the pooled hidden states of `dense_logits`'s plain model."""
    rows = dense_vectors(CONFIG, PARAMS, token_ids)
    return {"mean": rows.mean(0), "last": rows[-1], "cls": rows[0]}[pooling]


def held(llm: LLM) -> int:
    return llm.stats().device.held


@pytest.mark.clause("ENGINE-70", "ENGINE-71")
@settings(deadline=None, max_examples=25)
@given(TEXTS, st.sampled_from(["mean", "last", "cls"]), st.sampled_from([1, 3, 7, 64]), st.sampled_from([1, 4, 16]))
def test_a_vector_is_that_of_the_textbook_model(texts: list[list[int]], pooling: str, step: int, block: int) -> None:
    llm = tiny_llm(max_num_batched_tokens=step, block_size=block)
    found = llm.embed(texts, pooling=pooling, normalize=False)
    for one, token_ids in zip(found, texts, strict=True):
        assert one.vector.dtype == np.float32 and one.prompt_tokens == len(token_ids)
        np.testing.assert_allclose(one.vector, expected(token_ids, pooling), atol=1e-6, rtol=1e-5)
    assert not held(llm)


@pytest.mark.clause("ENGINE-71")
@settings(deadline=None, max_examples=15)
@given(TEXTS, st.sampled_from(["mean", "last", "cls"]), st.sampled_from([1, 5, 64]), st.randoms(use_true_random=False))
def test_deterministic_vectors_know_nothing_of_each_other(
    texts: list[list[int]], pooling: str, step: int, random: Any
) -> None:
    alone = [tiny_llm(True, "float32").embed(text, pooling=pooling)[0].vector for text in texts]
    order = list(range(len(texts)))
    random.shuffle(order)
    llm = tiny_llm(True, "float32", max_num_batched_tokens=step, block_size=3)
    for place, one in zip(order, llm.embed([texts[place] for place in order], pooling=pooling), strict=True):
        np.testing.assert_array_equal(one.vector, alone[place])


@pytest.mark.clause("ENGINE-70")
def test_auto_is_the_last_token_and_texts_go_through_the_tokenizer() -> None:
    llm = tiny_llm()
    (found,) = llm.embed("ab", normalize=False)
    np.testing.assert_allclose(found.vector, expected([BEGINNING, 97, 98, EOS, EOS], "last"), rtol=1e-5)
    assert found.prompt_tokens == 5
    (again, other) = llm.embed(["ab", np.array([1, 2])], normalize=False)  # type: ignore[list-item]
    np.testing.assert_array_equal(again.vector, found.vector)
    assert other.prompt_tokens == 2 and llm.embed([]) == []


@pytest.mark.clause("ENGINE-72")
def test_cut_first_and_then_normalised() -> None:
    llm = tiny_llm()
    whole = llm.embed([[1, 2, 3]], normalize=False)[0].vector
    for dimensions in (1, 7, 24, None):
        kept = whole[:dimensions]
        (plain,) = llm.embed([[1, 2, 3]], normalize=False, dimensions=dimensions)
        (unit,) = llm.embed([[1, 2, 3]], dimensions=dimensions)
        np.testing.assert_array_equal(plain.vector, kept)
        np.testing.assert_allclose(unit.vector, kept / np.linalg.norm(kept), rtol=1e-5)
    zeros = EmbeddingJob([[1]], EmbeddingOptions(Pooling.LAST))
    zeros.pooled[0] = np.zeros(3)
    assert zeros.result()[0].vector.tolist() == [0, 0, 0]


@pytest.mark.clause("ENGINE-72")
@pytest.mark.parametrize(
    ("changes", "name"),
    [
        ({"pooling": "max"}, "pooling"),
        ({"pooling": 3}, "pooling"),
        ({"dimensions": 0}, "dimensions"),
        ({"dimensions": 25}, "dimensions"),
        ({"dimensions": 2.5}, "dimensions"),
        ({"normalize": 1}, "normalize"),
        ({"truncate": "yes"}, "truncate"),
    ],
)
def test_a_value_that_cannot_be_is_named(changes: dict[str, Any], name: str) -> None:
    with pytest.raises(InvalidParameter) as raised:
        tiny_llm().embed([[1]], **changes)
    assert raised.value.field == name


@pytest.mark.clause("ENGINE-72")
@pytest.mark.parametrize("bad", [[], [257], [-1], [1] * 65, "x" * 62])
def test_one_bad_input_refuses_the_call_before_anything_is_computed(bad: Any) -> None:
    llm = tiny_llm()
    llm.runner.vectors = lambda plan: pytest.fail("something was computed")  # type: ignore[method-assign]
    with pytest.raises(RequestValidation):
        llm.embed([[1, 2], bad])
    assert len(tiny_llm().embed([[1] * 64])) == 1  # a full context


@pytest.mark.clause("ENGINE-72")
def test_a_cut_text_keeps_what_belongs_around_it() -> None:
    llm = tiny_llm()
    long, fitting = llm.embed(["a" * 100, "a" * 61], truncate=True)
    np.testing.assert_array_equal(long.vector, fitting.vector)
    assert long.prompt_tokens == fitting.prompt_tokens == 64
    assert llm.embed([[1] * 100], truncate=True)[0].prompt_tokens == 64
    for longest in range(1, 12):
        kept = encode_cut(FramingTokenizer(), "abcdef", longest)
        assert kept == [BEGINNING, *list(b"abcdef")[: max(0, longest - 3)], EOS, EOS][:longest]


def interrupted(llm: LLM, error: type[BaseException]) -> None:
    """Embeds texts while the second step raises `error`, and checks that the call raises it."""
    original, calls = llm.runner.vectors, iter([False, True, False])

    def vectors(plan: Any) -> Any:
        if next(calls):
            raise error("broken")
        return original(plan)

    llm.runner.vectors = vectors  # type: ignore[method-assign]
    with pytest.raises(error):
        llm.embed([[1] * 20, [2] * 20])
    llm.runner.vectors = original  # type: ignore[method-assign]


@pytest.mark.clause("ENGINE-73")
@pytest.mark.parametrize("error", [KeyboardInterrupt, ModelError])
def test_a_failed_step_frees_everything(error: type[BaseException]) -> None:
    llm = tiny_llm(max_num_batched_tokens=8)
    before = llm.embed([[1] * 20])[0].vector
    interrupted(llm, error)
    assert not held(llm)
    np.testing.assert_array_equal(llm.embed([[1] * 20])[0].vector, before)


@pytest.mark.clause("ENGINE-73")
def test_memory_that_others_hold_is_told() -> None:
    llm = tiny_llm(block_size=4, kv_memory=tiny_memory(blocks=8))
    stream = llm.stream([1] * 20, SamplingParams(max_tokens=5, ignore_eos=True))
    next(stream)
    with pytest.raises(ResourceExhausted, match="blocks"):
        llm.embed([[1] * 20])
    stream.close()
    assert llm.embed([[1] * 20])[0].prompt_tokens == 20 and not held(llm)


def tiny_memory(blocks: int) -> int:
    from ferrum.kv.storage import block_bytes

    return blocks * block_bytes(CONFIG, 4, "float64")


@pytest.mark.clause("ENGINE-73")
def test_a_number_that_is_not_finite_fails_its_own_job() -> None:
    engine = stub_engine(StubSettings())
    original = engine.executor.vectors
    engine.executor.vectors = lambda plan: original(plan) * np.array([[np.nan], [1]])  # type: ignore[method-assign]
    embedder = Embedder(engine.executor, engine.scheduler)
    jobs = [EmbeddingJob([[1]], EmbeddingOptions(Pooling.LAST)) for _ in range(2)]
    for job in jobs:
        embedder.add(job)
    assert embedder.step() and not embedder.step()
    assert jobs[1].result()[0].vector.max() == 1
    with pytest.raises(ModelError, match="finite"):
        jobs[0].result()
    assert not engine.scheduler.manager.device.held


@pytest.mark.clause("ENGINE-73")
@pytest.mark.parametrize("when", range(1, 5))
@pytest.mark.parametrize("withdrawn", [False, True])
def test_a_text_begins_again_after_all_blocks_were_freed(when: int, withdrawn: bool) -> None:
    engine = stub_engine(StubSettings(blocks=8, max_num_batched_tokens=6))
    manager = engine.scheduler.manager
    embedder = Embedder(engine.executor, engine.scheduler)
    job = EmbeddingJob([list(range(1, 14)), [1, 2, 3], [7] * 9], EmbeddingOptions(Pooling.MEAN))
    embedder.add(job)
    for _ in range(when):
        embedder.step()
    engine.scheduler.reset()
    others = manager.new_table()
    manager.reserve(others, 0, 12)  # its blocks belong to other sequences now
    manager.store.device[others.blocks] = 99  # type: ignore[attr-defined]
    if withdrawn:
        embedder.cancel([job], Cancelled("withdrawn"))
    while embedder.step():
        pass
    assert job.finished and manager.device.held == len(others.blocks)
    assert (manager.store.device[others.blocks] == 99).all()  # type: ignore[attr-defined]
    if not withdrawn or job.error is None:
        assert all(each.vector.sum() == pytest.approx(1) for each in final_sums(job))


def final_sums(job: EmbeddingJob) -> list[Any]:
    """The mean vectors of a job, not normalised. A stub's row is 1 for one token and 0 for all others, so the numbers
    of each mean add up to 1."""
    plain = EmbeddingJob(job.texts, EmbeddingOptions(Pooling.MEAN, normalize=False))
    plain.pooled = job.pooled
    return plain.result()


# ---- in a thread of its own
ENDLESS = SamplingParams(temperature=0, max_tokens=40, ignore_eos=True)


def job_of(*texts: list[int], pooling: Pooling = Pooling.MEAN) -> EmbeddingJob:
    return EmbeddingJob(texts, EmbeddingOptions(pooling))


@pytest.mark.clause("ENGINE-74")
def test_vectors_and_answers_share_the_engine() -> None:
    engine = stub_engine(StubSettings(blocks=40, max_num_batched_tokens=8))
    texts = [[number % 50 + 1] * (number % 30 + 1) for number in range(60)]
    expected_jobs = [job_of(text) for text in texts]
    alone = Embedder(engine.executor, engine.scheduler)
    for job in expected_jobs:
        alone.add(job)
    while alone.step():
        pass
    answer = engine_answer()
    with EngineThread(engine) as thread:
        tickets = [thread.submit([5, 6], ENDLESS) for _ in range(4)]
        heard = [threading.Event() for _ in texts]
        jobs = [thread.embed(job_of(text), listener=event.set) for text, event in zip(texts, heard, strict=True)]
        for ticket, event, wanted in zip(jobs, heard, expected_jobs, strict=True):
            assert event.wait(PATIENCE) and ticket.finished
            np.testing.assert_array_equal(ticket.result(PATIENCE)[0].vector, wanted.result()[0].vector)
        assert [ticket.result(PATIENCE).token_ids for ticket in tickets] == [answer] * 4
        assert thread.embed(job_of()).result(PATIENCE) == []
    assert not engine.scheduler.manager.device.held


def engine_answer() -> tuple[int, ...]:
    with EngineThread(stub_engine(StubSettings())) as thread:
        return thread.submit([5, 6], ENDLESS).result(PATIENCE).token_ids


@pytest.mark.clause("ENGINE-74")
def test_a_step_of_vectors_comes_after_each_step_of_answers() -> None:
    engine = stub_engine(StubSettings(max_num_batched_tokens=8))
    order: list[str] = []
    run = engine.executor.run  # vectors of a stub are its logits
    engine.executor.run = noting(order, "run", run)  # type: ignore[method-assign]
    engine.executor.vectors = noting(order, "vectors", run)  # type: ignore[method-assign]
    started = threading.Event()
    with EngineThread(engine) as thread:
        thread.call(lambda: started.wait(PATIENCE) and None)  # both are there before the first step
        ticket = thread.submit([1], SamplingParams(temperature=0, max_tokens=6, ignore_eos=True))
        job = thread.embed(job_of([3] * 48))
        started.set()
        ticket.result(PATIENCE), job.result(PATIENCE)
    assert order == ["run", "vectors"] * 6


def noting(order: list[str], name: str, call: Callable[[Any], Any]) -> Callable[[Any], Any]:
    def noted(plan: Any) -> Any:
        order.append(name)
        return call(plan)

    return noted


@pytest.mark.clause("ENGINE-74")
def test_they_wait_for_memory_that_requests_hold() -> None:
    engine = stub_engine(StubSettings(blocks=15))
    with EngineThread(engine) as thread:
        started = threading.Event()
        thread.call(lambda: started.wait(PATIENCE) and None)  # the request comes first, and holds most of it
        ticket = thread.submit([1] * 40, SamplingParams(temperature=0, max_tokens=15, ignore_eos=True))
        job = thread.embed(job_of([2] * 50))
        started.set()
        assert job.result(PATIENCE)[0].prompt_tokens == 50
        assert len(ticket.result(PATIENCE).token_ids) == 15


@pytest.mark.clause("ENGINE-74")
def test_requests_wait_for_memory_that_a_text_holds(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("ferrum.engine.engine.MOST_IDLE_STEPS", 3)
    engine = stub_engine(StubSettings(blocks=15, max_num_batched_tokens=2))
    with EngineThread(engine) as thread:
        started, borrowed = threading.Event(), threading.Event()
        thread.call(lambda: started.wait(PATIENCE) and None)
        job = thread.embed(job_of([2] * 50))  # 25 steps with 13 of the 15 blocks
        thread.call(lambda: thread.call(borrowed.set))
        started.set()
        assert borrowed.wait(PATIENCE)
        ticket = thread.submit([1] * 40, SamplingParams(temperature=0, max_tokens=5, ignore_eos=True))
        assert len(ticket.result(PATIENCE).token_ids) == 5
        assert job.result(PATIENCE)[0].prompt_tokens == 50


@pytest.mark.clause("ENGINE-74")
@pytest.mark.parametrize("length", [9, 11, 12])
def test_many_texts_keep_no_request_from_memory(length: int) -> None:
    engine = stub_engine(StubSettings(blocks=8, max_num_batched_tokens=8))
    embedder = Embedder(engine.executor, engine.scheduler)
    jobs = [job_of([2] * length) for _ in range(50)]
    for job in jobs:
        embedder.add(job)
    embedder.step()
    request = engine.submit([1] * 20, SamplingParams(temperature=0, max_tokens=4, ignore_eos=True))
    while not request.finished:
        engine.step()
        embedder.step()
    assert sum(job.finished for job in jobs) < 10


@pytest.mark.clause("ENGINE-74")
def test_what_can_never_be_computed_fails() -> None:
    engine = stub_engine(StubSettings(blocks=2, max_waiting=2))
    with EngineThread(engine) as thread:
        with pytest.raises(ResourceExhausted):
            thread.embed(job_of([2] * 50)).result(PATIENCE)
        engine.executor.vectors = lambda plan: 1 / 0  # type: ignore[method-assign]
        with pytest.raises(FerrumError, match="ZeroDivisionError"):
            thread.embed(job_of([2])).result(PATIENCE)
        assert len(thread.submit([1], SamplingParams(max_tokens=2, ignore_eos=True)).result(PATIENCE).token_ids) == 2


@pytest.mark.clause("ENGINE-74")
def test_a_withdrawn_job_ends_and_so_do_all_at_the_close() -> None:
    engine = stub_engine(StubSettings(max_num_batched_tokens=1, max_waiting=3))
    gate = threading.Event()
    thread = EngineThread(engine)
    thread.call(lambda: gate.wait(PATIENCE) and None)
    first, second, _ = (thread.embed(job_of([2] * 30)) for _ in range(3))
    with pytest.raises(ResourceExhausted, match="queue is full"):
        thread.embed(job_of([2]))
    with pytest.raises(TimeoutError):
        first.result(0)
    first.cancel()
    gate.set()
    with pytest.raises(Cancelled, match="withdrawn"):
        first.result(PATIENCE)
    first.cancel()
    assert second.result(PATIENCE)[0].prompt_tokens == 30
    failing = thread.embed(job_of([2] * 30), listener=lambda: 1 / 0)  # type: ignore[arg-type,return-value]
    other = thread.embed(job_of([2] * 30))
    assert failing.result(PATIENCE) and other.result(PATIENCE)
    gate.clear()
    thread.call(lambda: gate.wait(PATIENCE) and None)
    left = thread.embed(job_of([2] * 30))
    closing = threading.Thread(target=thread.close)
    closing.start()
    gate.set()
    closing.join(PATIENCE)
    with pytest.raises(Cancelled):
        left.result(PATIENCE)
    with pytest.raises(Cancelled):
        thread.embed(job_of([1]))
    assert not engine.scheduler.manager.device.held

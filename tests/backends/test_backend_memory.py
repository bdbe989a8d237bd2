"""OPS-56, -57: a backend frees what it keeps of a model when the model is freed, and works with the threads it gets."""

from __future__ import annotations

import gc
import threading
import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numba_kernels.launching import team
from ferrum.backends.numba_kernels.launching.operand_words import Remembered
from ferrum.backends.numpy_backend import NumbaOps
from ferrum.backends.registry import load_backend
from ferrum.config import EngineConfig
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.parts import Norm
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params

CONFIG = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)
PARAMS = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)


def use(ops: TensorOps, seed: int, fresh: bool = True, loaded: list[TinyModel] = []) -> weakref.ref[Any]:  # noqa: B006
    """Makes a model, lets it answer, and drops it. Returns an object of the model."""
    if fresh or not loaded:
        loaded[:] = [TinyModel(CONFIG, tiny_params(CONFIG, seed), ByteTokenizer())]
    llm = LLM.from_loaded(loaded[0], ops, EngineConfig(kv_memory=1 << 18))
    llm.generate([[1, 2, 3, 4, 5]], PARAMS)
    llm.logits([1, 2, 3])
    if fresh:
        loaded.clear()
    return weakref.ref(llm.runner)


@pytest.mark.clause("OPS-56")
@pytest.mark.parametrize("backend", ["numba", "numpy"])
@pytest.mark.parametrize("fresh", [True, False], ids=["many models", "one model again and again"])
def test_200_models_come_and_go(backend: str, fresh: bool) -> None:
    ops = load_backend(backend, threads=1) if backend == "numba" else load_backend(backend)
    for seed in range(20):
        use(ops, seed, fresh)
    tracemalloc.start()
    try:
        grown = [growth(ops, range(start, start + 100), fresh) for start in (0, 100)]
    finally:
        tracemalloc.stop()
    # the smaller: once in a while the interpreter moves a table of its own, whose old memory was not counted
    assert min(objects for objects, _ in grown) < 100  # fewer than one for each model
    assert min(size for _, size in grown) < 100 << 10  # a model has 300 KiB


def growth(ops: TensorOps, seeds: range, fresh: bool) -> tuple[int, int]:
    """The numbers of objects and of bytes that these models leave behind."""
    gc.collect()
    objects, (size, _) = len(gc.get_objects()), tracemalloc.get_traced_memory()
    for seed in seeds:
        use(ops, seed, fresh)
    gc.collect()
    return len(gc.get_objects()) - objects, tracemalloc.get_traced_memory()[0] - size


@pytest.mark.clause("OPS-56")
def test_a_model_is_gone_at_once() -> None:
    """The memory is free before the garbage collector runs: weights may be gigabytes."""
    ops = load_backend("numba", threads=1)
    use(ops, 0)
    gc.collect()
    gc.disable()
    try:
        assert use(ops, 1)() is None
    finally:
        gc.enable()


@pytest.mark.clause("OPS-56")
def test_what_is_remembered_ends_with_any_of_its_objects() -> None:
    calls: list[tuple[int, ...]] = []

    def sizes(*arrays: np.ndarray) -> tuple[int, ...]:
        calls.append(tuple(map(len, arrays)))
        return calls[-1]

    remembered = Remembered(sizes)
    first, second = np.zeros(1), np.zeros(2)
    assert [remembered(first, second), remembered(first, second), remembered(first)] == [(1, 2), (1, 2), (1,)]
    assert calls == [(1, 2), (1,)]
    del second
    assert len(remembered._known) == 1
    for length in range(3, 50):  # new objects where old ones were
        assert remembered(first, np.zeros(length)) == (1, length)
    del first
    assert remembered._known == {}


@pytest.mark.clause("OPS-57")
def test_threads_that_cannot_be_started_are_done_without(monkeypatch: pytest.MonkeyPatch) -> None:
    x = np.ones((128, 512), np.float32)
    expected = NumbaOps(1).normed(x, Norm(x[0].copy(), 0.0))

    class NoThread(threading.Thread):
        def start(self) -> None:
            raise RuntimeError("can't start new thread")

    monkeypatch.setattr(team, "_teams", {})
    monkeypatch.setattr(team.threading, "Thread", NoThread)
    assert np.array_equal(NumbaOps(2).normed(x, Norm(x[0].copy(), 0.0)), expected)
    assert [len(made._wake) for made in team._teams.values()] == [0]

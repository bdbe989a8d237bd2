"""CUDA-50 to CUDA-53: decode steps captured as graphs, on a device that poisons whatever a graph does not own."""

from __future__ import annotations

import gc
import weakref
from dataclasses import replace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from ferrum.backends.cuda.device import NotCapturable
from ferrum.backends.cuda.graphs import ALIGNMENT, Arena
from ferrum.backends.cuda.steps import batch_of_graph, fill
from ferrum.backends.cupy_backend import FEW_DECODED, CupyOps
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.llm import LLM
from ferrum.engine.runner import ForwardPass
from ferrum.kv.storage import KvStorage
from ferrum.model.params import mapped
from ferrum.model.rope import rotations
from ferrum.sampling_params import SamplingParams
from ferrum.tensor.batch import StepBatch
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor, host_dtype
from ferrum.tensor.weights import Dense
from ferrum.testing.cuda_shim.device import ShimDevice
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import DecodeSteps
from tests.cuda.shim import device_at
from tests.engine.test_strict_backend import tiny_llm
from tests.tiny import TinyModel, tiny_config, tiny_params

CONFIG = tiny_config()
BLOCK_SIZE, BLOCKS = 4, 40


class World:
    """A tiny model with its memory, filled with numbers, on a backend."""

    def __init__(self, ops: TensorOps, seed: int) -> None:
        self.ops = ops
        params = tiny_params(CONFIG).to(ops)
        storage = KvStorage(ops, CONFIG, BLOCKS, BLOCK_SIZE, "float32")
        random = np.random.default_rng(seed)
        for layer in storage.layers:
            for array in (layer.keys, layer.values):
                array[...] = random.standard_normal(array.shape).astype(np.float32)
        self.layers = storage.layers
        self.step = ForwardPass(params, rotations(ops, (layer.rope for layer in params.layers), 64), storage.layers)

    def batch(self, contexts: list[int], seed: int) -> StepBatch:
        """One new token at the end of each context, of blocks that are not shared."""
        random, count = np.random.default_rng(seed), len(contexts)
        tables = random.permutation(BLOCKS)[: count * 6].reshape(count, 6)
        last = np.array(contexts) - 1
        slots = tables[np.arange(count), last // BLOCK_SIZE] * BLOCK_SIZE + last % BLOCK_SIZE
        width = -(-max(contexts) // BLOCK_SIZE)
        every = list(range(count + 1))
        fields = (random.integers(0, 257, count), last, slots, every, contexts, tables[:, :width], every[:-1])
        placed = (self.ops.asarray(np.array(field, np.int32), "int32") for field in fields)
        return StepBatch(*placed, starts=every, contexts=contexts)

    def run(self, contexts: list[int], seed: int, *, eagerly: bool = False) -> np.ndarray:
        batch = self.batch(contexts, seed)
        return np.array(self.step(self.ops, batch) if eagerly else self.ops.run_step(self.step, batch))

    def memory(self) -> list[np.ndarray]:
        return [np.array(array) for layer in self.layers for array in (layer.keys, layer.values)]


@pytest.mark.clause("CUDA-52", "CUDA-53")
@settings(deadline=None)
@given(data=st.data(), seed=st.integers(0, 99))
def test_a_replay_is_the_step(data: st.DataObject, seed: int) -> None:
    """Several batches one after another, of sizes that share a bucket and of others: logits and pool, bit for bit."""
    replayed, plain = (World(CupyOps(device_at(schedule)), seed) for schedule in (1, 2))
    steps = data.draw(st.lists(st.lists(st.integers(1, 24), min_size=1, max_size=6), min_size=1, max_size=4))
    for number, contexts in enumerate(steps):
        found = replayed.run(contexts, number)
        expected = plain.run(contexts, number, eagerly=True)
        assert found.tobytes() == expected.tobytes()
        for own, other in zip(replayed.memory(), plain.memory(), strict=True):
            assert own.tobytes() == other.tobytes()
    assert replayed.ops.decode_steps(replayed.step) == DecodeSteps(len(steps), len(steps))


@pytest.mark.clause("CUDA-52")
@pytest.mark.parametrize("order", [[2, 0, 1], [1, 1, 0]])
def test_rows_are_wanted_in_any_order(order: list[int]) -> None:
    world = World(CupyOps(device_at(1)), 0)
    batch = world.batch([3, 9, 5], 1)
    batch = replace(batch, logit_rows=world.ops.asarray(np.array(order, np.int32), "int32"))
    found, expected = (np.array(run) for run in (world.ops.run_step(world.step, batch), world.step(world.ops, batch)))
    assert found.tobytes() == expected.tobytes()
    assert world.ops.decode_steps(world.step) == DecodeSteps(1, 1)


@pytest.mark.clause("CUDA-53")
def test_what_a_batch_lacks_stands_for_no_token() -> None:
    device = device_at(1)
    own, batch = batch_of_graph(device, 4, 8), World(CupyOps(device), 0).batch([3, 9], 1)
    for _ in range(2):  # over what was there, too
        fill(device, own, batch)
        for name, absent in (("token_ids", 0), ("positions", 0), ("slots", -1), ("context_lens", 0)):
            assert getattr(own, name).tolist() == [*getattr(batch, name).tolist(), absent, absent]
        assert own.logit_rows.tolist() == [0, 1, 0, 0]
        assert own.block_tables[:2, :3].tolist() == batch.block_tables.tolist()
        assert not own.block_tables[2:].any() and not own.block_tables[:, 3:].any()
        fill(device, own, World(CupyOps(device), 0).batch([5, 6, 7, 8], 2))


@pytest.mark.clause("CUDA-52")
def test_a_result_outlives_the_next_replay() -> None:
    world = World(CupyOps(device_at(1)), 0)
    batch, other = world.batch([3, 9], 1), world.batch([5, 2], 2)
    first = world.ops.run_step(world.step, batch)
    kept = np.array(first)
    world.ops.run_step(world.step, other)
    assert first.tobytes() == kept.tobytes()


@pytest.mark.clause("OPS-56")
def test_a_graph_is_gone_with_its_model() -> None:
    ops = CupyOps(device_at(1))
    world = World(ops, 0)
    world.run([3, 9], 1)
    kept = [weakref.ref(each) for each in (world.step, world.layers[0])]
    assert len(ops._recorded._recordings) == 1
    del world
    gc.collect()
    assert len(ops._recorded._recordings) == 0
    assert [each() for each in kept] == [None, None]


@pytest.mark.clause("CUDA-50")
@pytest.mark.parametrize(("captures", "replayed"), [(False, 0), (True, 3)])
def test_products_of_many_tokens_are_captured_where_the_device_can(captures: bool, replayed: int) -> None:
    world, plain = World(CupyOps(ShimDevice(1, captures)), 0), World(NumpyOps(), 0)
    contexts = [1 + number for number in range(6)] * 2
    world.batch = plain.batch = lambda *_: shared_batch  # type: ignore[method-assign]
    for number in range(3):
        shared_batch = alike(number, contexts)
        found, expected = world.run(contexts, number), plain.run(contexts, number)
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-5)
    counts = world.ops.decode_steps(world.step)
    assert (counts.total, counts.replayed) == (3, replayed)
    assert counts.refusal == (None if captures else "a product of many tokens")


@pytest.mark.clause("CUDA-50")
def test_no_graph_holds_decoded_weights() -> None:
    """It would be a second model in memory. Few tokens read weights as they are stored, and many keep to the step."""

    def halved(leaf: Any) -> Any:
        return Dense(leaf.data.astype(host_dtype("bfloat16"))) if isinstance(leaf, Dense) else leaf

    config = tiny_config()
    params = mapped(tiny_params(config), halved)
    model = TinyModel(config, params, ByteTokenizer())
    greedy = SamplingParams(temperature=0, max_tokens=4, ignore_eos=True)
    for sequences in (FEW_DECODED - 5, FEW_DECODED + 5):
        prompts = [[number, 1, 2] for number in range(sequences)]
        llm, plain = (LLM.from_loaded(model, ops, EngineConfig()) for ops in (CupyOps(ShimDevice(1, True)), NumpyOps()))
        found, expected = ([one.token_ids for one in each.generate(prompts, greedy)] for each in (llm, plain))
        assert found == expected
        counts = llm.stats().decode
        assert counts.total == 3
        assert counts.replayed == (3 if sequences < FEW_DECODED else 0)
    assert "weights that have to be decoded" in str(counts.refusal)


def alike(seed: int, contexts: list[int]) -> StepBatch:
    """Twelve sequences; their blocks are so few that some are shared, and only read."""
    random, count = np.random.default_rng(seed), len(contexts)
    tables = np.arange(count * 2).reshape(count, 2)
    last = np.array(contexts) - 1
    slots = tables[np.arange(count), last // BLOCK_SIZE] * BLOCK_SIZE + last % BLOCK_SIZE
    every = list(range(count + 1))
    fields = (random.integers(0, 257, count), last, slots, every, contexts, tables, every[:-1])
    return StepBatch(*(np.array(field, np.int32) for field in fields), starts=every, contexts=contexts)


class Looking(CupyOps):
    """A backend whose step has an operation that no graph can contain."""

    act = staticmethod(lambda ops, x: ops.to_numpy(x))

    def logits(self, x: Tensor, head: Any) -> Tensor:
        self.act(self, x)
        return super().logits(x, head)


@pytest.mark.clause("CUDA-50")
@pytest.mark.parametrize(
    ("act", "refusal"),
    [
        (lambda ops, x: ops.to_numpy(x), "a copy to the host"),
        (lambda ops, x: ops.asarray([1], "int32"), "a host array"),
        (lambda ops, x: ops.sum(x, 0), "sum, for which there is no kernel"),
        (lambda ops, x: ops.constant(np.random.default_rng().random(), "float32"), "full, for which"),
    ],
)
def test_what_a_graph_cannot_contain_keeps_the_step_as_it_is(act: Any, refusal: str) -> None:
    ops = Looking(device_at(1))
    ops.act = act  # type: ignore[method-assign]
    params = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)
    llm = tiny_llm(ops)
    found = llm.generate([[1, 2, 3]], params)[0].token_ids
    assert found == tiny_llm(NumpyOps()).generate([[1, 2, 3]], params)[0].token_ids
    counts = llm.stats().decode
    assert (counts.total, counts.replayed) == (5, 0)
    assert refusal in str(counts.refusal)
    # and the device works as before
    assert np.array(ops.add(ops.asarray([1.0], "float32"), ops.asarray([2.0], "float32"))).tolist() == [3.0]


@pytest.mark.clause("CUDA-51")
def test_an_arena_hands_out_pieces_that_do_not_overlap_and_ends() -> None:
    arena = Arena(np.zeros(4 * ALIGNMENT, np.uint8))
    first, second = arena.empty((3, 5), "float32"), arena.empty((7,), "bfloat16")
    assert (first.shape, str(first.dtype), second.shape, str(second.dtype)) == ((3, 5), "float32", (7,), "bfloat16")
    assert second.ctypes.data - first.ctypes.data == ALIGNMENT
    arena.empty((2 * ALIGNMENT,), "uint8")
    with pytest.raises(NotCapturable, match="more memory"):
        arena.empty((1,), "uint8")

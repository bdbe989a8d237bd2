"""OPS-66, OPS-67: the engine on tensors that only the backend can read, and the calls of a step to a device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.kv.storage import block_bytes
from ferrum.sample.definition import sample_by_definition
from ferrum.sample.state import SamplingState
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import PRIMITIVES, Tensor
from ferrum.testing.strict import Counts, StrictOps
from ferrum.text.byte_tokenizer import ByteTokenizer
from tests.tiny import TinyModel, tiny_config, tiny_params

GREEDY = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, seed=1)
DRAWN = SamplingParams(temperature=0.9, top_k=30, top_p=0.9, seed=3, max_tokens=8, ignore_eos=True)
LONG = SamplingParams(temperature=0, max_tokens=24, ignore_eos=True, seed=1)
TEXT = list(range(65, 65 + 20))


def tiny_llm(ops: TensorOps, layers: int = 2, **engine: Any) -> LLM:
    config = tiny_config(layers=layers)
    model = TinyModel(config, tiny_params(config), ByteTokenizer())
    return LLM.from_loaded(model, ops, EngineConfig(**{"block_size": 4, **engine}))


def generated(llm: LLM, prompts: list[list[int]], params: SamplingParams | list[SamplingParams]) -> Any:
    return [completion.choices for completion in llm.generate(prompts, params)]


def swapped(llm: LLM) -> Any:
    """Two answers to each of six prompts in memory for two sequences, so that sequences are swapped out and in."""
    found = [generated(llm, [[n, *TEXT] for n in range(6)], LONG) for _ in range(2)]
    counters = llm.stats().kv
    assert counters.swapped_out and counters.swapped_in and counters.demoted and counters.promoted
    return found


def scored(llm: LLM) -> Any:
    params = SamplingParams(temperature=0, max_tokens=4, logprobs=2, prompt_logprobs=3, seed=1)
    return [(one.choices, one.prompt_logprobs) for one in llm.generate([TEXT, TEXT[5:]], params)]


def tokens_of(scores: Any) -> Any:
    """What `scored` returns without the log probabilities: tokens, and the reported tokens with their ranks."""
    choices, prompt = scores
    places = [*(place for choice in choices for place in choice.logprobs), *filter(None, prompt)]
    return [choice.token_ids for choice in choices], [[(token, one.rank) for token, one in p.items()] for p in places]


def saved(llm: LLM, file: Path) -> Any:
    expected = generated(llm, [[*TEXT, 9]], GREEDY)
    assert llm.save_prefix(TEXT, file) == len(TEXT)
    return expected


ONE_BLOCK = block_bytes(tiny_config(), 4, "float32")
SMALL = {"kv_memory": 16 * ONE_BLOCK, "host_kv_memory": 60 * ONE_BLOCK, "max_model_len": 48}
LIVES: dict[str, tuple[Callable[[LLM], Any], dict[str, Any]]] = {
    "greedy": (lambda llm: generated(llm, [TEXT, TEXT[3:]], GREEDY), {}),
    "chunks": (lambda llm: generated(llm, [TEXT, TEXT[3:]], GREEDY), {"max_num_batched_tokens": 7}),
    "drawn": (lambda llm: generated(llm, [TEXT, TEXT[3:]], DRAWN), {}),
    "a mixed batch": (lambda llm: generated(llm, [TEXT, TEXT[3:], TEXT[5:]], [GREEDY, DRAWN, GREEDY]), {}),
    "copies on write": (
        lambda llm: generated(llm, [TEXT[:-1]], SamplingParams(temperature=1.0, seed=1, n=3, max_tokens=8)),
        {},
    ),
    "a prefix found": (lambda llm: [generated(llm, [TEXT], GREEDY) for _ in range(2)], {}),
    "swaps": (swapped, SMALL),
    "half precision": (lambda llm: generated(llm, [TEXT], GREEDY), {"kv_dtype": "float16"}),
    "log probabilities": (scored, {}),
    "penalties": (
        lambda llm: generated(
            llm, [TEXT], SamplingParams(temperature=0.7, seed=2, max_tokens=8, repetition_penalty=1.3, min_p=0.02)
        ),
        {},
    ),
    "logits": (lambda llm: llm.logits(TEXT).tolist(), {}),
}


@pytest.mark.clause("OPS-66")
@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("life", LIVES)
def test_the_engine_touches_no_tensor(life: str, on_host: bool) -> None:
    act, config = LIVES[life]
    plain = NumpyOps(deterministic=True)  # the same bits wherever an array lies
    found, expected = (act(tiny_llm(ops, **config)) for ops in (StrictOps(plain, on_host), plain))
    if life == "log probabilities" and not on_host:  # whose sums have another order
        found, expected = ([tokens_of(each) for each in one] for one in (found, expected))
    assert found == expected


@pytest.mark.clause("OPS-66", "KV-35")
def test_a_prefix_file_touches_no_tensor(tmp_path: Path) -> None:
    file = tmp_path / "prefix.safetensors"
    expected = saved(tiny_llm(StrictOps()), file)
    llm = tiny_llm(NumpyOps())
    assert llm.load_prefix(file) == len(TEXT)
    assert generated(llm, [[*TEXT, 9]], GREEDY) == expected
    saved(llm, file)
    llm = tiny_llm(StrictOps())
    assert llm.load_prefix(file) == len(TEXT)
    assert generated(llm, [[*TEXT, 9]], GREEDY) == expected


@pytest.mark.clause("OPS-66")
def test_the_definition_of_sampling_touches_no_tensor() -> None:
    rows = np.random.default_rng(0).standard_normal((3, 50)).astype(np.float32)

    def act(ops: TensorOps) -> Any:
        params = (GREEDY, DRAWN, SamplingParams(temperature=1, typical_p=0.8, min_p=0.01, presence_penalty=0.5))
        states = [SamplingState(each, 7, [1, 2, 3]) for each in params]
        return ops.to_numpy(sample_by_definition(ops, ops.asarray(rows, "float32"), states)).tolist()

    assert act(StrictOps()) == act(NumpyOps())


# ---- the number of calls in a step


def decode_step(params: list[SamplingParams], on_host: bool, layers: int = 2) -> Counts:
    """The calls of the backend in one decode step. Constants are uploaded and prompts computed before."""
    ops = StrictOps(on_host=on_host)
    llm = tiny_llm(ops, layers)
    for number, each in enumerate(params):
        llm.engine.submit([number, *TEXT], each)
    for _ in range(3):
        llm.engine.step()
    ops.counted()
    llm.engine.step()
    return ops.counted()


BATCHES = {
    "greedy": [GREEDY], "drawn": [DRAWN], "four greedy": [GREEDY] * 4, "four drawn": [DRAWN] * 4,
    "mixed": [GREEDY, DRAWN, GREEDY, DRAWN],
}  # fmt: skip


@pytest.mark.clause("OPS-67")
@pytest.mark.parametrize("on_host", [True, False])
@pytest.mark.parametrize("batch", BATCHES)
def test_a_decode_step_waits_for_its_tokens_only(batch: str, on_host: bool) -> None:
    params = BATCHES[batch]
    two, five = (decode_step(params, on_host, layers) for layers in (2, 5))
    assert two.synchronisations == five.synchronisations == 1
    assert two.uploads == five.uploads <= 2  # a batch, and how tokens are drawn
    there = on_host and DRAWN in params  # then a look at all the logits costs nothing
    assert two.bytes_down == len(params) * (4 * 257 if there else 16)
    assert two.calls["full"] == five.calls["full"] <= 1  # a column that draws begin with


@pytest.mark.clause("OPS-67")
def test_prompts_that_are_scored_cost_one_wait_a_step() -> None:
    ops = StrictOps()
    llm = tiny_llm(ops)
    params = SamplingParams(temperature=0, max_tokens=2, prompt_logprobs=1)
    for number in range(3):
        llm.engine.submit([number, *TEXT], params)
    ops.counted()
    llm.engine.step()
    assert ops.counted().synchronisations == 2
    llm.logits(TEXT)
    assert ops.counted().synchronisations == 1


# ---- the double itself


@pytest.mark.clause("OPS-66")
def test_a_strict_tensor_cannot_be_used() -> None:
    ops = StrictOps()
    x = ops.asarray([1.0, 2.0], "float32")
    assert (x.shape, str(x.dtype)) == ((2,), "float32")
    uses: list[Callable[[], object]] = [
        lambda: x + 1, lambda: 1 + x, lambda: -x, lambda: x * x, lambda: x @ x, lambda: x[0], lambda: len(x),
        lambda: list(x), lambda: bool(x), lambda: x == 1, lambda: x < 1, lambda: hash(x), lambda: float(x),
        lambda: np.asarray(x), lambda: np.add(x, 1), lambda: 1 in x, lambda: x.T, lambda: x.size, lambda: x.tolist(),
        lambda: x.dtype == "float32", lambda: x.dtype.kind, lambda: x.dtype.itemsize, lambda: ops.asarray(x, "float32"),
        lambda: ops.add(x, np.ones(2, np.float32)), lambda: ops.asarray([x, x], "float32"),
    ]  # fmt: skip
    for number, use in enumerate(uses):
        with pytest.raises((TypeError, AttributeError)):
            use()
            pytest.fail(f"use {number} worked")


@pytest.mark.clause("OPS-66")
def test_host_arrays_are_not_shared_with_a_strict_backend() -> None:
    ops = StrictOps()
    values = np.array([1, 2], np.int64)
    x = ops.asarray(values, "int64")
    with pytest.raises(ValueError):
        ops.to_numpy(x)[0] = 5
    values[0] = 5
    assert ops.to_numpy(x).tolist() == [1, 2]
    y = ops.asarray(values, "int64")
    values[0] = 6
    with pytest.raises(TypeError, match="changed"):
        ops.to_numpy(y)


@pytest.mark.clause("OPS-66")
def test_every_primitive_is_counted() -> None:
    def plain(name: str) -> Callable[..., Tensor]:
        return getattr(StrictOps, name)  # type: ignore[no-any-return]

    assert all(plain(name).__module__ == StrictOps.__module__ for name in PRIMITIVES)
    ops = StrictOps()
    ops.to_numpy(ops.add(ops.zeros((2,), "float32"), ops.scalar(1)))
    found = ops.counted()
    assert (found.calls, found.bytes_down) == ({"full": 2, "add": 1, "to_numpy": 1}, 8)
    assert ops.counted() == Counts()

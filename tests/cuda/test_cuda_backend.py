"""CUDA-60, CUDA-63 to CUDA-65: an engine on the CUDA backend, whose kernels fibers run, beside the oracle."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import numpy as np
import pytest

from ferrum.backends.cupy_backend import CupyOps
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.setup import LEFT_ON_DEVICE
from ferrum.errors import InvalidParameter
from ferrum.sampling_params import SamplingParams
from ferrum.testing.cuda_shim.device import ShimDevice
from tests.cuda.shim import SCHEDULES, device_at
from tests.engine.test_strict_backend import DRAWN, GREEDY, LIVES, TEXT, generated, tiny_llm


def shim(seed: int = 1, **options: Any) -> CupyOps:
    return CupyOps(device_at(seed), **options)


def numbers_of(found: Any) -> list[float]:
    """Every number in what a life returns, in order: tokens, ranks and log probabilities."""
    if isinstance(found, (list, tuple)):
        return [number for each in found for number in numbers_of(each)]
    if isinstance(found, dict):
        return [number for key, each in found.items() for number in (*numbers_of(key), *numbers_of(each))]
    if hasattr(found, "token_ids"):
        return numbers_of([found.token_ids, found.logprobs])
    if hasattr(found, "logprob"):
        return [found.logprob, found.rank]
    return [found] if isinstance(found, (int, float)) else []


@pytest.mark.clause("CUDA-63")
@pytest.mark.parametrize("seed", SCHEDULES)
@pytest.mark.parametrize("life", LIVES)
def test_an_engine_lives_as_on_the_oracle(life: str, seed: int) -> None:
    """Chunks, batches, draws, copies on write, prefixes, swaps, half precision, log probabilities."""
    act, config = LIVES[life]
    ops = shim(seed)
    ops.flops_per_byte = NumpyOps.flops_per_byte  # or so small a model would rather compute than swap
    found, expected = (numbers_of(act(tiny_llm(each, **config))) for each in (ops, NumpyOps()))
    assert len(found) == len(expected) > 0
    np.testing.assert_allclose(found, expected, rtol=1e-3 if life == "half precision" else 1e-4, atol=1e-4)
    whole = [(one, other) for one, other in zip(found, expected, strict=True) if isinstance(other, int)]
    assert all(one == other for one, other in whole)


@pytest.mark.clause("CUDA-63")
def test_bfloat16_keys_and_values() -> None:
    found, expected = (generated(tiny_llm(ops, kv_dtype="bfloat16"), [TEXT], GREEDY) for ops in (shim(), NumpyOps()))
    assert numbers_of(found) == numbers_of(expected)


@pytest.mark.clause("CUDA-64")
@pytest.mark.parametrize("params", [GREEDY, DRAWN])
@pytest.mark.parametrize("captured", [True, False])
def test_deterministic_tokens_do_not_depend_on_company(params: SamplingParams, captured: bool) -> None:
    """Bit for bit: log probabilities too, alone and in company, in one chunk and in many, captured and not."""
    params = replace(params, logprobs=4)
    alone = generated(tiny_llm(shim(deterministic=True), deterministic=True), [TEXT], params)
    ops = shim(2, deterministic=True)
    if not captured:
        ops.run_step = lambda step, batch: step(ops, batch)  # type: ignore[method-assign]
    llm = tiny_llm(ops, deterministic=True, max_num_batched_tokens=7, block_size=8)
    others = [[number, *TEXT[: 3 + number]] for number in range(11)]
    together = generated(llm, [*others, TEXT], [params] * 12)
    assert together[-1] == alone[0]


@pytest.mark.clause("CUDA-64")
def test_deterministic_logits_do_not_depend_on_chunks() -> None:
    llms = [
        tiny_llm(shim(deterministic=True), deterministic=True, max_num_batched_tokens=tokens, block_size=size)
        for tokens, size in ((64, 4), (5, 16))
    ]
    first, second = (
        [one.logprobs for one in generated(llm, [TEXT], SamplingParams(temperature=0, max_tokens=6, logprobs=4))[0]]
        for llm in llms
    )
    assert first == second


@pytest.mark.clause("CUDA-63")
def test_a_prompt_beside_many_decodes_attends_together() -> None:
    """As one prompt in a long batch does; and a decode step never asks how many tokens a sequence has."""
    asked: list[bool] = []

    class Watched(CupyOps):
        def _many_queries(self, batch: Any) -> bool:
            asked.append(super()._many_queries(batch))
            return asked[-1]

    llm = tiny_llm(Watched(device_at(1)))
    for number in range(9):
        llm.engine.submit([number, 1, 2], SamplingParams(temperature=0, max_tokens=9, ignore_eos=True))
    llm.engine.step()
    asked.clear()
    llm.engine.step()
    assert set(asked) == {False}
    llm.engine.submit(TEXT, GREEDY)
    llm.engine.step()
    assert asked[-1]


@pytest.mark.clause("CUDA-63")
def test_rows_are_put_by_indices_of_any_shape() -> None:
    ops = shim()
    for where in ([[0, 1], [2, 5]], [7], [[[3]]]):
        x, ids = np.zeros((8, 3), np.float32), np.array(where)
        values = np.random.default_rng(0).standard_normal((*ids.shape, 3)).astype(np.float32)
        target = ops.asarray(x, "float32")
        ops.put(target, (ops.asarray(ids, "int64"),), ops.asarray(values, "float32"))
        x[ids] = values
        assert ops.to_numpy(target).tolist() == x.tolist()


@pytest.mark.clause("CUDA-65")
def test_blocks_take_a_share_of_the_memory_of_the_device() -> None:
    class Small(ShimDevice):
        def memory(self) -> tuple[int, int]:
            return LEFT_ON_DEVICE + (2 << 20), LEFT_ON_DEVICE + (3 << 20)

    llm = tiny_llm(CupyOps(Small()), gpu_memory_utilization=1.0)
    sizes = [weight.data.nbytes for weight in llm.runner.step.params.weights()]
    assert llm.engine_config.kv_memory == (2 << 20) - sum(sizes) - max(sizes)  # float32: decoded they are as large
    with pytest.raises(InvalidParameter, match=r"gpu_memory_utilization of 0\.5 leaves nothing"):
        tiny_llm(CupyOps(Small()), gpu_memory_utilization=0.5)
    with pytest.raises(InvalidParameter, match="numpy runs on the CPU"):
        tiny_llm(NumpyOps(), gpu_memory_utilization=0.5)
    for bad in (-0.1, 1.5, float("nan"), "0.5", True):
        with pytest.raises(InvalidParameter, match="gpu_memory_utilization"):
            EngineConfig(gpu_memory_utilization=bad)  # type: ignore[arg-type]

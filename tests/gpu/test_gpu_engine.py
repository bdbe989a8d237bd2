"""CUDA-08 and CUDA-63 on a GPU: the same tokens as the CPU, and the same bits in every run, captured or not."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.cupy_backend import CupyOps
from ferrum.backends.numpy_backend import NumpyOps
from ferrum.config import EngineConfig
from ferrum.tensor.compositions import Compositions, TensorOps
from tests.engine.test_strict_backend import DRAWN, GREEDY, LIVES, TEXT, generated, tiny_llm
from tests.gpu.device import ON_SHIM, gpu

PROMPTS = ("The capital of France is", "def fibonacci(n):", "Once upon a time there was a")
TOKENS = 4 if ON_SHIM else 64


def ops_on_gpu(**options: Any) -> CupyOps:
    return CupyOps(gpu(), **options)


@pytest.mark.clause("CUDA-63")
@pytest.mark.parametrize("life", LIVES)
def test_an_engine_lives_as_on_the_oracle(life: str) -> None:
    act, config = LIVES[life]
    ops = ops_on_gpu()
    ops.flops_per_byte = NumpyOps.flops_per_byte  # or so small a model would rather compute than swap
    found, expected = (act(tiny_llm(each, **config)) for each in (ops, NumpyOps()))
    assert tokens_in(found) == tokens_in(expected)


def tokens_in(found: Any) -> list[tuple[int, ...]]:
    """The tokens of every choice in what a life returns, in order."""
    if hasattr(found, "token_ids"):
        return [tuple(found.token_ids)]
    return [tokens for each in found for tokens in tokens_in(each)] if isinstance(found, (list, tuple)) else []


@pytest.mark.clause("CUDA-08")
@pytest.mark.parametrize("count", [1, 3, 8, 16])
def test_graphs_have_the_bits_of_eager_steps(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    params = SamplingParams(temperature=0, max_tokens=8, ignore_eos=True, seed=1, logprobs=5)
    prompts = [[number, *TEXT[number % 7 :]] for number in range(count)]

    def life() -> tuple[Any, int]:
        llm = tiny_llm(ops_on_gpu())
        found = generated(llm, prompts, params)
        return [(choice.token_ids, choice.logprobs) for each in found for choice in each], llm.stats().decode.replayed

    captured, replayed = life()
    assert replayed > 0
    assert life()[0] == captured
    monkeypatch.setattr(CupyOps, "run_step", Compositions.run_step)
    eager, replayed = life()
    assert replayed == 0 and eager == captured


@pytest.mark.clause("CUDA-63")
@pytest.mark.parametrize("params", [GREEDY, DRAWN])
def test_deterministic_tokens_do_not_depend_on_company(params: SamplingParams) -> None:
    alone = generated(tiny_llm(ops_on_gpu(deterministic=True)), [TEXT], params)
    company = [TEXT, *([number, *TEXT[:number]] for number in range(1, 12))]
    for config in ({}, {"max_num_batched_tokens": 7}, {"block_size": 8}):
        found = generated(tiny_llm(ops_on_gpu(deterministic=True), **config), company, params)
        assert found[0] == alone[0]


@pytest.mark.clause("CUDA-63")
def test_the_real_model_says_what_it_says_on_the_cpu(smollm2_path: Path) -> None:
    """Logits are close; greedy tokens are equal up to the first place where the two best are closer than that."""

    def opened(ops: TensorOps | str) -> LLM:
        if isinstance(ops, str):
            return LLM(str(smollm2_path), backend=ops, max_model_len=512)
        from ferrum.load.model import load_model

        return LLM.from_loaded(load_model(smollm2_path), ops, EngineConfig(max_model_len=512))

    here, there = opened("numba"), opened(ops_on_gpu())
    greedy = SamplingParams(temperature=0, max_tokens=TOKENS, ignore_eos=True)
    prompts = [
        list(here.tokenizer.encode(text, add_special_tokens=False)) for text in PROMPTS[: 1 if ON_SHIM else None]
    ]
    for prompt, one, other in zip(
        prompts, here.generate(prompts, greedy), there.generate(prompts, greedy), strict=True
    ):
        tokens = list(one.token_ids)
        logits, far = (llm.logits([*prompt, *tokens]) for llm in (here, there))
        error = float(np.abs(logits - far).max())
        assert error < 1e-2
        best = np.sort(logits[len(prompt) - 1 : -1], axis=1)
        unsure = np.flatnonzero(best[:, -1] - best[:, -2] < 2 * error)
        sure = int(unsure[0]) if len(unsure) else len(tokens)
        assert sure > 0 and list(other.token_ids)[:sure] == tokens[:sure]

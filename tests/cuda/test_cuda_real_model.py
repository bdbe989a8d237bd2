"""CUDA-62: a real model, SmolLM2-135M in Q4_1, on kernels that fibers run: real sizes, a real vocabulary."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferrum import LLM, SamplingParams
from ferrum.backends.cupy_backend import CupyOps
from ferrum.config import EngineConfig
from ferrum.load.model import load_model
from ferrum.types import DecodeSteps
from tests.cuda.shim import device_at


@pytest.mark.clause("CUDA-62")
def test_the_real_model_says_what_it_says_on_the_oracle(smollm2_path: Path) -> None:
    model, prompt = load_model(smollm2_path), "2 + 2 ="
    greedy = SamplingParams(temperature=0, max_tokens=3, ignore_eos=True)
    answers, steps = [], []
    for ops in (CupyOps(device_at(1)), None):
        config = EngineConfig(kv_memory=64 << 20)
        llm = LLM(str(smollm2_path), backend="numpy") if ops is None else LLM.from_loaded(model, ops, config)
        answers.append(llm.generate([prompt], greedy)[0].token_ids)
        steps.append(llm.stats().decode)
    assert answers[0] == answers[1]
    assert steps[0] == DecodeSteps(2, 2)

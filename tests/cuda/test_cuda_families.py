"""CUDA-62: the whole backend, its kernels run by fibers, against transformers: every family's tiny model."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferrum.config import EngineConfig
from ferrum.engine.llm import LLM
from ferrum.load.model import load_model
from ferrum.load.resolve import resolve
from ferrum.sampling_params import SamplingParams
from ferrum.types import DecodeSteps
from tests.cuda.shim import device_at
from tests.model.families import FAMILIES, write_model
from tests.model.test_family_goldens import READY, TOLERANCE, error, length
from tests.model.test_family_replay import fits_kernels

pytest.importorskip("ferrum.backends.cupy_backend")
from ferrum.backends.cupy_backend import CupyOps


def opened(name: str, folder: Path) -> LLM:
    golden = FAMILIES[name]
    model = load_model(resolve(str(write_model(golden, folder / name))))
    longest = length(golden, len(golden.tokens) + len(golden.greedy))
    return LLM.from_loaded(model, CupyOps(device_at(1)), EngineConfig(kv_memory=4 << 20, max_model_len=longest))


@pytest.mark.clause("CUDA-62")
@pytest.mark.parametrize("name", READY)
def test_tokens_are_those_of_transformers(name: str, tmp_path: Path) -> None:
    """A prompt and a continuation, one token at a time: replayed, where kernels fit the model's sizes."""
    golden, llm = FAMILIES[name], opened(name, tmp_path)
    if length(golden, 1) is None:
        assert error(llm.logits(golden.tokens), golden.logits) < TOLERANCE
    params = SamplingParams(temperature=0, max_tokens=len(golden.greedy), ignore_eos=True)
    (completion,) = llm.generate([golden.tokens], params)
    assert list(completion.token_ids) == golden.greedy
    steps = len(golden.greedy) - 1
    found = llm.stats().decode
    assert found.total == steps
    if fits_kernels(golden):
        assert found == DecodeSteps(steps, steps)

"""OPS-64: decode steps of every family are replayed."""

from __future__ import annotations

from pathlib import Path

import pytest

from ferrum.engine.llm import LLM
from ferrum.sampling_params import SamplingParams
from ferrum.types import DecodeSteps
from tests.model.families import FAMILIES, Golden, write_model
from tests.model.test_family_goldens import READY

GREEDY = SamplingParams(temperature=0, max_tokens=6, ignore_eos=True)


def fits_kernels(golden: Golden) -> bool:
    """True if the columns of every matrix are a multiple of 32."""
    return all(shape[-1] % 32 == 0 for _, shape in golden.tensors.values() if len(shape) > 1)


@pytest.mark.clause("OPS-64")
@pytest.mark.parametrize("name", [name for name in READY if fits_kernels(FAMILIES[name])])
def test_every_decode_step_is_replayed(name: str, tmp_path: Path) -> None:
    """One sequence, then two of different lengths."""
    golden = FAMILIES[name]
    llm = LLM(str(write_model(golden, tmp_path / name)), backend="numba", kv_memory="4MiB")
    llm.generate([golden.tokens[:5]], GREEDY)
    llm.generate([golden.tokens[:5], golden.tokens[:9]], GREEDY)
    assert llm.stats().decode == DecodeSteps(10, 10)

"""A real quantised model against Hugging Face transformers: prompt ids and greedy continuations.

The golden is made by tests/goldens/make_real_goldens.py.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from ferrum.sampling_params import SamplingParams

GOLDEN = Path(__file__).resolve().parents[1] / "goldens" / "smollm2_greedy.json"
ENTRIES: list[dict[str, Any]] = json.loads(GOLDEN.read_text(encoding="utf-8"))
TIE = 0.02
"""If the two largest logits are closer than this, two correct implementations may choose differently."""


def certain(entry: dict[str, Any]) -> int:
    """The number of steps before the first one that is nearly a tie."""
    return next((step for step, gap in enumerate(entry["gaps"]) if gap < TIE), len(entry["gaps"]))


@pytest.fixture(scope="module")
def llm(smollm2_path: Path) -> LLM:
    return LLM(str(smollm2_path), backend="numba", kv_memory="64MiB")


def test_the_golden_is_worth_comparing() -> None:
    assert sum(certain(entry) for entry in ENTRIES) > 100


@pytest.mark.clause("MODEL-12")
@pytest.mark.parametrize("entry", ENTRIES, ids=range(len(ENTRIES)))
def test_greedy_continuations_are_those_of_transformers(llm: LLM, entry: dict[str, Any]) -> None:
    params = SamplingParams(temperature=0, max_tokens=len(entry["greedy_ids"]), ignore_eos=True)
    prompt = entry["prompt"]
    (completion,) = llm.generate(prompt, params) if isinstance(prompt, str) else llm.chat(prompt, params)
    assert list(completion.prompt_token_ids) == entry["prompt_ids"]
    steps = certain(entry)
    assert list(completion.token_ids)[:steps] == entry["greedy_ids"][:steps]


@pytest.mark.clause("MODEL-12")
def test_the_oracle_backend_chooses_the_same_tokens(smollm2_path: Path) -> None:
    entry = min(ENTRIES, key=lambda entry: len(entry["prompt_ids"]))
    steps = min(8, certain(entry))
    # teacher forced, in one pass: the oracle dequantises all weights in every step
    prompt, greedy = entry["prompt_ids"], entry["greedy_ids"][:steps]
    logits = LLM(str(smollm2_path), backend="numpy", kv_memory="64MiB").logits(prompt + greedy)
    assert np.argmax(logits[len(prompt) - 1 : -1], axis=1).tolist() == greedy

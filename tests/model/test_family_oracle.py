"""Fresh random models of every family against transformers, and their GGUF files against llama.cpp: `pytest -m oracle`.

The models are those of the goldens with new weights and prompts. The seed comes from the clock and is in the message of
a failure; FERRUM_ORACLE_SEED repeats it. Needs the extra `oracle`, and llama-cpp-python (extra `bench`) for GGUF.
"""

from __future__ import annotations

import os
import time
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ferrum.engine.scoring import score
from ferrum.sampling_params import SamplingParams
from tests.model.families import FAMILIES, write_gguf, write_model
from tests.model.test_family_goldens import GGUFS, READY, TOLERANCE, error, open_model

pytestmark = pytest.mark.oracle
SEED = int(os.environ.get("FERRUM_ORACLE_SEED") or time.time_ns() % 2**31)
REPEAT = f"FERRUM_ORACLE_SEED={SEED} repeats it"


@pytest.mark.clause("MODEL-01")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", READY)
def test_fresh_models_say_what_transformers_says(name: str, backend: str, tmp_path: Path) -> None:
    pytest.importorskip("transformers")
    from tests.goldens.make_family_goldens import fit

    golden, answers = fit(FAMILIES[name], SEED)
    folder, count = write_model(golden, tmp_path), len(golden.tokens)
    llm = open_model(golden, folder, backend, count)
    assert error(llm.logits(golden.tokens), answers.logits) < TOLERANCE, REPEAT
    chunked = score(llm.runner, llm.scheduler.manager, golden.tokens, 5)
    assert error(chunked, answers.logits) < TOLERANCE, REPEAT
    llm = open_model(golden, folder, backend, count + len(answers.greedy))
    greedy = SamplingParams(temperature=0, max_tokens=len(answers.greedy), ignore_eos=True)
    assert list(llm.generate([golden.tokens], greedy)[0].token_ids) == answers.greedy, REPEAT


@pytest.mark.clause("MODEL-01")
@pytest.mark.parametrize("name", GGUFS)
def test_fresh_gguf_files_say_what_llama_cpp_says(name: str, tmp_path: Path) -> None:
    pytest.importorskip("llama_cpp")
    from tests.goldens.make_family_ggufs import NEAR, distance, llama_cpp_logits

    golden = FAMILIES[name]
    tokens = np.random.RandomState(SEED).randint(0, golden.config["vocab_size"], len(golden.tokens)).tolist()
    golden = replace(golden, seed=SEED, tokens=tokens)
    path = write_gguf(golden, tmp_path / "model.gguf")
    logits = open_model(golden, path, "numba", len(tokens)).logits(tokens)
    assert distance(llama_cpp_logits(path, tokens), logits) < NEAR, REPEAT

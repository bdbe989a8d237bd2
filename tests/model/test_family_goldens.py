"""Whole models of every family against Hugging Face transformers: logits, greedy continuations, and steps of any size.

The goldens are made by tests/goldens/make_family_goldens.py; tests/model/families.py writes the models.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from ferrum.engine.scoring import score
from ferrum.sampling_params import SamplingParams
from tests.model.families import FAMILIES, Golden, write_gguf, write_model

TOLERANCE = 1e-5
"""Relative L2 error of the logits of one token."""


def architecture(golden: Golden) -> str | None:
    """`general.architecture` of the GGUF file; None if there is no GGUF file."""
    return golden.recipe["metadata"]["general.architecture"][1] if golden.recipe else None


NOT_YET: set[str] = set()
"""Values of model_type, and goldens, that the package does not run yet."""

NOT_YET_GGUF: set[str] = set()
"""Values of general.architecture, and goldens, that the package does not read from GGUF yet."""

READY = sorted(name for name, golden in FAMILIES.items() if not {name, golden.config["model_type"]} & NOT_YET)
GGUFS = sorted(name for name, golden in FAMILIES.items() if not {name, architecture(golden)} & {None, *NOT_YET_GGUF})
each = pytest.mark.parametrize("name", READY)
both = pytest.mark.parametrize("backend", ["numpy", "numba"])


@pytest.fixture(scope="module")
def folders(tmp_path_factory: pytest.TempPathFactory) -> Any:
    """From a name to the folder of the model, which is written at the first call."""
    root, written = tmp_path_factory.mktemp("families"), {}

    def folder(name: str) -> Path:
        if name not in written:
            written[name] = write_model(FAMILIES[name], root / name)
        return written[name]

    return folder


def length(golden: Golden, tokens: int) -> int | None:
    """transformers computes some kinds of RoPE from the length of its input: such a model runs with that length."""
    told = json.dumps(golden.config)
    return tokens if '"dynamic"' in told or '"longrope"' in told else None


def open_model(golden: Golden, model: Path, backend: str, tokens: int) -> LLM:
    return LLM(str(model), backend=backend, kv_memory="4MiB", max_model_len=length(golden, tokens))


def error(logits: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative L2 error of any token's logits."""
    return float(np.max(np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)))


@pytest.mark.clause("MODEL-01", "MODEL-14", "MODEL-16")
@each
@both
def test_logits_are_those_of_transformers(name: str, backend: str, folders: Any) -> None:
    golden = FAMILIES[name]
    llm = open_model(golden, folders(name), backend, len(golden.tokens))
    logits = llm.logits(golden.tokens)
    assert logits.shape == golden.logits.shape
    assert error(logits, golden.logits) < TOLERANCE


@pytest.mark.clause("MODEL-01")
@each
@both
def test_greedy_continuations_are_those_of_transformers(name: str, backend: str, folders: Any) -> None:
    golden = FAMILIES[name]
    count = len(golden.greedy)
    llm = open_model(golden, folders(name), backend, len(golden.tokens) + count)
    (completion,) = llm.generate([golden.tokens], SamplingParams(temperature=0, max_tokens=count, ignore_eos=True))
    assert list(completion.token_ids) == golden.greedy


@pytest.mark.clause("MODEL-11")
@each
@pytest.mark.parametrize("step", [1, 7])
def test_steps_of_any_size_give_the_same_logits(name: str, step: int, folders: Any) -> None:
    golden = FAMILIES[name]
    llm = open_model(golden, folders(name), "numba", len(golden.tokens))
    logits = score(llm.runner, llm.scheduler.manager, golden.tokens, step)
    assert error(logits, golden.logits) < TOLERANCE


@pytest.mark.clause("MODEL-01")
@pytest.mark.parametrize("name", GGUFS)
@both
def test_gguf_files_give_the_same_logits(name: str, backend: str, tmp_path: Path) -> None:
    golden = FAMILIES[name]
    llm = open_model(golden, write_gguf(golden, tmp_path / "model.gguf"), backend, len(golden.tokens))
    assert error(llm.logits(golden.tokens), golden.logits) < TOLERANCE


def test_what_is_not_ready_has_goldens() -> None:
    assert {golden.config["model_type"] for golden in FAMILIES.values()} | set(FAMILIES) >= NOT_YET
    assert {architecture(golden) for golden in FAMILIES.values()} | set(FAMILIES) >= NOT_YET_GGUF

"""Whole models against Hugging Face transformers: logits of small random models, teacher forced.

The models and their goldens are made by tests/goldens/make_tiny_models.py and make_tiny_ggufs.py.
"""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest

from ferrum.engine.llm import LLM
from ferrum.engine.scoring import score

TINY = Path(__file__).resolve().parents[1] / "goldens" / "tiny"
TOLERANCE = 1e-5
"""The largest allowed relative L2 error of the logits of one token; both backends stay below 3e-6."""

tied = pytest.mark.clause("MODEL-02")
biases = pytest.mark.clause("MODEL-03")
grouped = pytest.mark.clause("MODEL-04")
own_head_dim = pytest.mark.clause("MODEL-05")
linear = pytest.mark.clause("MODEL-06")
llama3 = pytest.mark.clause("MODEL-07")
yarn = pytest.mark.clause("MODEL-08")
window = pytest.mark.clause("MODEL-09")
stored = pytest.mark.clause("MODEL-10")

MODELS = {
    "llama-tied": [tied],
    "llama-biases": [biases, grouped],
    "llama-ratio3": [grouped, stored],
    "llama-multiquery-bf16": [grouped, own_head_dim, stored],
    "llama-linear": [linear, stored],
    "llama-llama3-sharded-bf16": [llama3, grouped, stored],
    "llama-llama3-old": [llama3, stored],
    "llama-yarn": [yarn, grouped],
    "llama-yarn-old": [yarn, own_head_dim],
    "mistral-window-f16": [window, own_head_dim, stored],
    "mistral-window-old": [window, tied],
    "mistral-full-sharded": [stored],
    "llama3-f32.gguf": [llama3],
    "biases-bf16.gguf": [biases, stored],
    "yarn-f16.gguf": [yarn, stored],
    "mixed-quants.gguf": [stored],
    "tied-q8_0.gguf": [tied, own_head_dim, stored],
    "tied-q4_0.gguf": [tied, stored],
}
EACH = [pytest.param(name, marks=marks, id=name) for name, marks in MODELS.items()]


def golden(name: str) -> tuple[list[int], np.ndarray]:
    """The token ids and the float32 logits [tokens, vocab] of a golden."""
    path = TINY / name
    with np.load(path / "golden.npz" if path.is_dir() else path.with_suffix(".npz")) as file:
        return file["token_ids"].tolist(), file["logits"]


def error(logits: np.ndarray, expected: np.ndarray) -> float:
    """The largest relative L2 error of any token's logits."""
    return float(np.max(np.linalg.norm(logits - expected, axis=1) / np.linalg.norm(expected, axis=1)))


def test_no_model_is_forgotten() -> None:
    assert {path.name for path in TINY.iterdir() if path.suffix != ".npz"} == set(MODELS)


@pytest.mark.clause("MODEL-01")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
@pytest.mark.parametrize("name", EACH)
def test_logits_are_those_of_transformers(name: str, backend: str) -> None:
    token_ids, expected = golden(name)
    logits = LLM(str(TINY / name), backend=backend, kv_memory="4MiB").logits(token_ids)
    assert logits.dtype == np.float32
    assert logits.shape == expected.shape
    assert error(logits, expected) < TOLERANCE


@pytest.mark.clause("MODEL-11")
@pytest.mark.parametrize("name", ["llama-ratio3", "mistral-window-f16", "mixed-quants.gguf"])
@pytest.mark.parametrize(("block_size", "step"), [(1, 40), (3, 7), (16, 1), (64, 16)])
def test_blocks_and_steps_do_not_matter(name: str, block_size: int, step: int) -> None:
    token_ids, expected = golden(name)
    llm = LLM(str(TINY / name), backend="numba", kv_memory="4MiB", block_size=block_size)
    logits = score(llm.runner, llm.scheduler.manager, token_ids, step)
    assert error(logits, expected) < TOLERANCE

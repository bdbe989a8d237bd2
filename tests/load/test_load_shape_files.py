"""SUITE-22: files of random weights that `benchmarks/shapes.py` writes."""

from __future__ import annotations

import importlib
from collections import Counter
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum import LLM
from ferrum.load.gguf import GGUFFile
from ferrum.load.shapes import SHAPES
from tests.house.source import ROOT

TINY = replace(SHAPES["llama-3.2-1b"], vocab_size=1024, hidden_size=256, intermediate_size=512, layers=8, heads=4,
               kv_heads=2)  # fmt: skip


@pytest.fixture
def shapes(monkeypatch: pytest.MonkeyPatch) -> Any:
    """The module, with a tiny shape under any name."""
    monkeypatch.syspath_prepend(str(ROOT / "benchmarks"))
    module = importlib.import_module("shapes")
    monkeypatch.setattr(module, "find_shape", lambda name: TINY)
    return module


@pytest.mark.clause("SUITE-22")
@pytest.mark.parametrize(
    ("name", "mixture", "expected"),
    [
        # what llama.cpp says when it loads the published files, but for the tensor of rotary factors, which is not here
        ("llama-3.2-1b", "q4_k_m", {"f32": 33, "q4_k": 96, "q6_k": 17}),
        ("llama-3.1-8b", "q4_k_m", {"f32": 65, "q4_k": 193, "q6_k": 33}),
        ("llama-3.2-1b", "q4_0", {"f32": 33, "q4_0": 112, "q6_k": 1}),
        ("llama-3.2-1b", "q8_0", {"f32": 33, "q8_0": 113}),
    ],
)
def test_tensors_have_the_types_of_published_files(
    shapes: Any, name: str, mixture: str, expected: dict[str, int]
) -> None:
    config = SHAPES[name]
    tensors = shapes.shapes_of(config)
    assert Counter(shapes.kind_of(tensor, shape, mixture, config) for tensor, shape in tensors.items()) == expected


@pytest.mark.clause("SUITE-22")
@pytest.mark.parametrize("mixture", ["f32", "f16", "bf16", "q8_0", "q4_0", "q4_k_m"])
def test_what_is_written_is_read_and_computes(shapes: Any, tmp_path: Path, mixture: str) -> None:
    path = tmp_path / "tiny.gguf"
    shapes.write_shape("tiny", mixture, path)
    tensors = GGUFFile(path).tensors
    assert {name: tensor.shape for name, tensor in tensors.items()} == shapes.shapes_of(TINY)
    for name, tensor in tensors.items():
        assert tensor.type.name.lower() == shapes.kind_of(name, tensor.shape, mixture, TINY)
    llm = LLM(path, kv_memory="16MiB")
    text = "Hello, world: \x00\x01"
    ids = llm.tokenizer.encode(text, add_special_tokens=False)
    assert ids[-1] >= 256  # the first merges are those of the first bytes
    assert llm.tokenizer.decode(ids) == text
    logits = llm.logits(ids)
    assert 0.5 < logits.std() < 2  # rows of unit variance keep it near 1
    assert len(set(logits.argmax(1).tolist())) > 3


@pytest.mark.clause("SUITE-22")
def test_weights_have_mean_zero_and_the_deviation_asked_for(shapes: Any, tmp_path: Path) -> None:
    from ferrum.load.model import load_model

    for mixture in ("q8_0", "q4_0", "q4_k_m"):
        path = tmp_path / f"{mixture}.gguf"
        shapes.write_shape("tiny", mixture, path)
        for weight in load_model(path, "float32").params.weights():
            values = np.asarray(weight.data, np.float64)
            assert abs(values.mean()) < 0.02 * values.std() + 3 * values.std() / values.size**0.5
            assert values.std() == pytest.approx(weight.columns**-0.5, rel=0.06)

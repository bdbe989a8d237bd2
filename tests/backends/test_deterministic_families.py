"""OPS-45 for models of all kinds of parts: in deterministic mode a row has the same bits beside any other rows."""

from __future__ import annotations

from pathlib import Path
from random import Random

import pytest

from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.load.model import load_model
from ferrum.tensor.compositions import TensorOps
from tests.backends.company import Model, check, in_company
from tests.model.families import FAMILIES, write_model

BACKENDS = {
    "numpy": lambda: NumpyOps(deterministic=True),
    "numba": lambda: NumbaOps(2, deterministic=True),
}
NAMES = (
    "cohere-odd",
    "falcon-wide",
    "gemma2-wide",
    "gemma3-odd",
    "gpt-oss-wide",
    "gpt2-wide",
    "olmo2-wide",
    "qwen2-moe-odd",
    "stablelm-qk",
    "starcoder2-odd",
)
"""Models with every kind of part, in sizes for which kernels run and in others."""


def model_of(name: str, ops: TensorOps, folder: Path) -> Model:
    loaded = load_model(write_model(FAMILIES[name], folder))
    return Model(ops, loaded.config, loaded.params)


@pytest.mark.clause("OPS-45")
@pytest.mark.parametrize("backend", BACKENDS)
@pytest.mark.parametrize("name", NAMES)
def test_a_row_has_the_bits_that_it_has_alone(name: str, backend: str, tmp_path: Path) -> None:
    model = model_of(name, BACKENDS[backend](), tmp_path / name)
    for seed in range(3):
        random = Random(f"{name} {seed}")
        texts = [[random.randrange(model.config.vocab_size) for _ in range(length)] for length in (23, 9, 1)]
        check(in_company(model, texts, random, (1, 3, 40)), model)

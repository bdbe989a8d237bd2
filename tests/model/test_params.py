"""The parameter tree: every array once, with a path, and the same shape of tree on a backend."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.load.model import load_model
from ferrum.model.params import DecoderParams, leaves, mapped
from ferrum.tensor.parts import Attention, Experts
from ferrum.tensor.weights import Weight
from tests.model.families import FAMILIES, write_model


def params_of(name: str, folder: Path) -> DecoderParams:
    return load_model(write_model(FAMILIES[name], folder / name)).params


@pytest.mark.clause("MODEL-14")
@pytest.mark.parametrize("name", ["llama-odd", "gemma2-wide", "phi-wide", "qwen2-moe-odd", "gpt-oss-odd", "gpt2-odd"])
def test_a_tree_holds_what_the_file_holds(name: str, tmp_path: Path) -> None:
    """The tree has each number of the file once, except a tied head and norms that serve two branches."""
    params = params_of(name, tmp_path)
    distinct = {id(leaf): leaf for _, leaf in leaves(params)}.values()
    found = sum(leaf.rows * leaf.columns if isinstance(leaf, Weight) else leaf.size for leaf in distinct)
    shared = params.layers[0].stages[0][0].before is not None and len(params.layers[0].stages) == 1
    twice = 2 * FAMILIES[name].config["hidden_size"] * len(params.layers) if shared else 0  # read once for each branch
    assert found - twice == sum(int(np.prod(shape)) for _, shape in FAMILIES[name].tensors.values())
    assert len({path for path, _ in leaves(params)}) == len(list(leaves(params)))


@pytest.mark.clause("MODEL-02", "MODEL-14")
@pytest.mark.parametrize("name", ["qwen2-moe-odd", "gemma3-odd"])
def test_a_backend_gets_the_same_tree(name: str, tmp_path: Path) -> None:
    params, ops = params_of(name, tmp_path), NumpyOps("float64")
    placed = params.to(ops)
    assert placed.head.linear.weight is placed.embedding.table
    assert [path for path, _ in leaves(placed)] == [path for path, _ in leaves(params)]
    for (_, here), (_, there) in zip(leaves(params), leaves(placed), strict=True):
        if isinstance(here, Weight):
            assert type(there) is type(here) and there.data.dtype == here.data.dtype
        else:
            assert there.dtype == np.float64
            np.testing.assert_array_equal(there, here)
    for layer, other in zip(params.layers, placed.layers, strict=True):
        here, there = layer.stages[0][0].body, other.stages[0][0].body
        assert layer.rope == other.rope and isinstance(here, Attention) and isinstance(there, Attention)
        assert (here.window, here.scale) == (there.window, there.scale)


@pytest.mark.clause("SCHED-14")
@pytest.mark.parametrize(
    ("name", "layers", "idle"),
    [("qwen2-moe-odd", 1, 1), ("olmoe-odd", 2, 2), ("mixtral-window", 2, 3)],  # 2 of 3 and a shared one, 3 of 5, 1 of 4
)
def test_a_token_meets_the_experts_that_it_goes_to(name: str, layers: int, idle: int, tmp_path: Path) -> None:
    params = params_of(name, tmp_path)
    found = [b.body for layer in params.layers for stage in layer.stages for b in stage if isinstance(b.body, Experts)]
    assert len(found) == layers
    every = sum(weight.rows * weight.columns for weight in params.weights())
    one = 3 * found[0].experts[0].gate.weight.rows * found[0].experts[0].gate.weight.columns
    assert params.active() == every - layers * idle * one


@pytest.mark.clause("MODEL-14")
def test_a_matrix_that_is_read_in_two_places_is_counted_once(tmp_path: Path) -> None:
    params = params_of("gpt2-odd", tmp_path)  # whose head is tied
    found = [id(weight) for weight in params.weights()]
    assert len(found) == len(set(found)) < sum(isinstance(leaf, Weight) for _, leaf in leaves(params))


@pytest.mark.clause("SCHED-14")
def test_a_token_meets_all_of_a_model_without_experts(tmp_path: Path) -> None:
    params = params_of("qwen2-moe-odd", tmp_path)
    dense = mapped(params, lambda leaf: leaf)
    dense = replace(dense, layers=tuple(layer for layer in dense.layers if layer is not dense.layers[1]))
    assert dense.active() == sum(weight.rows * weight.columns for weight in dense.weights())

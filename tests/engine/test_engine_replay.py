"""ENGINE-32, OPS-63: decode steps of models are replayed and counted."""

from __future__ import annotations

from dataclasses import fields, is_dataclass, replace
from typing import Any

import numpy as np
import pytest

from ferrum import SamplingParams
from ferrum.backends.numpy_backend import NumbaOps, NumpyOps
from ferrum.config import EngineConfig
from ferrum.engine.llm import LLM
from ferrum.model.params import DecoderParams
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.weights import Linear
from ferrum.text.byte_tokenizer import ByteTokenizer
from ferrum.types import DecodeSteps
from tests.tiny import TinyModel, tiny_config, tiny_params

NATIVE = tiny_config(hidden_size=64, intermediate_size=96, head_dim=16)
"""A width for which the compiled kernels run."""
GREEDY = SamplingParams(temperature=0, max_tokens=12, ignore_eos=True)
PROMPTS = ["one", "two tokens", "a prompt of its own"]


def biased(tree: Any) -> Any:
    """The same parameters, with a bias for each linear layer that has none."""
    if isinstance(tree, Linear):
        rows = tree.weight.rows
        return Linear(tree.weight, np.random.default_rng(rows).standard_normal(rows).astype(np.float32))
    if isinstance(tree, tuple):
        return tuple(map(biased, tree))
    if is_dataclass(tree) and not isinstance(tree, type):
        return replace(tree, **{field.name: biased(getattr(tree, field.name)) for field in fields(tree) if field.init})
    return tree


def llm_of(params: DecoderParams, ops: TensorOps) -> LLM:
    return LLM.from_loaded(TinyModel(NATIVE, params, ByteTokenizer()), ops, EngineConfig())


@pytest.mark.clause("OPS-63")
@pytest.mark.parametrize("change", [lambda params: params, biased], ids=["plain", "biases everywhere"])
def test_every_decode_step_of_a_decoder_is_replayed(change: Any) -> None:
    params = change(tiny_params(NATIVE))
    llm, oracle = llm_of(params, NumbaOps(2)), llm_of(params, NumpyOps())
    found, expected = ([each.token_ids for each in model.generate(PROMPTS, GREEDY)] for model in (llm, oracle))
    assert found == expected
    assert llm.stats().decode == DecodeSteps(11, 11)
    assert oracle.stats().decode == DecodeSteps()


@pytest.mark.clause("ENGINE-32")
def test_engines_of_one_backend_count_their_own_steps() -> None:
    ops, params = NumbaOps(2), tiny_params(NATIVE)
    first, second = llm_of(params, ops), llm_of(params, ops)
    first.generate(PROMPTS, GREEDY)
    assert (first.stats().decode.total, second.stats().decode.total) == (11, 0)

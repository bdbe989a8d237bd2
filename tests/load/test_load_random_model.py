"""CLI-43 to CLI-45: shapes of known models, and random weights to fill them."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

from ferrum.backends.numpy_backend import NumpyOps
from ferrum.engine.llm import LLM
from ferrum.errors import InvalidParameter
from ferrum.load import random_model as random_model_module
from ferrum.load.conversion import DTYPES, to_float32, type_name
from ferrum.load.random_model import random_model
from ferrum.load.shapes import SHAPES, find_shape

TYPES = [dtype for dtype in DTYPES if dtype != "auto"]
SMALL = replace(
    SHAPES["llama-3.1-8b"],
    vocab_size=512,
    hidden_size=256,
    intermediate_size=320,
    layers=4,
    heads=8,
    kv_heads=2,
    head_dim=32,
    rope=replace(SHAPES["llama-3.1-8b"].rope, rotary_dim=32),
    max_positions=64,
)
PARAMETERS = {"smollm2-135m": 134_515_008, "llama-3.2-1b": 1_235_814_400,
              "llama-3.2-3b": 3_212_749_824, "llama-3.1-8b": 8_030_261_248}  # fmt: skip


@pytest.mark.clause("CLI-43")
@pytest.mark.parametrize("name", SHAPES)
def test_a_shape_has_as_many_parameters_as_the_model(name: str) -> None:
    """As published: a wrong number in the table would show in the sum."""
    shape = find_shape(name)
    attention = shape.hidden_size * shape.head_dim * 2 * (shape.heads + shape.kv_heads)
    layer = attention + 3 * shape.hidden_size * shape.intermediate_size + 2 * shape.hidden_size
    tables = shape.vocab_size * shape.hidden_size * (1 if shape.tie_embeddings else 2)
    assert shape.layers * layer + tables + shape.hidden_size == PARAMETERS[name]
    assert shape.rope.rotary_dim == shape.head_dim and shape.heads % shape.kv_heads == 0


@pytest.mark.clause("CLI-44")
def test_an_unknown_shape_lists_the_known_ones() -> None:
    with pytest.raises(InvalidParameter) as caught:
        find_shape("llama-4")
    assert all(name in str(caught.value) for name in ("llama-4", *SHAPES))


@pytest.mark.clause("CLI-45")
@pytest.mark.parametrize("dtype", TYPES)
def test_weights_are_of_the_type_and_spread_asked_for(dtype: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(random_model_module, "PIECE", 1 << 14)  # several pieces a matrix, and a rest
    params = random_model("small", SMALL, dtype).params
    for weight in params.weights():
        values = to_float32(weight) * np.sqrt(weight.columns)
        assert type_name(weight) == dtype
        # the head of 512 rows has 131,072 numbers, but signs of q8_0 and q4_0 come by groups of 32
        assert abs(values.mean()) < 0.02 and 0.97 < values.std() < 1.03
        assert len(np.unique(values[0])) > 14 and not np.array_equal(values[0], values[1])
    table = params.embedding.table
    assert params.head.linear.weight is not table and table.shape == (512, 256)
    assert [linear.weight.shape for _, linear in params.layers[0].linears()] == [
        (256, 256), (64, 256), (64, 256), (256, 256), (320, 256), (320, 256), (256, 320),
    ]  # fmt: skip


@pytest.mark.clause("CLI-45")
def test_the_same_arguments_give_the_same_weights() -> None:
    one, same, other = (
        [weight.data for weight in random_model("small", SMALL, seed=seed).params.weights()] for seed in (1, 1, 2)
    )
    assert all(map(np.array_equal, one, same))
    assert not any(map(np.array_equal, one, other))
    assert not any(np.array_equal(one[0][:64], data[:64]) for data in one[1:])  # nor are two matrices alike


@pytest.mark.clause("CLI-45")
@pytest.mark.parametrize("dtype", TYPES)
def test_activations_stay_finite_in_many_layers(dtype: str) -> None:
    config = replace(SMALL, layers=32, tie_embeddings=True)
    llm = LLM.from_loaded(random_model("small", config, dtype), NumpyOps())
    logits = llm.logits(list(range(0, 512, 16)))
    assert np.isfinite(logits).all() and 0.3 < logits.std() < 3
    assert len(set(logits.argmax(axis=1).tolist())) > 4  # and still depend on the tokens


@pytest.mark.clause("CLI-45")
def test_rows_that_make_no_blocks_are_float32() -> None:
    config = replace(SMALL, intermediate_size=40)
    linears = dict(random_model("odd", config, "q4_1").params.layers[0].linears())
    assert (type_name(linears["down"].weight), type_name(linears["up"].weight)) == ("float32", "q4_1")


@pytest.mark.clause("CLI-43")
def test_text_is_bytes_and_other_tokens_are_silent() -> None:
    tokenizer = random_model("small", SMALL).tokenizer
    text = "Größe\n"
    ids = tokenizer.encode(text, add_special_tokens=True)
    assert ids == list(text.encode()) and tokenizer.decode([*ids[:3], 511, *ids[3:]]) == text

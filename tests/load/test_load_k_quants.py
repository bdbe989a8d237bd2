"""A model whose matrices mix K-quants, as in Q4_K_M: used as stored, or converted by `dtype`."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from ferrum.conformance import weight_oracle
from ferrum.engine.llm import LLM
from ferrum.errors import InvalidParameter
from ferrum.load.conversion import BLOCK_TYPES, FLOAT_TYPES, convert, quantize, to_float32, type_name
from ferrum.load.model import load_model, open_model
from ferrum.model.params import Branch, DecoderParams, Layer
from ferrum.tensor.k_quants import Q4_K, Q5_K, Q6_K
from ferrum.tensor.parts import Attention, Embedding, GatedMlp, Head, Norm
from ferrum.tensor.weights import BlockWeight, Dense, Linear
from ferrum.testing.blocks import random_blocks
from tests.load.gguf_writer import Stored, gguf_bytes
from tests.load.tiny_models import METADATA, interleave
from tests.tiny import dense_logits, distance

HIDDEN, INTERMEDIATE, HEADS, KV_HEADS, HEAD_DIM, VOCAB = 256, 512, 4, 2, 64, 48
EPSILON = METADATA["llama.attention.layer_norm_rms_epsilon"]
KEYS = {
    **METADATA,
    "llama.embedding_length": HIDDEN,
    "llama.feed_forward_length": INTERMEDIATE,
    "llama.attention.head_count": HEADS,
    "llama.attention.head_count_kv": KV_HEADS,
    "llama.attention.key_length": HEAD_DIM,
    "llama.attention.value_length": HEAD_DIM,
    "llama.rope.dimension_count": HEAD_DIM,
}
# field of a layer -> GGUF's name, rows, columns, type
MATRICES = {
    "query": ("attn_q", HEADS * HEAD_DIM, HIDDEN, "q4_k"),
    "key": ("attn_k", KV_HEADS * HEAD_DIM, HIDDEN, "q5_k"),
    "value": ("attn_v", KV_HEADS * HEAD_DIM, HIDDEN, "q6_k"),
    "output": ("attn_output", HIDDEN, HEADS * HEAD_DIM, "q4_k"),
    "gate": ("ffn_gate", INTERMEDIATE, HIDDEN, "q4_k"),
    "up": ("ffn_up", INTERMEDIATE, HIDDEN, "q8_0"),
    "down": ("ffn_down", HIDDEN, INTERMEDIATE, "q6_k"),
}
TABLES = {"embedding": ("token_embd", "q5_k"), "head": ("output", "q6_k")}
KINDS: dict[str, type[BlockWeight]] = {kind.kind: kind for kind in (Q4_K, Q5_K, Q6_K)}


class Mixture:
    """A file of random blocks, and the same model as float64 numbers read by the oracle of the conformance suite."""

    def __init__(self, path: Path) -> None:
        self.path = path
        self.blocks: dict[str, np.ndarray] = {}  # by name in the file, in the order in which a model needs the rows
        self._random = np.random.default_rng(7)
        self._stored: dict[str, Stored] = {}
        tables = {field: self._matrix(name, VOCAB, HIDDEN, kind) for field, (name, kind) in TABLES.items()}
        layers = tuple(self._layer(f"blk.{number}") for number in range(2))
        norm = self._norm("output_norm")
        head = Head(norm, Linear(Dense(tables["head"])))
        self.params = DecoderParams(Embedding(Dense(tables["embedding"])), layers, head)
        path.write_bytes(gguf_bytes(KEYS, self._stored))

    def _matrix(self, name: str, rows: int, columns: int, kind: str) -> np.ndarray:
        data = self.blocks[f"{name}.weight"] = random_blocks(kind, (rows, columns), self._random, columns**-0.5)
        heads = {"attn_q": HEADS, "attn_k": KV_HEADS}.get(name.rpartition(".")[2])
        written = data if heads is None else interleave(data, heads)
        self._stored[f"{name}.weight"] = Stored(kind.upper(), (rows, columns), written.tobytes())
        return weight_oracle.dequantize(kind, data)[0]

    def _norm(self, name: str) -> Norm:
        values = (1 + 0.1 * self._random.standard_normal(HIDDEN)).astype(np.float32)
        self._stored[f"{name}.weight"] = Stored.float32(values)
        return Norm(values, EPSILON)

    def _layer(self, prefix: str) -> Layer:
        linears: dict[str, Any] = {
            field: Linear(Dense(self._matrix(f"{prefix}.{name}", rows, columns, kind)))
            for field, (name, rows, columns, kind) in MATRICES.items()
        }
        before, before_mlp = (self._norm(f"{prefix}.{name}") for name in ("attn_norm", "ffn_norm"))
        attention = Attention(
            *(linears[part] for part in ("query", "key", "value", "output")), HEAD_DIM, HEAD_DIM**-0.5
        )
        mlp = GatedMlp(*(linears[part] for part in ("gate", "up", "down")))
        return Layer(((Branch(attention, before),), (Branch(mlp, before_mlp),)), None)


@pytest.fixture(scope="module")
def mixture(tmp_path_factory: pytest.TempPathFactory) -> Mixture:
    return Mixture(tmp_path_factory.mktemp("mixture") / "mixture.gguf")


@pytest.mark.clause("QUANT-06", "MODEL-10")
@pytest.mark.parametrize("backend", ["numpy", "numba"])
def test_logits_of_a_mixture_are_those_of_its_numbers(mixture: Mixture, backend: str) -> None:
    llm = LLM(str(mixture.path), backend=backend, kv_memory="4MiB")
    token_ids = [(7 * i + 3) % VOCAB for i in range(40)]
    expected = dense_logits(llm.config, mixture.params, token_ids)
    assert distance(llm.logits(token_ids), expected) < 1e-5
    assert llm.dtype_name == "q4_k"


@pytest.mark.clause("QUANT-06", "LOAD-30")
def test_rows_are_put_in_order_and_every_byte_is_kept(mixture: Mixture) -> None:
    params = load_model(mixture.path).params
    for number, layer in enumerate(params.layers):
        for field, (name, rows, columns, kind) in MATRICES.items():
            weight = dict(layer.linears())[field].weight
            assert (type_name(weight), weight.shape) == (kind, (rows, columns))
            np.testing.assert_array_equal(weight.data, mixture.blocks[f"blk.{number}.{name}.weight"])
    for weight, (name, kind) in zip((params.embedding.table, params.head.linear.weight), TABLES.values(), strict=True):
        assert type_name(weight) == kind
        np.testing.assert_array_equal(weight.data, mixture.blocks[f"{name}.weight"])
    views = [weight for weight in params.weights() if not weight.data.flags.owndata]
    assert len(views) == 16 - 4  # all but q and k, whose rows were put in order


@pytest.mark.clause("QUANT-06")
def test_memory_is_the_size_of_the_file(mixture: Mixture) -> None:
    files = open_model(mixture.path)
    described = {name: files.source.describe(name) for name in mixture.blocks}
    assert {name: tensor.nbytes for name, tensor in described.items()} == {
        name: data.nbytes for name, data in mixture.blocks.items()
    }
    assert {tensor.type for tensor in described.values()} == {"Q4_K", "Q5_K", "Q6_K", "Q8_0"}
    held = sum(weight.data.nbytes for weight in load_model(mixture.path).params.weights())
    assert held == sum(tensor.nbytes for tensor in described.values())


@pytest.mark.clause("QUANT-17", "LOAD-36")
@pytest.mark.parametrize("dtype", [*FLOAT_TYPES, *BLOCK_TYPES])
@pytest.mark.parametrize("kind", KINDS)
def test_a_k_quant_converts_through_its_values(kind: str, dtype: str) -> None:
    weight = KINDS[kind](random_blocks(kind, (3, 512), np.random.default_rng(1)))
    values = to_float32(weight)
    np.testing.assert_allclose(values, weight_oracle.dequantize(kind, weight.data)[0], rtol=1e-6, atol=1e-6)
    found = convert(weight, dtype, "t")
    assert (type_name(found), found.shape) == (dtype, (3, 512))
    expected = values.astype(FLOAT_TYPES[dtype]) if dtype in FLOAT_TYPES else quantize(values, dtype, "t").data
    np.testing.assert_array_equal(found.data, expected)
    assert convert(weight, "auto", "t") is weight


@pytest.mark.clause("QUANT-17")
@pytest.mark.parametrize("kind", KINDS)
def test_a_k_quant_cannot_be_asked_for(kind: str) -> None:
    with pytest.raises(InvalidParameter, match=r"^dtype must be one of auto, float32"):
        convert(Dense(np.ones((1, 256), np.float32)), kind, "t")

"""A random model of a few thousand parameters, and a second, plain way to compute it.

`dense_logits` is an independent oracle: float64 NumPy, one sequence, no cache, no blocks, no backend.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ferrum.config import ModelConfig, RopeConfig
from ferrum.model.params import Branch, DecoderParams, Layer
from ferrum.model.rope import rope_frequencies
from ferrum.tensor.parts import Attention, Embedding, GatedMlp, Head, Norm
from ferrum.tensor.weights import Dense, Linear
from ferrum.text.template_names import ChatTemplates
from ferrum.text.tokenizer import Tokenizer

Floats = NDArray[np.float64]


def tiny_config(**changes: Any) -> ModelConfig:
    """A model of two layers with grouped queries; any field can be changed."""
    head_dim = changes.get("head_dim", 8)
    config = ModelConfig(
        architecture="llama", vocab_size=257, hidden_size=24, intermediate_size=40, layers=2, heads=4, kv_heads=2,
        head_dim=head_dim, max_positions=64, norm_epsilon=1e-5, rope=RopeConfig(10000.0, head_dim),
        eos_token_ids=(256,),
    )  # fmt: skip
    return replace(config, **changes)


def tiny_params(config: ModelConfig, seed: int = 0) -> DecoderParams:
    """Random float32 parameters, with a bias on the query projection."""
    random = np.random.default_rng(seed)

    def normal(*shape: int, scale: float) -> NDArray[np.float32]:
        return (scale * random.standard_normal(shape)).astype(np.float32)

    def linear(rows: int, columns: int, bias: bool = False) -> Linear:
        weight = Dense(normal(rows, columns, scale=columns**-0.5))
        return Linear(weight, normal(rows, scale=0.1) if bias else None)

    def norm() -> Norm:
        return Norm(1 + normal(config.hidden_size, scale=0.1), config.norm_epsilon)

    def layer() -> Layer:
        hidden, middle = config.hidden_size, config.intermediate_size
        query, shared = config.heads * config.head_dim, config.kv_heads * config.head_dim
        before = norm()
        attention = Attention(
            linear(query, hidden, bias=True),
            linear(shared, hidden),
            linear(shared, hidden),
            linear(hidden, query),
            config.head_dim,
            config.scale,
            config.sliding_window,
            config.attention_softcap,
        )
        before_mlp = norm()
        mlp = GatedMlp(linear(middle, hidden), linear(middle, hidden), linear(hidden, middle))
        return Layer(((Branch(attention, before),), (Branch(mlp, before_mlp),)), config.rope)

    embedding = Dense(normal(config.vocab_size, config.hidden_size, scale=1.0))
    layers = tuple(layer() for _ in range(config.layers))
    # A head of its own: a random model whose head is its embedding repeats its last token for ever.
    return DecoderParams(Embedding(embedding), layers, Head(norm(), linear(config.vocab_size, config.hidden_size)))


def dense_logits(config: ModelConfig, params: DecoderParams, token_ids: list[int]) -> Floats:
    """float64 [tokens, vocab]: the textbook transformer, all tokens at once."""
    return _affine(dense_vectors(config, params, token_ids), params.head.linear)


def dense_vectors(config: ModelConfig, params: DecoderParams, token_ids: list[int]) -> Floats:
    """float64 [tokens, hidden]: what its head is given."""
    x = _wide(params.embedding.table.data)[token_ids]  # [tokens, hidden]
    for layer in params.layers:
        ((attend,), (feed,)) = layer.stages
        x = x + _affine(_attention(config, attend.body, _norm(x, attend.before)), attend.body.output)
        mlp, normed = feed.body, _norm(x, feed.before)
        gate = _affine(normed, mlp.gate)
        x = x + _affine(gate / (1 + np.exp(-gate)) * _affine(normed, mlp.up), mlp.down)
    return _norm(x, params.head.norm)


def _attention(config: ModelConfig, layer: Any, x: Floats) -> Floats:
    count = len(x)
    query, key, value = (
        _affine(x, linear).reshape(count, -1, config.head_dim) for linear in (layer.query, layer.key, layer.value)
    )
    query, key = _rotate(config, query), _rotate(config, key)
    distance = np.arange(count)[:, None] - np.arange(count)[None, :]
    visible = (distance >= 0) & (distance < (config.sliding_window or count))
    heads = []
    for head in range(config.heads):
        shared = head * config.kv_heads // config.heads
        scores = query[:, head] @ key[:, shared].T * config.scale
        if config.attention_softcap is not None:
            scores = config.attention_softcap * np.tanh(scores / config.attention_softcap)
        weights = np.where(visible, np.exp(scores - scores.max()), 0)
        heads.append(weights @ value[:, shared] / weights.sum(1, keepdims=True))
    return np.concatenate(heads, 1)


def _rotate(config: ModelConfig, x: Floats) -> Floats:
    """[tokens, heads, head_dim]: dimensions i and i + half as one complex number, turned."""
    half = config.rope.rotary_dim // 2
    turn = np.exp(1j * np.outer(np.arange(len(x)), rope_frequencies(config.rope)))[:, None, :]
    turned = (x[..., :half] + 1j * x[..., half : 2 * half]) * turn
    return np.concatenate([turned.real, turned.imag, x[..., 2 * half :]], -1)


def _norm(x: Floats, norm: Any) -> Floats:
    return x / np.sqrt((x * x).mean(-1, keepdims=True) + norm.epsilon) * _wide(norm.weight)


def _affine(x: Floats, linear: Linear) -> Floats:
    y = x @ _wide(linear.weight.data).T
    return y if linear.bias is None else y + _wide(linear.bias)


def _wide(values: Any) -> Floats:
    return np.asarray(values, np.float64)


def distance(x: NDArray[Any], y: NDArray[Any]) -> float:
    """Relative L2 distance of the rows that differ most."""
    difference = np.linalg.norm(_wide(x) - _wide(y), axis=-1)
    return float((difference / np.linalg.norm(_wide(y), axis=-1)).max())


@dataclass(frozen=True)
class TinyModel:
    """What `LLM.from_loaded` needs of a loaded model."""

    config: ModelConfig
    params: DecoderParams
    tokenizer: Tokenizer
    chat_templates: ChatTemplates = ChatTemplates({})  # noqa: RUF009 (never changed)
    name: str = "tiny"
    path: Path = Path("tiny")

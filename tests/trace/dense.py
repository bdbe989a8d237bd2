"""The attention of the last token of a text, by the textbook: float64, no cache, no blocks, no backend."""

from __future__ import annotations

from typing import Any

import numpy as np

from ferrum.config import ModelConfig
from ferrum.model.params import DecoderParams
from ferrum.model.rope import rope_frequencies
from tests.tiny import Floats


def dense_weights(config: ModelConfig, params: DecoderParams, token_ids: list[int]) -> list[Floats]:
    """[heads, tokens] for each layer: what the last token attends to, less what a sink takes."""
    x = np.asarray(params.embedding.table.data, np.float64)[token_ids]
    found = []
    for layer in params.layers:
        ((attend,), (feed,)) = layer.stages
        mixed, weights = attention(config, attend.body, norm(x, attend.before))
        found.append(weights[:, -1])
        x = x + affine(mixed, attend.body.output)
        mlp, normed = feed.body, norm(x, feed.before)
        gate = affine(normed, mlp.gate)
        x = x + affine(gate / (1 + np.exp(-gate)) * affine(normed, mlp.up), mlp.down)
    return found


def attention(config: ModelConfig, part: Any, x: Floats) -> tuple[Floats, Floats]:
    """-> [tokens, heads * head_dim] and weights [heads, tokens, tokens]."""
    count = len(x)
    query, key, value = (
        affine(x, linear).reshape(count, -1, config.head_dim) for linear in (part.query, part.key, part.value)
    )
    query = rotate(config, query if part.query_norm is None else norm(query, part.query_norm))
    key = rotate(config, key if part.key_norm is None else norm(key, part.key_norm))
    weights = np.zeros((config.heads, count, count))
    mixed = np.zeros((count, config.heads, config.head_dim))
    for head in range(config.heads):
        shared = head // (config.heads // config.kv_heads)
        for place in range(count):
            first = 0 if part.window is None else max(0, place + 1 - part.window)
            scores = key[first : place + 1, shared] @ query[place, head] * part.scale
            if part.softcap is not None:
                scores = part.softcap * np.tanh(scores / part.softcap)
            raised = np.exp(scores)
            beside = 0.0 if part.sinks is None else np.exp(float(part.sinks[head]))
            weights[head, place, first : place + 1] = raised / (raised.sum() + beside)
            mixed[place, head] = weights[head, place, : place + 1] @ value[: place + 1, shared]
    return mixed.reshape(count, -1), weights


def rotate(config: ModelConfig, x: Floats) -> Floats:
    """[tokens, heads, head_dim], turned by the position of each token."""
    assert config.rope is not None
    half = config.rope.rotary_dim // 2
    angles = np.outer(np.arange(len(x)), rope_frequencies(config.rope))[:, None, :]
    first, second, rest = x[..., :half], x[..., half : 2 * half], x[..., 2 * half :]
    cos, sin = np.cos(angles), np.sin(angles)
    return np.concatenate((first * cos - second * sin, second * cos + first * sin, rest), -1)


def norm(x: Floats, part: Any) -> Floats:
    scale = np.sqrt((x * x).mean(-1, keepdims=True) + part.epsilon)
    return np.asarray(x / scale * np.asarray(part.weight, np.float64))


def affine(x: Floats, linear: Any) -> Floats:
    y = x @ np.asarray(linear.weight.data, np.float64).T
    return y if linear.bias is None else np.asarray(y + np.asarray(linear.bias, np.float64))

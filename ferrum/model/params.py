"""The parameter tree of a decoder: every weight has one place and one name.

Owns: `DecoderParams`. Family differences never appear here as code: a missing bias is None, a tied head is the
embedding itself. Refuses to know: files (`ferrum.load` fills the tree) and backends.
Specs: MODEL. Next: `ferrum.model.decoder`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, fields, replace
from functools import cache

from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.weights import Linear, Weight


@dataclass(frozen=True, eq=False)
class LayerParams:
    """One decoder layer. Norms are float32 [hidden]; linears are [out, in]."""

    attention_norm: Tensor
    query: Linear  # [heads * head_dim, hidden]
    key: Linear  # [kv_heads * head_dim, hidden]
    value: Linear  # [kv_heads * head_dim, hidden]
    output: Linear  # [hidden, heads * head_dim]
    mlp_norm: Tensor
    gate: Linear  # [intermediate, hidden]
    up: Linear  # [intermediate, hidden]
    down: Linear  # [hidden, intermediate]

    def linears(self) -> Iterator[tuple[str, Linear]]:
        """Every linear with its name."""
        for field in fields(self):
            value = getattr(self, field.name)
            if isinstance(value, Linear):
                yield field.name, value

    def vectors(self) -> Iterator[tuple[str, Tensor]]:
        """Every norm and every bias with its name."""
        for field in fields(self):
            value = getattr(self, field.name)
            if not isinstance(value, Linear):
                yield field.name, value
            elif value.bias is not None:
                yield f"{field.name}.bias", value.bias


@dataclass(frozen=True, eq=False)
class DecoderParams:
    """A whole decoder. A tied head is a Linear around the very object `embedding`."""

    embedding: Weight  # [vocab, hidden]
    layers: tuple[LayerParams, ...]
    norm: Tensor  # [hidden]
    head: Linear  # [vocab, hidden]

    def weights(self) -> Iterator[Weight]:
        """Every distinct matrix once."""
        yield self.embedding
        for layer in self.layers:
            for _, linear in layer.linears():
                yield linear.weight
        if self.head.weight is not self.embedding:
            yield self.head.weight

    def vectors(self) -> Iterator[tuple[str, Tensor]]:
        """Every norm and every bias with its name: with `weights`, all that the tree holds."""
        for index, layer in enumerate(self.layers):
            for name, vector in layer.vectors():
                yield f"{index}.{name}", vector
        yield "norm", self.norm
        if self.head.bias is not None:
            yield "head.bias", self.head.bias

    def to(self, ops: TensorOps) -> DecoderParams:
        """The same tree with every array on the backend: vectors in its float type, matrices as they are stored."""
        embedding = _place_weight(ops, self.embedding)
        tied = self.head.weight is self.embedding
        head = replace(self.head, weight=embedding) if tied else _place_linear(ops, self.head)
        layers = tuple(_place_layer(ops, layer) for layer in self.layers)
        return DecoderParams(embedding, layers, _place_vector(ops, self.norm), head)


def _place_vector(ops: TensorOps, vector: Tensor) -> Tensor:
    return ops.asarray(vector, ops.float_dtype)


_dtype_name = cache(str)  # a model has hundreds of matrices of one type, and NumPy takes its time to spell it


def _place_weight(ops: TensorOps, weight: Weight) -> Weight:
    return replace(weight, data=ops.asarray(weight.data, _dtype_name(weight.data.dtype)))


def _place_linear(ops: TensorOps, linear: Linear) -> Linear:
    bias = None if linear.bias is None else _place_vector(ops, linear.bias)
    return Linear(_place_weight(ops, linear.weight), bias)


def _place_layer(ops: TensorOps, layer: LayerParams) -> LayerParams:
    placed = {name: _place_linear(ops, linear) for name, linear in layer.linears()}
    norms = {name: _place_vector(ops, getattr(layer, name)) for name in ("attention_norm", "mlp_norm")}
    return replace(layer, **placed, **norms)

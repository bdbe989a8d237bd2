"""What a model is made of, as objects: norms, attention, feed-forward parts, the embedding and the head.

Owns: the facts that a composition needs of each part. A part says what is computed, never for which family. A field
that has a default changes nothing at it, so that a backend which does not know a field can see whether it is in use
(`sets_beyond`) and leave the work to the definition. Refuses to know: how parts are joined (`ferrum.model.params`).
Specs: OPS-37, OPS-59. Papers: RMSNorm 1910.07467, layer norm 1607.06450, GLU variants 2002.05202, mixture of experts
1701.06538, QK norm 2010.04245. Next: `ferrum.tensor.compositions`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import MISSING, dataclass, fields
from typing import Any

from ferrum.tensor.ops import Tensor
from ferrum.tensor.weights import Linear, Weight


class Part:
    """Base of the parts: dataclasses whose fields are parts, linears, weights, tensors and plain values."""


def sets_beyond(part: Any, known: Set[str]) -> bool:
    """Is a field of a part, outside of `known`, set to something else than its default? One without a default is."""
    return any(each.name not in known and _differs(getattr(part, each.name), each.default) for each in fields(part))


def _differs(value: Any, default: Any) -> bool:
    return default is MISSING or (value is not default and (default is None or value != default))


@dataclass(frozen=True, eq=False)
class Norm(Part):
    """x / √(mean of squares + epsilon) · weight + bias along the last axis; centred: of x without its mean."""

    weight: Tensor  # float [n]; in attention also [heads, n], a row for each head
    epsilon: float
    bias: Tensor | None = None  # as weight
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Embedding(Part):
    """norm(row of the table · scale + row of the position + common): a row for each token, one for its position where
    positions are learned, and what all tokens have in common: an encoder's row for texts that are not the second of
    two."""

    table: Weight  # [vocab, hidden]
    scale: float = 1.0
    positions: Weight | None = None  # [longest context, hidden]
    common: Tensor | None = None  # float [hidden]
    norm: Norm | None = None


@dataclass(frozen=True, eq=False)
class Attention(Part):
    """Attention with grouped queries, to positions up to the query's own. Rotary tables are no part of it: they come
    with each step."""

    query: Linear  # [heads * head_dim, hidden]
    key: Linear  # [kv_heads * head_dim, hidden]
    value: Linear  # [kv_heads * head_dim, hidden]
    output: Linear  # [hidden, heads * head_dim]
    head_dim: int
    scale: float  # scores are multiplied with it
    window: int | None = None  # a query sees at most so many positions, its own among them
    softcap: float | None = None  # scores become cap * tanh(score / cap)
    query_norm: Norm | None = None  # before the rotation; weight [head_dim] (every head), [heads, head_dim] (each its
    key_norm: Norm | None = None  # own) or [heads * head_dim] (all of them together)
    sinks: Tensor | None = None  # float [heads]: the score of a position without a value
    causal: bool = True  # False: to later positions as well, as far as they are written; a window counts both ways


@dataclass(frozen=True, eq=False)
class GatedMlp(Part):
    """down(activation(gate(x)) · up(x)); with a limit, gate is cut off above it, up above and below."""

    gate: Linear  # [intermediate, hidden]
    up: Linear  # [intermediate, hidden]
    down: Linear  # [hidden, intermediate]
    activation: str = "silu"
    limit: float | None = None
    up_offset: float = 0.0  # added to up


@dataclass(frozen=True, eq=False)
class PlainMlp(Part):
    """down(activation(up(x)))"""

    up: Linear  # [intermediate, hidden]
    down: Linear  # [hidden, intermediate]
    activation: str = "gelu_tanh"


@dataclass(frozen=True, eq=False)
class Experts(Part):
    """Every token goes to the `chosen` experts that its router likes best: the sum of their results, weighted with the
    softmax of the router's scores."""

    router: Linear  # [experts, hidden]
    experts: tuple[GatedMlp, ...]
    chosen: int
    normalised: bool = True  # the weights of a token's experts are divided by their sum
    shared: GatedMlp | None = None  # an expert that every token goes to besides, with weight 1
    shared_weight: Linear | None = None  # [1, hidden]: or with the sigmoid of this, which kernels call its door


@dataclass(frozen=True, eq=False)
class Head(Part):
    """Logits: softcap * tanh(scale * linear(norm(x)) / softcap)."""

    norm: Norm
    linear: Linear  # [vocab, hidden]
    scale: float = 1.0
    softcap: float | None = None


ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "quick_gelu", "relu")
"""Compositions that an MLP may name."""

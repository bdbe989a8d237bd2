"""What a model is made of, as objects: norms, attention, feed-forward parts, the embedding and the head.

Owns: the facts that a composition needs of each part. A part says what is computed, never for which model family. The
default of a field means: this field changes nothing. So a backend that does not know a field can test whether it is set
(`sets_beyond`), and if it is, leave the work to the definition. Refuses to know: how parts are joined
(`ferrum.model.params`).
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
    """Base class of the parts: dataclasses whose fields are parts, linears, weights, tensors and plain values."""


def sets_beyond(part: Any, known: Set[str]) -> bool:
    """True if a field of the part that is not in `known` differs from its default. A field without a default
    differs."""
    return any(each.name not in known and _differs(getattr(part, each.name), each.default) for each in fields(part))


def _differs(value: Any, default: Any) -> bool:
    return default is MISSING or (value is not default and (default is None or value != default))


@dataclass(frozen=True, eq=False)
class Norm(Part):
    """x / √(mean of squares of x + epsilon) · weight + bias, along the last axis. `centred`: the mean is subtracted
    from x first, which makes it layer norm."""

    weight: Tensor  # float [n]; in attention also [heads, n], one row for each head
    epsilon: float
    bias: Tensor | None = None  # shaped as weight
    centred: bool = False


@dataclass(frozen=True, eq=False)
class Embedding(Part):
    """norm(scale · table[token id] + positions[position] + common), for each token."""

    table: Weight  # [vocab, hidden]
    scale: float = 1.0
    positions: Weight | None = None  # [longest context, hidden]; None where positions are not learned
    common: Tensor | None = None  # float [hidden]: added to every token; an encoder's segment vector of a single text
    norm: Norm | None = None


@dataclass(frozen=True, eq=False)
class Attention(Part):
    """Grouped-query attention, to the positions up to the query's own if it is causal. Rotary tables are not a part of
    it: each step brings them."""

    query: Linear  # [heads * head_dim, hidden]
    key: Linear  # [kv_heads * head_dim, hidden]
    value: Linear  # [kv_heads * head_dim, hidden]
    output: Linear  # [hidden, heads * head_dim]
    head_dim: int
    scale: float  # scores are multiplied with it
    window: int | None = None  # a query attends to positions less than this far from its own; None: however far
    softcap: float | None = None  # scores become softcap * tanh(score / softcap)
    # Norms before the rotation. Weight [head_dim]: the same for every head; [heads, head_dim]: one for each head;
    # [heads * head_dim]: one norm over all heads.
    query_norm: Norm | None = None
    key_norm: Norm | None = None
    sinks: Tensor | None = None  # float [heads]: the score, in each head, of one more position whose value is 0
    causal: bool = True  # False: attends to later positions too; a window then counts in both directions


@dataclass(frozen=True, eq=False)
class GatedMlp(Part):
    """down(activation(gate(x)) · (up(x) + up_offset)). A limit first clamps gate from above, and up from both sides."""

    gate: Linear  # [intermediate, hidden]
    up: Linear  # [intermediate, hidden]
    down: Linear  # [hidden, intermediate]
    activation: str = "silu"
    limit: float | None = None
    up_offset: float = 0.0


@dataclass(frozen=True, eq=False)
class PlainMlp(Part):
    """down(activation(up(x)))"""

    up: Linear  # [intermediate, hidden]
    down: Linear  # [hidden, intermediate]
    activation: str = "gelu_tanh"


@dataclass(frozen=True, eq=False)
class Experts(Part):
    """A mixture of experts. The router scores all experts for each token; the token goes to the `chosen` ones with the
    largest scores. The result is the sum of what they compute, weighted with the softmax of the scores."""

    router: Linear  # [experts, hidden]
    experts: tuple[GatedMlp, ...]
    chosen: int  # experts of each token
    normalised: bool = True  # the weights of a token's chosen experts are divided by their sum
    shared: GatedMlp | None = None  # one more expert, to which every token goes
    shared_weight: Linear | None = None  # [1, hidden]: the shared expert's weight is its sigmoid; None: the weight is 1


@dataclass(frozen=True, eq=False)
class Head(Part):
    """Logits: softcap * tanh(scale * linear(norm(x)) / softcap), where softcap is set; else scale * linear(norm(x))."""

    norm: Norm
    linear: Linear  # [vocab, hidden]
    scale: float = 1.0
    softcap: float | None = None


ACTIVATIONS = ("silu", "gelu", "gelu_tanh", "quick_gelu", "relu")
"""The compositions that `activation` of an MLP may name."""

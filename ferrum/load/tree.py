"""The parameter tree of a configuration, put together from parts.

Owns: which parts a decoder of a given `ModelConfig` has, and how they make layers. Refuses to know: where parts come
from: files (`ferrum.load.params`) or random numbers (`ferrum.load.random_model`).
Specs: LOAD-30, MODEL-14. Next: `ferrum.load.params`.
"""

from __future__ import annotations

from typing import Protocol

from ferrum.config import LayerKind, ModelConfig
from ferrum.model.params import Branch, DecoderParams, Layer
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention, Embedding, Experts, GatedMlp, Head, Norm, PlainMlp
from ferrum.tensor.weights import Linear, Weight


class Parts(Protocol):
    """The parts of one model, by the names of `ferrum.load.layout.Layout`."""

    def table(self) -> Weight: ...  # the embedding
    def head(self) -> Linear: ...  # a tied head contains the embedding itself
    def positions(self) -> Weight | None: ...  # learned positions; None if the model has none
    def common(self) -> Tensor | None: ...  # added to every token; None if there is none
    def embedding_norm(self) -> Norm | None: ...
    def linear(self, part: str, layer: int) -> Linear: ...
    def experts(self, part: str, layer: int) -> list[Linear]: ...  # one for each expert
    def norm(self, part: str, layer: int) -> Norm | None: ...  # None if the model has none
    def head_norm(self, part: str, layer: int, heads: int) -> Norm | None: ...
    def last_norm(self) -> Norm: ...
    def sinks(self, layer: int) -> Tensor | None: ...


def decoder(config: ModelConfig, parts: Parts) -> DecoderParams:
    """The embedding, all layers in order, and the head."""
    embedding = Embedding(
        parts.table(), config.embedding_scale, parts.positions(), parts.common(), parts.embedding_norm()
    )
    layers = tuple(_layer(config, parts, number, kind) for number, kind in enumerate(config.kinds))
    if config.encoder:
        return DecoderParams(embedding, layers, None)
    head = Head(parts.last_norm(), parts.head(), config.logit_scale, config.logit_softcap)
    return DecoderParams(embedding, layers, head)


def _layer(config: ModelConfig, parts: Parts, number: int, kind: LayerKind) -> Layer:
    bodies = {"attention": _attention(config, parts, number, kind), "mlp": _mlp(config, parts, number, kind)}
    attention, mlp = (
        Branch(
            body,
            parts.norm(f"{name}_norm", number),
            parts.norm(f"{name}_after", number),
            config.residual_scale,
            parts.norm(f"{name}_closing", number),
        )
        for name, body in bodies.items()
    )
    return Layer(((attention, mlp),) if config.parallel else ((attention,), (mlp,)), kind.rope)


def _attention(config: ModelConfig, parts: Parts, number: int, kind: LayerKind) -> Attention:
    query, key, value, output = (parts.linear(part, number) for part in ("query", "key", "value", "output"))
    return Attention(
        query,
        key,
        value,
        output,
        config.head_dim,
        config.scale,
        window=kind.window,
        softcap=config.attention_softcap,
        query_norm=parts.head_norm("query_norm", number, config.heads),
        key_norm=parts.head_norm("key_norm", number, config.kv_heads),
        sinks=parts.sinks(number),
        causal=not config.encoder,
    )


def _mlp(config: ModelConfig, parts: Parts, number: int, kind: LayerKind) -> GatedMlp | PlainMlp | Experts:
    if kind.sparse:
        return _experts(config, parts, number)
    if config.gated:
        return _gated(config, *(parts.linear(part, number) for part in ("gate", "up", "down")))
    return PlainMlp(parts.linear("up", number), parts.linear("down", number), config.hidden_activation)


def _gated(config: ModelConfig, gate: Linear, up: Linear, down: Linear) -> GatedMlp:
    return GatedMlp(gate, up, down, config.hidden_activation, config.swiglu_limit, config.up_offset)


def _experts(config: ModelConfig, parts: Parts, number: int) -> Experts:
    experts = config.experts
    assert experts is not None
    linears = zip(*(parts.experts(f"expert_{part}", number) for part in ("gate", "up", "down")), strict=True)
    shared = None
    if experts.shared_size:
        shared = _gated(config, *(parts.linear(f"shared_{part}", number) for part in ("gate", "up", "down")))
    return Experts(
        parts.linear("router", number),
        tuple(_gated(config, *each) for each in linears),
        experts.chosen,
        experts.normalised,
        shared,
        parts.linear("shared_weight", number) if experts.shared_weight else None,
    )

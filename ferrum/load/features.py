"""What a model computes, in words: each feature with the module that defines it.

Owns: the list that `ferrum-ref inspect` prints, from which a reader of a model finds the code. Refuses to know:
terminals.
Specs: CLI-36. Next: `ferrum.load.tree`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass

from ferrum.config import ExpertsConfig, LayerKind, ModelConfig, RopeConfig, RopeScaling
from ferrum.load.layout import Description

COMPOSITIONS, ATTENTION, EXPERTS = "ferrum.tensor.compositions", "ferrum.tensor.attention", "ferrum.tensor.experts"
ROPE, PARAMS, EMBEDDER = "ferrum.model.rope", "ferrum.model.params", "ferrum.engine.embedder"


@dataclass(frozen=True)
class Feature:
    """`does` is a clause of a sentence; `module` has the definition."""

    does: str
    module: str


def features(description: Description) -> list[Feature]:
    """Everything that the model computes, in the order of the forward pass."""
    return [
        *_stream(description.config, description.layout.positions is not None),
        *_attention(description.config, set(description.layout.layer)),
        *_rotation(description.config),
        *_mlp(description.config),
        *_head(description.config),
    ]


def _stream(config: ModelConfig, learned: bool) -> Iterator[Feature]:
    if config.embedding_scale != 1:
        yield Feature(f"embeddings times {config.embedding_scale:g}", COMPOSITIONS)
    if learned:
        yield Feature("learned positions, added to embeddings", COMPOSITIONS)
    if config.encoder:
        yield Feature("an encoder: vectors of texts, no next tokens", EMBEDDER)
    yield Feature("layer norm" if config.layer_norm else "root mean square norm", COMPOSITIONS)
    if config.parallel:
        yield Feature("attention and MLP side by side", PARAMS)
    if config.residual_scale != 1:
        yield Feature(f"what layers add times {config.residual_scale:g}", COMPOSITIONS)


def _attention(config: ModelConfig, parts: set[str]) -> Iterator[Feature]:
    if config.encoder:
        yield Feature("attention to all of a text, later tokens too", ATTENTION)
    if config.kv_heads < config.heads:
        yield Feature(f"grouped queries, {config.heads // config.kv_heads} heads to a key", ATTENTION)
    if {"attention_after", "mlp_after"} & parts:
        norms_before = {"attention_norm", "mlp_norm"} & parts
        yield Feature("norms before and after each branch" if norms_before else "norms after each branch", PARAMS)
    if {"attention_closing", "mlp_closing"} & parts:
        yield Feature("norms behind each residual connection", PARAMS)
    if "query_norm" in parts:
        yield Feature("norms of queries and keys", COMPOSITIONS)
    windows = [kind.window for kind in config.kinds if kind.window is not None]
    if windows:
        yield Feature(f"window of {windows[0]} tokens in {_layer_share(len(windows), config.layers)}", ATTENTION)
    if config.attention_softcap is not None:
        yield Feature(f"scores capped at {config.attention_softcap:g}", ATTENTION)
    if config.attention_scale is not None:
        yield Feature(f"scores times {config.attention_scale:g}", ATTENTION)
    if "sinks" in parts:
        yield Feature("attention sinks", ATTENTION)


def _rotation(config: ModelConfig) -> Iterator[Feature]:
    ropes: dict[RopeConfig | None, list[LayerKind]] = {}
    for kind in config.kinds:
        ropes.setdefault(kind.rope, []).append(kind)
    for rope, kinds in ropes.items():
        place = "" if len(ropes) == 1 else f" in {_layer_share(len(kinds), config.layers)}"
        yield Feature(f"{_turn(rope, config)}{place}", ROPE)


def _turn(rope: RopeConfig | None, config: ModelConfig) -> str:
    if rope is None:
        return "no rotary embedding"
    part = "" if rope.rotary_dim == config.head_dim else f" of {rope.rotary_dim} of {config.head_dim} dimensions"
    scaling = "" if rope.scaling is RopeScaling.NONE else f", {rope.scaling.value} scaling"
    growth = ", queries growing with their position" if rope.query_growth else ""
    return f"rotary embedding{part}, base {rope.theta:g}{scaling}{growth}"


def _mlp(config: ModelConfig) -> Iterator[Feature]:
    activation = config.hidden_activation.replace("_", " ")
    if config.swiglu_limit is not None:
        activation += f", cut off at {config.swiglu_limit:g}"
    if config.up_offset:
        activation += f", up plus {config.up_offset:g}"
    sparse = sum(kind.sparse for kind in config.kinds)
    if sparse < config.layers:
        kind = "gated MLP" if config.gated else "MLP without a gate"
        place = f" in {_layer_share(config.layers - sparse, config.layers)}" if sparse else ""
        yield Feature(f"{kind}, {activation}{place}", COMPOSITIONS)
    if config.experts is not None and sparse:
        place = "" if sparse == config.layers else f" in {_layer_share(sparse, config.layers)}"
        yield Feature(f"{_mixture(config.experts)}, {activation}{place}", EXPERTS)


def _mixture(experts: ExpertsConfig) -> str:
    weighted = "weighted " if experts.shared_weight else ""
    shared = f" and a {weighted}shared one" if experts.shared_size else ""
    weights = "weights that sum to 1" if experts.normalised else "weights as they come"
    return f"{experts.chosen} of {experts.count} experts for a token{shared}, {weights}"


def _head(config: ModelConfig) -> Iterator[Feature]:
    if config.pooling is not None:
        yield Feature(f"vectors of texts: pooling {config.pooling}", EMBEDDER)
    if config.encoder:
        return
    if config.tie_embeddings:
        yield Feature("head tied to the embedding", PARAMS)
    if config.logit_scale != 1:
        yield Feature(f"logits times {config.logit_scale:g}", COMPOSITIONS)
    if config.logit_softcap is not None:
        yield Feature(f"logits capped at {config.logit_softcap:g}", COMPOSITIONS)


def _layer_share(count: int, layers: int) -> str:
    return "every layer" if count == layers else f"{count} of {layers} layers"

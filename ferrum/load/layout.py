"""Where a file keeps the tensors of a model: names, and how rows lie in them.

Owns: `Layout`, the vocabulary in which a family says how its files are laid out, and what comes of reading a file's
description. Refuses to know: families, file formats.
Specs: LOAD-30 to LOAD-37, LOAD-92. Next: `ferrum.load.layer_rules`.
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from dataclasses import dataclass, field, replace

import numpy as np

from ferrum.config import ModelConfig

STACKED, GROUPED, ALTERNATING = "stacked", "grouped", "alternating"
"""How fields that share a tensor share its rows: one field below the other; for every key/value head its queries, its
key and its value; or in turns."""


@dataclass(frozen=True)
class Layout:
    """Names of tensors in a file, without ".weight" or ".bias". `layer` maps the parts of a layer to names in which
    {layer}, {expert} and {head} stand for numbers; a part that has no name there is none of the model's. An encoder has
    neither `norm` nor `head`, which are empty."""

    embedding: str
    norm: str
    head: str
    layer: Mapping[str, str]
    positions: str | None = None
    first_position: int = 0
    """The row of the first position; those before it are for padding."""
    token_types: str | None = None
    """Rows of which the first is added to every token: the others are for what only pairs of texts have."""
    embedding_norm: str | None = None
    joined: Mapping[str, str] = field(default_factory=dict)
    """By part: how its tensor is shared, where not STACKED. Parts with the same name share a tensor, in their order."""
    interleaved: frozenset[str] = frozenset()
    """Parts whose rows lie in interleaved RoPE order: the pair (i, i + rotary_dim / 2) of a head is stored as
    neighbours (2i, 2i + 1)."""
    transposed: bool = False
    """Do the linears of layers lie as [in, out]?"""
    transposed_experts: bool = False
    """Do dense matrices of experts?"""
    norm_offset: float = 0.0
    """What is added to the weight of every norm."""
    derived: Mapping[str, int] = field(default_factory=dict)
    """Ends of names of tensors that hold nothing the model needs, derived buffers or facts that the configuration took,
    and how many dimensions such a tensor has at least."""
    others: tuple[Mapping[str, str], ...] = ()
    """Other names of some parts, which count where a layer in the file has the first of them."""
    prefix: str = ""
    """What all names but the head's begin with, and lack where only the part without a head was saved."""

    def is_derived(self, name: str, dimensions: int) -> bool:
        """Can a tensor of that name be left where it is?"""
        ends = [end for end in self.derived if name == end or name.endswith("." + end)]
        return any(dimensions >= self.derived[end] for end in ends)

    def fitted(self, names: Collection[str]) -> Layout:
        """The same by the names in a file: parts may be called otherwise, and all names may lack the prefix."""
        for other in self.others:
            first = next(iter(other.values())).partition("{layer}")[2]
            if any(name.removesuffix(".weight").endswith(first) for name in names):
                return replace(self, layer={**self.layer, **other}, others=()).fitted(names)
        if not self.prefix or any(name.startswith(self.prefix) for name in names):
            return self
        layer = {part: name.removeprefix(self.prefix) for part, name in self.layer.items()}
        places = ("embedding", "norm", "positions", "token_types", "embedding_norm")
        named = {place: getattr(self, place) for place in places if getattr(self, place) is not None}
        others = {place: name.removeprefix(self.prefix) for place, name in named.items()}
        return replace(self, **others, layer=layer, prefix="")

    def without(self, parts: Collection[str]) -> Layout:
        """The same for a model that lacks some parts."""
        return replace(self, layer={part: name for part, name in self.layer.items() if part not in parts})

    def sharing(self, part: str) -> list[str]:
        """All parts that are in one tensor with this one, itself among them. Norms are used twice, never shared out."""
        if part.endswith("_norm"):
            return [part]
        return [other for other, name in self.layer.items() if name == self.layer[part]]


@dataclass(frozen=True)
class Description:
    """What a model's files say of it: what is computed, where each tensor is, and which linears have a bias (None:
    those for which there is one)."""

    config: ModelConfig
    layout: Layout
    biases: frozenset[str] | None


def rows_of(layout: Layout, part: str, sizes: Mapping[str, int], config: ModelConfig) -> slice | np.ndarray | None:
    """Which rows of its tensor are a part's, in our order; None for all of them as they are. `sizes`: the rows of
    every part."""
    parts = layout.sharing(part)
    rows: slice | np.ndarray | None = None
    if len(parts) > 1:
        rows = _shared_rows(layout.joined.get(part, STACKED), parts, part, sizes, config)
    if part not in layout.interleaved:
        return rows
    order = half_split_order(sizes[part], config)
    return order if rows is None else np.arange(sum(sizes[each] for each in parts))[rows][order]


def _shared_rows(
    way: str, parts: list[str], part: str, sizes: Mapping[str, int], config: ModelConfig
) -> slice | np.ndarray:
    if way == STACKED:
        start = sum(sizes[each] for each in parts[: parts.index(part)])
        return slice(start, start + sizes[part])
    numbers = np.arange(sum(sizes[each] for each in parts))
    if way == ALTERNATING:
        return numbers.reshape(-1, len(parts))[:, parts.index(part)]
    group = config.heads // config.kv_heads
    heads = numbers.reshape(config.kv_heads, group + 2, config.head_dim)
    own = {"query": heads[:, :group], "key": heads[:, group], "value": heads[:, group + 1]}
    return own[part].reshape(-1)


def half_split_order(rows: int, config: ModelConfig) -> np.ndarray:
    """Which stored row comes i-th, to undo interleaved RoPE order: int64 [rows].

    Interleaved, the rotating rows of a head are pairs of neighbours; half-split, all first partners come before all
    second ones. Rows that do not rotate stay where they are.
    """
    dim = config.head_dim
    rotary = next((kind.rope.rotary_dim for kind in config.kinds if kind.rope is not None), dim)
    heads = np.arange(rows).reshape(-1, dim)
    turning = heads[:, :rotary].reshape(-1, rotary // 2, 2).swapaxes(1, 2).reshape(-1, rotary)
    return np.concatenate((turning, heads[:, rotary:]), 1).reshape(rows)


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """[out, in] of every linear of a layer."""
    hidden, query, key = config.hidden_size, config.heads * config.head_dim, config.kv_heads * config.head_dim
    shapes = {"query": (query, hidden), "key": (key, hidden), "value": (key, hidden), "output": (hidden, query)}
    shapes |= _mlp_shapes("", config.intermediate_size, hidden)
    if config.experts is not None:
        shapes |= {"router": (config.experts.count, hidden), "shared_weight": (1, hidden)}
        shapes |= _mlp_shapes("expert_", config.experts.intermediate_size, hidden)
        shapes |= _mlp_shapes("shared_", config.experts.shared_size, hidden)
    return shapes


def _mlp_shapes(prefix: str, middle: int, hidden: int) -> dict[str, tuple[int, int]]:
    return {f"{prefix}gate": (middle, hidden), f"{prefix}up": (middle, hidden), f"{prefix}down": (hidden, middle)}

"""Where a file keeps the tensors of a model: their names, and the order of their rows.

Owns: `Layout`, in which a family says how its files are laid out, and `Description`, what the files of a model say.
Refuses to know: families, file formats.
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
    """Names of tensors in a file, without ".weight" or ".bias". `layer` maps the parts of a layer to names, in which
    {layer}, {expert} and {head} stand for numbers. The model lacks a part that has no name there. An encoder has
    neither `norm` nor `head`: they are empty."""

    embedding: str
    norm: str
    head: str
    layer: Mapping[str, str]
    positions: str | None = None
    first_position: int = 0
    """The row of the first position. The rows before it are for padding."""
    token_types: str | None = None
    """A table whose first row is added to every token. The other rows are for pairs of texts."""
    embedding_norm: str | None = None
    joined: Mapping[str, str] = field(default_factory=dict)
    """How parts share a tensor, if not STACKED. Parts with the same name share a tensor, in their order."""
    interleaved: frozenset[str] = frozenset()
    """Parts whose rows are in interleaved RoPE order: the pair (i, i + rotary_dim / 2) of a head is stored as the
    neighbours (2i, 2i + 1)."""
    transposed: bool = False
    """True if the linears of layers are stored as [in, out]."""
    transposed_experts: bool = False
    """True if dense matrices of experts are stored as [in, out]."""
    norm_offset: float = 0.0
    """A number that is added to the weight of every norm."""
    derived: Mapping[str, int] = field(default_factory=dict)
    """Ends of names of tensors that the model does not need, such as derived buffers and facts that the configuration
    has; and the least number of dimensions of such a tensor."""
    alternatives: tuple[Mapping[str, str], ...] = ()
    """Other names of some parts. A table of them is used if a layer of the file has the first name in it."""
    prefix: str = ""
    """The beginning of all names but the head's. It is missing in files that were saved without the head."""

    def is_derived(self, name: str, dimensions: int) -> bool:
        """True if a tensor of that name is not needed."""
        ends = [end for end in self.derived if name == end or name.endswith("." + end)]
        return any(dimensions >= self.derived[end] for end in ends)

    def fitted(self, names: Collection[str]) -> Layout:
        """The layout with the names that a file uses: parts may have other names, and all names may lack the prefix."""
        for names_of_parts in self.alternatives:
            first = next(iter(names_of_parts.values())).partition("{layer}")[2]
            if any(name.removesuffix(".weight").endswith(first) for name in names):
                return replace(self, layer={**self.layer, **names_of_parts}, alternatives=()).fitted(names)
        if not self.prefix or any(name.startswith(self.prefix) for name in names):
            return self
        layer = {part: name.removeprefix(self.prefix) for part, name in self.layer.items()}
        places = ("embedding", "norm", "positions", "token_types", "embedding_norm")
        present = {place: getattr(self, place) for place in places if getattr(self, place) is not None}
        shortened = {place: name.removeprefix(self.prefix) for place, name in present.items()}
        return replace(self, **shortened, layer=layer, prefix="")

    def without(self, parts: Collection[str]) -> Layout:
        """The layout of a model that lacks these parts."""
        return replace(self, layer={part: name for part, name in self.layer.items() if part not in parts})

    def sharing(self, part: str) -> list[str]:
        """All parts in the same tensor as this part, itself included. Norms are used twice, but not divided."""
        if part.endswith("_norm"):
            return [part]
        return [each for each, name in self.layer.items() if name == self.layer[part]]


@dataclass(frozen=True)
class Description:
    """What the files of a model say: what is computed, where each tensor is, and which linears have a bias (None: those
    for which the file has one)."""

    config: ModelConfig
    layout: Layout
    biases: frozenset[str] | None


def rows_of(layout: Layout, part: str, sizes: Mapping[str, int], config: ModelConfig) -> slice | np.ndarray | None:
    """The rows of its tensor that belong to a part, in our order; None for all rows as they are. `sizes`: the rows of
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
    arrangement: str, parts: list[str], part: str, sizes: Mapping[str, int], config: ModelConfig
) -> slice | np.ndarray:
    if arrangement == STACKED:
        start = sum(sizes[each] for each in parts[: parts.index(part)])
        return slice(start, start + sizes[part])
    numbers = np.arange(sum(sizes[each] for each in parts))
    if arrangement == ALTERNATING:
        return numbers.reshape(-1, len(parts))[:, parts.index(part)]
    group = config.heads // config.kv_heads
    heads = numbers.reshape(config.kv_heads, group + 2, config.head_dim)
    places = {"query": heads[:, :group], "key": heads[:, group], "value": heads[:, group + 1]}
    return places[part].reshape(-1)


def half_split_order(rows: int, config: ModelConfig) -> np.ndarray:
    """The stored row that comes i-th when interleaved RoPE order is undone: int64 [rows].

    In interleaved order the rotated rows of a head are pairs of neighbours; in half-split order all first partners come
    before all second ones. Rows that are not rotated keep their place.
    """
    dim = config.head_dim
    rotary = next((kind.rope.rotary_dim for kind in config.kinds if kind.rope is not None), dim)
    heads = np.arange(rows).reshape(-1, dim)
    turning = heads[:, :rotary].reshape(-1, rotary // 2, 2).swapaxes(1, 2).reshape(-1, rotary)
    return np.concatenate((turning, heads[:, rotary:]), 1).reshape(rows)


def linear_shapes(config: ModelConfig) -> dict[str, tuple[int, int]]:
    """The shape [out, in] of every linear of a layer."""
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

"""The parameter tree of a model: every weight has one place and one name.

Owns: `DecoderParams`, how parts make layers, and the walk over the whole tree. Differences between model families are
data here, never code: a part that a family lacks is None, a tied head is the embedding itself. Refuses to know: files
(`ferrum.load` fills the tree) and backends.
Specs: MODEL. Next: `ferrum.model.decoder`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cache
from typing import Any, TypeVar, cast

from ferrum.config import RopeConfig
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import Attention, Embedding, Experts, GatedMlp, Head, Norm, Part, PlainMlp
from ferrum.tensor.weights import Linear, Weight

FeedForward = GatedMlp | PlainMlp | Experts
Body = Attention | FeedForward


@dataclass(frozen=True, eq=False)
class Branch(Part):
    """One term that a layer adds to the residual stream x: scale · after(body(before(x))). `closing` is a norm of the
    sum itself, in models whose norms stand behind the residual connection."""

    body: Body
    before: Norm | None
    after: Norm | None = None
    scale: float = 1.0
    closing: Norm | None = None


Stage = tuple[Branch, ...]
"""Branches that read the same x; the sum of their results is added to it. One branch, or two if the residual is
parallel."""


@dataclass(frozen=True, eq=False)
class Layer(Part):
    """One decoder layer: its stages in order, and the rotary embedding of its queries and keys (None: not rotated)."""

    stages: tuple[Stage, ...]
    rope: RopeConfig | None

    def linears(self) -> Iterator[tuple[str, Linear]]:
        """Every linear with its name in its part: "query", "down", "experts.3.gate"."""
        for stage in self.stages:
            for branch in stage:
                yield from _linears(branch.body, "")


@dataclass(frozen=True, eq=False)
class DecoderParams(Part):
    """A whole decoder. A tied head is a Linear around the very object `embedding.table`. An encoder is the same without
    a head: it predicts no token."""

    embedding: Embedding
    layers: tuple[Layer, ...]
    head: Head | None

    def weights(self) -> Iterator[Weight]:
        """Every distinct matrix once."""
        seen: set[int] = set()
        for _, leaf in leaves(self):
            if isinstance(leaf, Weight) and id(leaf) not in seen:
                seen.add(id(leaf))
                yield leaf

    def vectors(self) -> Iterator[tuple[str, Tensor]]:
        """Every vector with its path in the tree. Together with `weights` this is the whole tree."""
        return ((name, leaf) for name, leaf in leaves(self) if not isinstance(leaf, Weight))

    def active(self) -> int:
        """The number of weights that one token is multiplied with: all matrices, but only the chosen ones of the
        experts."""
        idle = 0
        for layer in self.layers:
            for experts in (branch.body for stage in layer.stages for branch in stage):
                if isinstance(experts, Experts):
                    size, every = sum(_size(leaf) for _, leaf in leaves(experts.experts)), len(experts.experts)
                    idle += size * (every - experts.chosen) // every
        return sum(map(_size, self.weights())) - idle

    def to(self, ops: TensorOps) -> DecoderParams:
        """The same tree with every array on the backend: vectors in its float type, matrices as they are stored.
        Objects that were shared, such as a tied head, stay shared."""
        placed: dict[int, Any] = {}

        def place(leaf: Weight | Tensor) -> Weight | Tensor:
            if id(leaf) not in placed:
                if isinstance(leaf, Weight):
                    placed[id(leaf)] = replace(leaf, data=ops.asarray(leaf.data, _dtype_name(leaf.data.dtype)))
                else:
                    placed[id(leaf)] = ops.asarray(leaf, ops.float_dtype)
            return placed[id(leaf)]

        return mapped(self, place)


def _size(leaf: Weight | Tensor) -> int:
    """Numbers in a matrix; a vector counts as 0."""
    return leaf.rows * leaf.columns if isinstance(leaf, Weight) else 0


_dtype_name = cache(str)  # NumPy formats a type's name slowly, a model has hundreds of matrices
_PLAIN = (int, float, str, bool, RopeConfig, type(None))
Tree = TypeVar("Tree")


def _linears(tree: Any, path: str) -> Iterator[tuple[str, Linear]]:
    for name, value in _children(tree):
        if isinstance(value, Linear):
            yield path + name, value
        elif isinstance(value, (Part, tuple)):
            yield from _linears(value, f"{path}{name}.")


def leaves(tree: Any, path: str = "") -> Iterator[tuple[str, Weight | Tensor]]:
    """Every weight and every vector in a tree of parts, with its path: "layers.0.stages.1.0.before.weight"."""
    for name, value in _children(tree):
        place = f"{path}.{name}" if path else name
        if isinstance(value, (Part, Linear, tuple)):
            yield from leaves(value, place)
        elif not isinstance(value, _PLAIN):
            yield place, value


def mapped(tree: Tree, change: Callable[[Weight | Tensor], Weight | Tensor]) -> Tree:
    """The same tree with `change` applied to every weight and every vector."""
    return cast(Tree, _mapped(tree, change))


def _mapped(tree: Any, change: Callable[[Weight | Tensor], Weight | Tensor]) -> Any:
    if isinstance(tree, tuple):
        return tuple(_mapped(each, change) for each in tree)
    if isinstance(tree, (Part, Linear)):
        return replace(tree, **{name: _mapped(value, change) for name, value in _children(tree)})  # type: ignore[type-var]
    return tree if isinstance(tree, _PLAIN) else change(tree)


def _children(tree: Any) -> list[tuple[str, Any]]:
    if isinstance(tree, tuple):
        return [(str(number), each) for number, each in enumerate(tree)]
    return [(field.name, getattr(tree, field.name)) for field in fields(tree)]

"""From a file of tensors to the parameter tree.

Owns: which tensor is which part, the check of every shape, and the refusal of tensors that no part needs: a tensor that
is not used is a computation that is missing. Refuses to know: file formats, families, how parts make a decoder
(`ferrum.load.tree`).
Specs: LOAD-30 to LOAD-37, LOAD-92. Next: `ferrum.load.shapes`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace
from functools import cached_property

import numpy as np

from ferrum.config import ModelConfig
from ferrum.errors import ModelError, Unsupported, warn
from ferrum.load.conversion import check_dtype, convert, to_float32
from ferrum.load.layout import Layout, half_split_order, linear_shapes, rows_of
from ferrum.load.layouts_json import LLAMA
from ferrum.load.source import TensorSource
from ferrum.load.tree import decoder
from ferrum.mapping import give_back
from ferrum.model.params import DecoderParams
from ferrum.tensor.parts import Norm
from ferrum.tensor.weights import Dense, Linear, Weight

COMPARED_ROWS = 1024
Rows = slice | np.ndarray | None


def build_params(
    source: TensorSource,
    config: ModelConfig,
    dtype: str = "auto",
    layout: Layout = LLAMA,
    biases: Set[str] | None = None,
) -> DecoderParams:
    """The parameters of a decoder, as NumPy arrays: matrices in type `dtype`, vectors in float32.

    `biases` names the linears that must have a bias; None means those for which the source has one. Raises `ModelError`
    for a missing tensor, a wrong shape or a value that `dtype` cannot store; `Unsupported` for a tensor of unknown type
    and for tensors that the model has no part for.
    """
    check_dtype(dtype)
    taker = Taker(source, config, dtype, layout, biases)
    params = decoder(config, taker)
    taker.check_unused()
    return params


class Taker:
    """The tensors of a source, and which of them are not used yet."""

    def __init__(
        self, source: TensorSource, config: ModelConfig, dtype: str, layout: Layout, biases: Set[str] | None
    ) -> None:
        self.source, self.config, self.dtype, self.biases = source, config, dtype, biases
        self.unused = set(source.names())
        self.layout = layout.fitted(self.unused)
        self.shapes = linear_shapes(config)
        self._sizes = {part: shape[0] for part, shape in self.shapes.items()}

    # ---- before and after the layers
    def table(self) -> Weight:
        return self._tables[0]

    def head(self) -> Linear:
        return Linear(self._tables[1], self.bias_at(self.layout.head, "head", self.config.vocab_size))

    @cached_property
    def _tables(self) -> tuple[Weight, Weight]:
        """The embedding and the head. A tied head is the embedding. A file may store it under either name, or under
        both. If both hold the same numbers it is stored once; if they differ, each is used as it is."""
        embedding, head = f"{self.layout.embedding}.weight", f"{self.layout.head}.weight"
        table, unused = (self.config.vocab_size, self.config.hidden_size), self.unused
        if self.config.encoder:
            only = self.matrix(embedding, table)
            return only, only
        if not self.config.tie_embeddings:
            if embedding in unused and head not in unused:
                raise ModelError(
                    f"{self.source.path}: tensor {head} is missing, and the configuration does not tie it to "
                    f"{embedding}; without a head, a model cannot tell which token comes next"
                )
            return self.matrix(embedding, table), self.matrix(head, table)
        if head not in unused or embedding not in unused:
            tied = self.matrix(head if embedding not in unused and head in unused else embedding, table)
            return tied, tied
        self.check_shape(head, table)
        first = self.matrix(embedding, table)
        if _same_numbers(self.source.weight(head), self.source.weight(embedding)):
            return first, first
        warn(f"{self.source.path}: the configuration ties {head} to {embedding}, but they differ; both are used")
        return first, self.matrix(head, table)

    def positions(self) -> Weight | None:
        if self.layout.positions is None:
            return None
        first = self.layout.first_position
        shape = (first + self.config.max_positions, self.config.hidden_size)
        return self.matrix(f"{self.layout.positions}.weight", shape, slice(first, None) if first else None)

    def common(self) -> np.ndarray | None:
        """The vector of the first segment, which every token gets: there is only one text."""
        if self.layout.token_types is None:
            return None
        name = f"{self.layout.token_types}.weight"
        types = self.source.describe(name).shape[:1]
        common: np.ndarray = self.vector(name, (*types, self.config.hidden_size))[0]
        return common

    def embedding_norm(self) -> Norm | None:
        return None if self.layout.embedding_norm is None else self._stream_norm(self.layout.embedding_norm)

    def last_norm(self) -> Norm:
        return self._stream_norm(self.layout.norm)

    # ---- linears
    def linear(self, part: str, layer: int) -> Linear:
        """The linear that a layer calls by this name, cut out of its tensor if it shares one."""
        name, stored, transposed = self._name(part, layer), self._stored(part), self.layout.transposed
        self.check_shape(f"{name}.weight", stored[::-1] if transposed else stored)  # before rows are selected
        rows = rows_of(self.layout, part, self._sizes, self.config)
        weight = self.matrix(f"{name}.weight", stored, rows, transposed)
        return Linear(weight, self.bias_at(name, part, stored[0], rows))

    def experts(self, part: str, layer: int) -> list[Linear]:
        """One linear for each expert, from tensors of their own or from one tensor that holds all."""
        assert self.config.experts is not None
        count, (rows, columns) = self.config.experts.count, self._stored(part)
        if "{expert}" in self.layout.layer[part]:
            names = (self._name(part, layer, expert=number) for number in range(count))
            return [
                Linear(self.matrix(f"{name}.weight", (rows, columns)), self.bias_at(name, part, rows)) for name in names
            ]
        name = self._name(part, layer)
        stack = self._stack(name, (count, rows, columns))
        part_rows = rows_of(self.layout, part, self._sizes, self.config)
        weights = [convert(_cut(each, part_rows), self.dtype, name) for each in stack]
        biases = self._biases(name, part, (count, rows), part_rows)
        return [Linear(weight, bias) for weight, bias in zip(weights, biases, strict=True)]

    def _stack(self, name: str, shape: tuple[int, int, int]) -> list[Weight]:
        """The matrices of a three-dimensional tensor."""
        names = self.source.names()
        name = next((each for each in (f"{name}.weight", name) if each in names), f"{name}.weight")
        turned = self.layout.transposed_experts and self.source.describe(name).type in _DENSE
        self.check_shape(name, (shape[0], shape[2], shape[1]) if turned else shape)
        matrices = self.source.stack(name)
        return [_turned(each) for each in matrices] if turned else list(matrices)

    def _biases(self, name: str, part: str, shape: tuple[int, int], rows: Rows) -> list[np.ndarray] | list[None]:
        names = self.source.names()
        name = next((each for each in (f"{name}.bias", f"{name}_bias") if each in names), f"{name}.bias")
        if not (name in names if self.biases is None else part in self.biases):
            return [None] * shape[0]
        vectors = self.vector(name, shape)
        return [_picked(each, rows) for each in vectors]

    def matrix(self, name: str, shape: tuple[int, int], rows: Rows = None, transposed: bool = False) -> Weight:
        self.check_shape(name, shape[::-1] if transposed else shape)
        stored = self.source.weight(name)
        weight = convert(_cut(_turned(stored) if transposed else stored, rows), self.dtype, name)
        if not np.may_share_memory(weight.data, stored.data):
            give_back(stored.data)  # these pages of the file are not read again
        return weight

    def bias_at(self, name: str, part: str, length: int, rows: Rows = None) -> np.ndarray | None:
        """The bias of a linear, if it has one."""
        if not (f"{name}.bias" in self.source.names() if self.biases is None else part in self.biases):
            return None
        return _picked(self.vector(f"{name}.bias", (length,)), rows)

    # ---- vectors
    def norm(self, part: str, layer: int) -> Norm | None:
        """The norm that a layer calls by this name; None if it has none."""
        return self._stream_norm(self._name(part, layer)) if part in self.layout.layer else None

    def _stream_norm(self, name: str) -> Norm:
        """A norm of the residual stream. Either all of them have a bias or none has, and only centred ones may; any
        other bias is an unknown tensor."""
        norm = self.norm_at(name, (self.config.hidden_size,))
        example_norm = self.layout.norm or self.layout.embedding_norm
        if not self.config.layer_norm or f"{example_norm}.bias" not in self.source.names():
            return norm
        return replace(norm, bias=self.vector(f"{name}.bias", (self.config.hidden_size,)))

    def norm_at(self, name: str, *shapes: tuple[int, ...]) -> Norm:
        """The norm of this name, in one of these shapes, without a bias."""
        weight = self.vector(f"{name}.weight", *shapes)
        if self.layout.norm_offset:
            weight = weight + np.float32(self.layout.norm_offset)
        return Norm(weight, self.config.norm_epsilon, centred=self.config.layer_norm)

    def head_norm(self, part: str, layer: int, heads: int) -> Norm | None:
        """The norm of queries or keys, without a bias: one for every head, one for each head, or one for all heads
        together."""
        if part not in self.layout.layer:
            return None
        dim, name = self.config.head_dim, self._name(part, layer)
        if "{head}" in name:
            norms = [self.norm_at(name.format(head=head), (dim,)) for head in range(heads)]
            return replace(norms[0], weight=np.stack([norm.weight for norm in norms]))
        norm = self.norm_at(name, (dim,), (heads, dim), (heads * dim,))
        if part.removesuffix("_norm") not in self.layout.interleaved:
            return norm
        order = half_split_order(norm.weight.size, self.config)
        return replace(norm, weight=norm.weight.reshape(-1)[order].reshape(norm.weight.shape))

    def sinks(self, layer: int) -> np.ndarray | None:
        if "sinks" not in self.layout.layer:
            return None
        name = self._name("sinks", layer)
        return self.vector(f"{name}.weight" if f"{name}.weight" in self.unused else name, (self.config.heads,))

    def vector(self, name: str, *shapes: tuple[int, ...]) -> np.ndarray:
        """float32, in one of these shapes. A vector of two parts is read twice."""
        self.check_shape(name, *shapes)
        return self.source.vector(name)

    # ---- names and shapes
    def _name(self, part: str, layer: int, **numbers: int) -> str:
        name = self.layout.layer[part].replace("{layer}", str(layer))
        return name.format(**numbers) if numbers else name

    def _stored(self, part: str) -> tuple[int, int]:
        """The shape of the whole tensor that contains a part."""
        return sum(self._sizes[each] for each in self.layout.sharing(part)), self.shapes[part][1]

    def check_shape(self, name: str, *expected: tuple[int, ...]) -> None:
        """Marks a tensor as used. Raises ModelError if it is missing or has none of these shapes."""
        actual = self.source.describe(name).shape
        if actual not in expected:
            tensor, expected_shapes = (
                f"{self.source.path}: tensor {name}",
                " or ".join(str(list(shape)) for shape in expected),
            )
            raise ModelError(f"{tensor} has shape {list(actual)}, but the configuration asks for {expected_shapes}")
        self.unused.discard(name)

    def check_unused(self) -> None:
        """Raises Unsupported if a tensor is not used."""
        dimensions = {name: len(self.source.describe(name).shape) for name in self.unused}
        unknown = sorted(name for name in self.unused if not self.layout.is_derived(name, dimensions[name]))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise Unsupported(
                f"{self.source.path}: tensor {unknown[0]}{more} has no place in architecture {self.config.architecture}"
            )


def _same_numbers(first: Weight, second: Weight) -> bool:
    """True if two weights of one shape are equal. Compared a few rows at a time: a vocabulary in float32 may take
    gigabytes."""

    def rows(weight: Weight, start: int) -> np.ndarray:
        return to_float32(replace(weight, data=weight.data[start : start + COMPARED_ROWS]))

    starts = range(0, first.rows, COMPARED_ROWS)
    return all(np.array_equal(rows(first, start), rows(second, start)) for start in starts)


_DENSE = ("F32", "F16", "BF16", "F64")


def _cut(weight: Weight, rows: Rows) -> Weight:
    """Some rows of a weight. Rows are whole in every format, so stored bytes can be cut."""
    return weight if rows is None else replace(weight, data=weight.data[rows])


def _picked(vector: np.ndarray, rows: Rows) -> np.ndarray:
    return np.ascontiguousarray(vector if rows is None else vector[rows])


def _turned(weight: Weight) -> Weight:
    """A dense matrix, transposed."""
    if not isinstance(weight, Dense):
        raise Unsupported(f"a transposed matrix cannot be stored as {weight.kind}")
    return Dense(np.ascontiguousarray(weight.data.T))

"""From a file of tensors to the parameter tree.

Owns: which tensor goes where, the check of every shape, undoing the row order of GGUF, and the refusal of tensors that
nobody asked for: a tensor left over is mathematics left out. Refuses to know: file formats.
Specs: LOAD-30 to LOAD-37. Next: `ferrum.model.params`.
"""

from __future__ import annotations

from collections.abc import Set
from dataclasses import replace

import numpy as np

from ferrum.config import ModelConfig
from ferrum.errors import ModelError, Unsupported, warn
from ferrum.load.conversion import check_dtype, convert, to_float32
from ferrum.load.families import HUGGING_FACE_LAYOUT, Layout
from ferrum.load.source import TensorSource
from ferrum.model.params import DecoderParams, LayerParams
from ferrum.tensor.weights import Linear, Weight

COMPARED_ROWS = 1024


def build_params(
    source: TensorSource,
    config: ModelConfig,
    dtype: str = "auto",
    layout: Layout = HUGGING_FACE_LAYOUT,
    biases: Set[str] | None = None,
) -> DecoderParams:
    """The parameters of a decoder, as NumPy arrays: matrices in type `dtype`, vectors in float32.

    `biases` names the linears that must have a bias; None takes those that the source has.
    Raises `ModelError` for a missing tensor, a wrong shape or a value that `dtype` cannot store; `Unsupported` for a
    tensor of unknown type and for tensors that the model has no place for.
    """
    check_dtype(dtype)
    return _Builder(source, config, dtype, layout, biases).build()


def half_split_order(rows: int, heads: int) -> np.ndarray:
    """Which stored row comes i-th, to undo interleaved RoPE order: int64 [rows].

    Interleaved, a head's rows are pairs of neighbours; half-split, all first partners come before all second ones.
    """
    return np.arange(rows).reshape(heads, rows // heads // 2, 2).swapaxes(1, 2).reshape(rows)


def _same_numbers(first: Weight, second: Weight) -> bool:
    """Two weights of one shape, compared a few rows at a time: in float32, a whole vocabulary may be gigabytes."""

    def rows(weight: Weight, start: int) -> np.ndarray:
        return to_float32(replace(weight, data=weight.data[start : start + COMPARED_ROWS]))

    starts = range(0, first.rows, COMPARED_ROWS)
    return all(np.array_equal(rows(first, start), rows(second, start)) for start in starts)


class _Builder:
    def __init__(
        self, source: TensorSource, config: ModelConfig, dtype: str, layout: Layout, biases: Set[str] | None
    ) -> None:
        self.source, self.config, self.dtype, self.biases = source, config, dtype, biases
        self.left = set(source.names())
        self.layout = layout.fitted(self.left)
        query, key = config.heads * config.head_dim, config.kv_heads * config.head_dim
        self.shapes: dict[str, tuple[int, int]] = {
            "query": (query, config.hidden_size),
            "key": (key, config.hidden_size),
            "value": (key, config.hidden_size),
            "output": (config.hidden_size, query),
            "gate": (config.intermediate_size, config.hidden_size),
            "up": (config.intermediate_size, config.hidden_size),
            "down": (config.hidden_size, config.intermediate_size),
        }

    def build(self) -> DecoderParams:
        config = self.config
        embedding, head = self.embedding_and_head(f"{self.layout.embedding}.weight", f"{self.layout.head}.weight")
        layers = tuple(self.layer(number) for number in range(config.layers))
        norm = self.vector(f"{self.layout.norm}.weight", config.hidden_size)
        self.check_left()
        return DecoderParams(embedding, layers, norm, Linear(head))

    def embedding_and_head(self, embedding: str, head: str) -> tuple[Weight, Weight]:
        """A tied head is the embedding. A file may hold it under either name, or under both: as the same numbers, or
        as others, which then count."""
        table = (self.config.vocab_size, self.config.hidden_size)
        if not self.config.tie_embeddings:
            if embedding in self.left and head not in self.left:
                raise ModelError(
                    f"{self.source.path}: tensor {head} is missing, and the configuration does not tie it to "
                    f"{embedding}; without a head, a model cannot tell which token comes next"
                )
            return self.matrix(embedding, table), self.matrix(head, table)
        if head not in self.left or embedding not in self.left:
            tied = self.matrix(head if embedding not in self.left and head in self.left else embedding, table)
            return tied, tied
        self.check_shape(head, table)
        first = self.matrix(embedding, table)
        if _same_numbers(self.source.weight(head), self.source.weight(embedding)):
            return first, first
        warn(f"{self.source.path}: the configuration ties {head} to {embedding}, but they differ; both are used")
        return first, self.matrix(head, table)

    def layer(self, number: int) -> LayerParams:
        names = {field: self.layout.name(field, number) for field in self.layout.layer}
        attention_norm, mlp_norm = (
            self.vector(f"{names[field]}.weight", self.config.hidden_size) for field in ("attention_norm", "mlp_norm")
        )
        linears = {field: self.linear(field, names[field]) for field in self.shapes}
        return LayerParams(attention_norm=attention_norm, mlp_norm=mlp_norm, **linears)

    def linear(self, field: str, name: str) -> Linear:
        rows, columns = self.shapes[field]
        weight = self.matrix(f"{name}.weight", (rows, columns), field in self.layout.interleaved)
        if not (f"{name}.bias" in self.left if self.biases is None else field in self.biases):
            return Linear(weight)
        bias = self.vector(f"{name}.bias", rows)
        return Linear(weight, bias[self.order(rows)] if field in self.layout.interleaved else bias)

    def matrix(self, name: str, shape: tuple[int, int], interleaved: bool = False) -> Weight:
        self.check_shape(name, shape)
        weight = self.source.weight(name)
        if interleaved:  # rows are whole in every format, so this works on stored bytes
            weight = replace(weight, data=weight.data[self.order(weight.rows)])
        return convert(weight, self.dtype, name)

    def order(self, rows: int) -> np.ndarray:
        """As `half_split_order`, for rows that a tensor is known to have: the configuration may say any number."""
        return half_split_order(rows, rows // self.config.head_dim)

    def vector(self, name: str, length: int) -> np.ndarray:
        self.check_shape(name, (length,))
        return self.source.vector(name)

    def check_shape(self, name: str, expected: tuple[int, ...]) -> None:
        found = self.source.describe(name).shape
        if found != expected:
            where = f"{self.source.path}: tensor {name}"
            raise ModelError(f"{where} has shape {list(found)}, but the configuration asks for {list(expected)}")
        self.left.discard(name)

    def check_left(self) -> None:
        dimensions = {name: len(self.source.describe(name).shape) for name in self.left}
        unknown = sorted(name for name in self.left if not self.layout.is_derived(name, dimensions[name]))
        if unknown:
            more = f" and {len(unknown) - 1} more" if len(unknown) > 1 else ""
            raise Unsupported(
                f"{self.source.path}: tensor {unknown[0]}{more} has no place in architecture {self.config.architecture}"
            )

"""The inputs of properties: shapes, values, memory layouts, weights.

Owns: Hypothesis strategies for the inputs of every operation, and how a host array becomes a tensor in a given layout.
Refuses to know: what is computed with them.
Specs: OPS.

Small arrays are drawn element by element, so that a failure shrinks to a few readable numbers. Large ones are made from
a drawn seed, because drawing their elements would take too long. Next: `ferrum.conformance.large`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from enum import Enum
from functools import cached_property
from typing import Any

import numpy as np
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from numpy.typing import NDArray

from ferrum.conformance import weight_oracle
from ferrum.conformance.oracles import Array
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.k_quants import Q4_K, Q5_K, Q6_K
from ferrum.tensor.ops import Shape, Tensor, host_dtype
from ferrum.tensor.weights import Q4_0, Q4_1, Q8_0, Dense, Linear, Weight
from ferrum.testing.blocks import random_blocks

Host = NDArray[Any]


# ---- layouts


class Layout(Enum):
    """The ways in which the same values may lie in memory."""

    CONTIGUOUS = "contiguous"
    PERMUTED = "a permuted view of a transposed copy"
    SPLIT = "the middle of a wider tensor"
    STRIDED = "a host array of every second element"
    REVERSED = "a host array with negative strides"
    READ_ONLY = "a read-only host array, as a mapped file is"
    UNALIGNED = "a host array at an odd address, as a mapped file may be"


layouts = st.sampled_from(Layout)


def lay(ops: TensorOps, values: Host, layout: Layout = Layout.CONTIGUOUS, dtype: str | None = None) -> Tensor:
    """A tensor of the backend with these values, by default in the backend's float type."""
    dtype = dtype or ops.float_dtype
    values = np.array(values, host_dtype(dtype))
    if values.ndim == 0 or layout is Layout.CONTIGUOUS:
        return ops.asarray(values, dtype)
    if layout is Layout.PERMUTED:
        axes = tuple(reversed(range(values.ndim)))
        return ops.permute(ops.asarray(np.ascontiguousarray(values.T), dtype), axes)
    if layout is Layout.SPLIT:
        edge = np.full((*values.shape[:-1], 3), _garbage(dtype), values.dtype)
        wide = ops.asarray(np.concatenate([edge, values, edge], -1), dtype)
        return ops.split(wide, (3, values.shape[-1], 3), -1)[1]
    return ops.asarray(_HOST_VIEWS[layout](values), dtype)


def _garbage(dtype: str) -> float:
    return math.nan if "float" in dtype else 1


def _strided(values: Host) -> Host:
    wide = np.full((*values.shape[:-1], 2 * values.shape[-1]), _garbage(values.dtype.name), values.dtype)
    wide[..., ::2] = values
    return wide[..., ::2]


def _read_only(values: Host) -> Host:
    values.flags.writeable = False
    return values


def _unaligned(values: Host) -> Host:
    raw = np.zeros(values.nbytes + 1, np.uint8)
    raw[1:] = np.frombuffer(values.tobytes(), np.uint8)
    return raw[1:].view(values.dtype).reshape(values.shape)


_HOST_VIEWS: dict[Layout, Callable[[Host], Host]] = {
    Layout.STRIDED: _strided,
    Layout.REVERSED: lambda values: np.ascontiguousarray(values[..., ::-1])[..., ::-1],
    Layout.READ_ONLY: _read_only,
    Layout.UNALIGNED: _unaligned,
}


# ---- shapes and values


def shapes(low: int = 1, high: int = 3, side: int = 7) -> st.SearchStrategy[Shape]:
    return hnp.array_shapes(min_dims=low, max_dims=high, max_side=side)


# a step of one token, of a few, of a chunk: kernels usually differ between these
rows = st.one_of(st.integers(1, 5), st.integers(1, 40), st.sampled_from([63, 64, 65, 100, 130]))
# a few columns, more than a tile, whole blocks of 32, whole blocks of 256
columns = st.one_of(
    st.integers(1, 20), st.integers(21, 130), st.sampled_from([32, 64, 128, 160]), st.sampled_from([256, 512])
)
seeds = st.integers(0, 2**32 - 1)


@st.composite
def floats(draw: st.DrawFn, shape: Shape, low: float = -1e4, high: float = 1e4) -> NDArray[np.float32]:
    """Finite float32 in [low, high]: drawn one by one, normal, spread over magnitudes, or with many ties."""
    size = math.prod(shape)
    styles = ["normal", "spread", "ties", *(["drawn"] if size <= 24 else [])]
    style = draw(st.sampled_from(styles))
    if style == "drawn":
        low32, high32 = (float(np.float32(bound)) for bound in (low, high))
        elements = st.floats(low32, high32, width=32, allow_nan=False, allow_subnormal=False)
        return draw(hnp.arrays(np.float32, shape, elements=elements))
    random = np.random.default_rng(draw(seeds))
    values = random.standard_normal(shape)
    if style == "spread":
        values *= 10.0 ** random.uniform(-4, 4, shape)
    elif style == "ties":
        values = np.round(values)
    return np.clip(values, low, high).astype(np.float32)


@st.composite
def integers(draw: st.DrawFn, shape: Shape, dtype: str, low: int | None = None, high: int | None = None) -> Host:
    """Integers in [low, high], by default the whole range of the type, both ends included; or bool."""
    if dtype == "bool":
        return draw(hnp.arrays(np.bool_, shape))
    info = np.iinfo(host_dtype(dtype))
    low, high = (int(info.min) if low is None else low), (int(info.max) if high is None else high)
    return draw(hnp.arrays(host_dtype(dtype), shape, elements=st.integers(low, high)))


@st.composite
def broadcastable(draw: st.DrawFn, count: int) -> list[Shape]:
    """Shapes that broadcast together, scalars among them."""
    drawn = draw(hnp.mutually_broadcastable_shapes(num_shapes=count, max_dims=3, max_side=6))
    return list(drawn.input_shapes)


# ---- weights


@dataclass(frozen=True)
class WeightCase:
    """A weight as host data, with its values by the oracle and its layout on the backend."""

    kind: str
    data: Host
    layout: Layout

    @cached_property
    def _values_and_sizes(self) -> tuple[Array, Array]:
        return weight_oracle.dequantize(self.kind, self.data)

    @property
    def values(self) -> Array:
        return self._values_and_sizes[0]

    @property
    def sizes(self) -> Array:
        return self._values_and_sizes[1]

    def place(self, ops: TensorOps) -> Weight:
        tensor = lay(ops, self.data, self.layout, self.data.dtype.name)
        return WEIGHT_TYPES[self.kind](tensor)


WEIGHT_TYPES: dict[str, type[Weight]] = {
    "dense": Dense,
    "q8_0": Q8_0,
    "q4_0": Q4_0,
    "q4_1": Q4_1,
    "q4_k": Q4_K,
    "q5_k": Q5_K,
    "q6_k": Q6_K,
}
FLOAT_KINDS = ("float32", "float16", "bfloat16")
KINDS = (*FLOAT_KINDS, *weight_oracle.BLOCKS)

# matrices come from files: contiguous and mapped, at any address; or a slice of rows
weight_layouts = st.sampled_from([Layout.CONTIGUOUS, Layout.READ_ONLY, Layout.UNALIGNED])
weight_rows = st.one_of(st.integers(1, 9), st.integers(1, 70))


@st.composite
def weights(
    draw: st.DrawFn, rows: int | None = None, columns: int | None = None, kind: str | None = None
) -> WeightCase:
    """Any kind unless given; block formats only if the number of columns allows them."""
    if kind is None:
        kind = draw(st.sampled_from([each for each in KINDS if columns is None or columns % block_size(each) == 0]))
    rows = draw(weight_rows) if rows is None else rows
    random = np.random.default_rng(draw(seeds))
    layout = draw(weight_layouts)
    if kind in FLOAT_KINDS:
        columns = draw(st.integers(1, 100)) if columns is None else columns
        return WeightCase("dense", random.standard_normal((rows, columns)).astype(host_dtype(kind)), layout)
    if columns is None:
        size = block_size(kind)
        columns = size * draw(st.integers(1, 5 if size == 32 else 3))
    return WeightCase(kind, random_blocks(kind, (rows, columns), random, zeros=0.05), layout)


def block_size(kind: str) -> int:
    """The number of which the length of a row must be a multiple."""
    return 1 if kind in FLOAT_KINDS else weight_oracle.BLOCKS[kind].size


@dataclass(frozen=True)
class LinearCase:
    weight: WeightCase
    bias: NDArray[np.float32] | None

    @property
    def host_bias(self) -> Array | None:
        return None if self.bias is None else self.bias.astype(np.float64)

    def place(self, ops: TensorOps) -> Linear:
        return Linear(self.weight.place(ops), None if self.bias is None else lay(ops, self.bias))


@st.composite
def linears(
    draw: st.DrawFn, rows: int | None = None, columns: int | None = None, kind: str | None = None
) -> LinearCase:
    weight = draw(weights(rows, columns, kind))
    biased = draw(st.booleans())
    bias = draw(floats((weight.values.shape[0],), -10, 10)) if biased else None
    return LinearCase(weight, bias)


@st.composite
def siblings(draw: st.DrawFn, count: int, columns: int, rows: Sequence[int | None] = ()) -> list[LinearCase]:
    """Linears with the same input, as in a decoder layer: usually of one kind, not always."""
    sizes = list(rows) or [None] * count
    return [draw(linears(size, columns)) for size in sizes]

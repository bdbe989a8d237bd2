"""Words of operands that many launches share: weights, norms, MLPs, caches, rotary tables, and the batch of a step.

Owns: computing the words of an object once, not at every launch. The words are dropped together with the object, so no
address is used after its memory is freed, and no memory is kept after its model is gone.
Next: `ferrum.backends.numba_kernels.launching.weight_units`.
"""

from __future__ import annotations

import math
import weakref
from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any, Generic, TypeVar

import numpy as np

from ferrum.backends.numba_kernels.launching.launch import float_bits
from ferrum.backends.numba_kernels.launching.memory import address
from ferrum.backends.numba_kernels.launching.weight_units import Units
from ferrum.backends.numba_kernels.loading.features import HAS_HALF
from ferrum.backends.numba_kernels.loading.library import LIBRARY
from ferrum.backends.numba_kernels.sizes import BLOCK_COLUMNS, QUERY_ROWS, SHARE_ROWS, UNIT_SHARE_ROWS, VECTOR
from ferrum.tensor.batch import KvLayer, RopeTables, StepBatch
from ferrum.tensor.kv_q8 import Q8KvLayer
from ferrum.tensor.ops import Tensor
from ferrum.tensor.parts import ACTIVATIONS, GatedMlp, Norm, PlainMlp, sets_beyond
from ferrum.tensor.weights import BlockWeight, Dense, Linear, Weight

Words = TypeVar("Words")
_DENSE_KINDS = {"float32": "f32", "float16": "f16", "bfloat16": "bf16"}
_CACHE_TYPES = (np.dtype(np.float32), np.dtype(np.float16)) if HAS_HALF else (np.dtype(np.float32),)
_BLOCK_KINDS = ("q8_0", "q4_0", "q4_1", "q4_k", "q5_k", "q6_k")


class Remembered(Generic[Words]):
    """Results of a function by the identity of its arguments. A result is dropped when one of its arguments is
    freed."""

    def __init__(self, compute: Callable[..., Words]) -> None:
        self._compute = compute
        self._known: dict[tuple[int, ...], tuple[Words, list[weakref.ref[Any]]]] = {}

    def __call__(self, *subjects: Any) -> Words:
        key = tuple(map(id, subjects))
        known = self._known.get(key)
        if known is None:
            forget = partial(_forget, weakref.ref(self), key)
            known = self._known[key] = self._compute(*subjects), [weakref.ref(each, forget) for each in subjects]
        return known[0]


def _forget(owner: weakref.ref[Remembered[Any]], key: tuple[int, ...], _: weakref.ref[Any]) -> None:
    """Drops a result. A weak reference calls this when an argument is freed, before another object can get its id."""
    remembered = owner()
    if remembered is not None:
        remembered._known.pop(key, None)


@dataclass(frozen=True, eq=False)
class WeightWords:
    """The words of linears that share their input."""

    descriptors: np.ndarray  # int64 [linears, words of a descriptor]
    place: int  # address of the descriptors
    count: int  # linears
    columns: int  # input features
    rows: tuple[int, ...]  # output features of each
    total_rows: int
    has_bias: bool
    rounded: bool  # the products take rounded activations


@dataclass(frozen=True, eq=False)
class NormWords:
    """The words of a norm."""

    words: np.ndarray  # int64, as `layouts` says
    place: int  # address of the words
    columns: int
    heads: int  # heads with a weight of their own; 1 if all heads share one weight


@dataclass(frozen=True, eq=False)
class MlpWords:
    """The words of the elementwise part of an MLP."""

    words: np.ndarray  # int64, as `layouts` says
    place: int  # address of the words


@dataclass(frozen=True, eq=False)
class CacheWords:
    """The words of the KV cache of one layer."""

    keys: int  # address
    values: int  # address
    kv_heads: int
    head_dim: int
    block_size: int
    element_bytes: int  # of a number in the cache; 1 for q8_0
    key_scales: int = 0  # address, for q8_0
    value_scales: int = 0  # address, for q8_0


@dataclass(frozen=True, eq=False)
class RotationWords:
    """The words of rotary tables."""

    turn: tuple[int, int, int]  # half of rotary_dim, address of cos, address of sin
    growth: int  # address; 0 for none


@dataclass(frozen=True, eq=False)
class BatchWords:
    """The words of a step's batch for attention, the same in all layers."""

    arrays: tuple[np.ndarray, ...]  # the arrays of the addresses below
    tiles: int  # address of int32 [tiles, 4]: sequence, first packed token, tokens, first query row
    tile_count: int
    block_tables: int  # address of int32 [sequences, table_width]
    table_width: int
    contexts: int  # address of int32 [sequences]: context lengths


def native_kind(weight: Weight) -> str | None:
    """The name of a weight's format in kernels; None if no kernel can multiply it."""
    return _stored_kind(weight) if weight.data.ndim == 2 and weight.rows >= 4 else None


def _stored_kind(weight: Weight) -> str | None:
    """The same for kernels that decode single rows: the weight may have fewer rows than a product needs."""
    data = weight.data
    if data.ndim != 2 or data.strides[1] != data.itemsize:
        return None
    if isinstance(weight, Dense):
        return _DENSE_KINDS.get(str(data.dtype)) if weight.columns % 32 == 0 else None
    return weight.kind if isinstance(weight, BlockWeight) and weight.kind in _BLOCK_KINDS else None


def weight_words(compute: str, units: Callable[[Weight], Units], *linears: Linear) -> WeightWords | None:
    """The words of linears with the same input. None if a kernel cannot multiply one of them, or if some take rounded
    activations and others do not. The linears must outlive the words. units: returns a weight in units, which must live
    as long as the weight."""
    if len({each.weight.columns for each in linears}) != 1 or not all(_plain(each.bias) for each in linears):
        return None
    rounded = {compute == "int8" and isinstance(each.weight, BlockWeight) for each in linears}
    kinds = [native_kind(each.weight) for each in linears]
    if None in kinds or len(rounded) > 1:
        return None
    rows = [
        _unit_descriptor(each, kind, units(each.weight)) if True in rounded else _descriptor(each, kind, compute)
        for each, kind in zip(linears, kinds, strict=True)
        if kind is not None
    ]
    descriptors = np.array(rows, np.int64)
    return WeightWords(
        descriptors,
        address(descriptors),
        len(linears),
        linears[0].weight.columns,
        tuple(each.weight.rows for each in linears),
        sum(each.weight.rows for each in linears),
        any(each.bias is not None for each in linears),
        True in rounded,
    )


def _plain(x: Tensor | None) -> bool:
    """True if x is None or contiguous float32."""
    return x is None or (x.dtype == np.float32 and x.flags.c_contiguous)


def _descriptor(each: Linear, kind: str, compute: str) -> tuple[int, ...]:
    data = each.weight.data
    bias = 0 if each.bias is None else address(each.bias)
    stored = data.shape[1] * data.itemsize
    return descriptor(kind, address(data), data.strides[0], each.weight.shape, stored, bias, compute)


def _unit_descriptor(each: Linear, kind: str, units: Units) -> tuple[int, ...]:
    bias = 0 if each.bias is None else address(each.bias)
    return unit_descriptor(kind, units.place, units.bytes, each.weight.shape, bias)


def row_words(linear: Linear) -> tuple[int, int, int] | None:
    """The words of a linear with one output: addresses of the decoder of its row, of the stored row, and of the bias (0
    for none). None if a kernel cannot decode it. The linear must outlive the words."""
    weight, bias = linear.weight, linear.bias
    kind = _stored_kind(weight)
    if kind is None or weight.rows != 1 or not _plain(bias):
        return None
    return row_decoder(kind), address(weight.data), 0 if bias is None else address(bias)


def norm_words(norm: Norm) -> NormWords | None:
    """The words of a norm. None if kernels cannot compute it: a row must consist of whole vectors, and the weights must
    be contiguous float32. The norm must outlive the words."""
    weight, bias = norm.weight, norm.bias
    if (
        weight.ndim not in (1, 2)
        or not weight.size
        or weight.shape[-1] % VECTOR
        or not (_plain(weight) and _plain(bias))
    ):
        return None
    if (bias is not None and bias.shape != weight.shape) or sets_beyond(norm, _KNOWN_OF_NORM):
        return None
    function = LIBRARY.address("elementwise.norm_rows")
    step = weight.strides[0] if weight.ndim == 2 else 0
    words = np.array(
        [function, address(weight), 0 if bias is None else address(bias), float_bits(norm.epsilon), step, norm.centred],
        np.int64,
    )
    return NormWords(words, address(words), weight.shape[-1], weight.shape[0] if weight.ndim == 2 else 1)


def mlp_words(mlp: GatedMlp | PlainMlp) -> MlpWords | None:
    """The words of an MLP; None if kernels cannot compute it."""
    if mlp.activation not in ACTIVATIONS or sets_beyond(mlp, _KNOWN_OF_MLP):
        return None
    limit, offset = (mlp.limit, mlp.up_offset) if isinstance(mlp, GatedMlp) else (None, 0.0)
    limit = math.inf if limit is None else limit
    words = np.array([activation(mlp.activation), float_bits(limit), float_bits(offset)], np.int64)
    return MlpWords(words, address(words))


_KNOWN_OF_NORM = frozenset(["weight", "epsilon", "bias", "centred"])
_KNOWN_OF_TABLES = frozenset(["cos", "sin", "growth"])
_KNOWN_OF_MLP = frozenset(["gate", "up", "down", "activation", "limit", "up_offset"])


def activation(name: str) -> int:
    """The address of the activation function (x, out, columns)."""
    return LIBRARY.address(f"activations.{name}")


def cache_words(layer: KvLayer) -> CacheWords | None:
    """The words of a layer's KV cache; None if kernels cannot read its type or layout."""
    if isinstance(layer, Q8KvLayer):
        return _q8_words(layer)
    if not all(x.flags.c_contiguous and x.dtype in _CACHE_TYPES for x in (layer.keys, layer.values)):
        return None
    if layer.keys.dtype != layer.values.dtype:
        return None
    _, kv_heads, head_dim, block_size = layer.keys.shape
    places = address(layer.keys), address(layer.values)
    return CacheWords(*places, kv_heads, head_dim, block_size, layer.keys.dtype.itemsize)


def _q8_words(layer: Q8KvLayer) -> CacheWords | None:
    codes, scales = (layer.keys, layer.values), (layer.key_scales, layer.value_scales)
    if not HAS_HALF or not all(x.flags.c_contiguous for x in (*codes, *scales)):
        return None
    if any(x.dtype != np.int8 for x in codes) or any(x.dtype != np.float16 for x in scales):
        return None
    _, kv_heads, block_size, head_dim = layer.values.shape
    keys, values, key_scales, value_scales = map(address, (*codes, *scales))
    return CacheWords(keys, values, kv_heads, head_dim, block_size, 1, key_scales, value_scales)


def rotation_words(tables: RopeTables) -> RotationWords | None:
    """The words of rotary tables; None if kernels cannot read their types or shapes."""
    if not (_plain(tables.cos) and _plain(tables.sin) and _plain(tables.growth)):
        return None
    lengths = tables.cos.shape[:1] if tables.growth is None else tables.growth.shape
    if tables.sin.shape != tables.cos.shape or lengths != tables.cos.shape[:1] or sets_beyond(tables, _KNOWN_OF_TABLES):
        return None
    growth = 0 if tables.growth is None else address(tables.growth)
    return RotationWords((tables.cos.shape[1], address(tables.cos), address(tables.sin)), growth)


def batch_words(batch: StepBatch, group: int) -> BatchWords:
    """The words of a batch. group: query heads that share a key/value head."""
    starts = np.asarray(batch.seq_starts, np.int64)
    counts = np.diff(starts)
    per_sequence = -(-counts * group // QUERY_ROWS)
    sequence = np.repeat(np.arange(len(counts)), per_sequence)
    first = np.arange(len(sequence)) - np.repeat(np.cumsum(per_sequence) - per_sequence, per_sequence)
    columns = (sequence, starts[sequence], counts[sequence], first * QUERY_ROWS)
    tiles = np.ascontiguousarray(np.stack(columns, 1), np.int32)
    tables, contexts = _int32(batch.block_tables), _int32(batch.context_lens)
    return BatchWords(
        (tiles, tables, contexts),
        address(tiles),
        len(tiles),
        address(tables),
        tables.shape[1],
        address(contexts),
    )


def _int32(x: Tensor) -> np.ndarray:
    return np.ascontiguousarray(x, np.int32)


# ---- descriptors
PRODUCTS = {
    "float32": ("multiply", "strip"),
    "bfloat16": ("multiply_bfloat16", "strip_bfloat16"),
    "int8": ("multiply", "strip"),
}
"""For each arithmetic, the functions of `products` for any number of tokens, and for a strip. For int8, quantised
weights have a `unit_descriptor` instead; the products of other weights are those of float32."""


def descriptor(
    kind: str, address: int, row_bytes: int, shape: tuple[int, int], stored: int, bias: int, compute: str
) -> tuple[int, ...]:
    """The descriptor of a weight of this shape [rows, columns] for the arithmetic `compute`; a row has `stored` bytes.
    The functions for its kind are loaded or compiled."""
    rows, columns = shape
    product = LIBRARY.address(f"products.product.{kind}")
    multiply, strip = (LIBRARY.address(f"products.{name}") for name in PRODUCTS[compute])
    block_bytes = 0 if kind == "f32" else BLOCK_COLUMNS * stored // columns
    return product, address, row_bytes, rows, columns, row_decoder(kind), strip, bias, block_bytes, multiply, SHARE_ROWS


def unit_descriptor(kind: str, address: int, unit_bytes: int, shape: tuple[int, int], bias: int) -> tuple[int, ...]:
    """The descriptor of a weight in units, whose products take rounded activations: WEIGHT_DATA is the address of the
    units, WEIGHT_ROW_BYTES the bytes of one, WEIGHT_PRODUCT the function `single` of `integer_products`. Words that
    only other products read are 0."""
    rows, columns = shape
    product, multiply = (LIBRARY.address(f"integer_products.{name}.{kind}") for name in ("single", "multiply"))
    return product, address, unit_bytes, rows, columns, 0, 0, bias, 0, multiply, UNIT_SHARE_ROWS


def row_decoder(kind: str) -> int:
    """The address of the function (destination, source, columns) that decodes part of a row to float32."""
    return LIBRARY.address(f"products.decoder.{kind}")

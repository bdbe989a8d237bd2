"""ONNX operators that move elements and change types.

Owns: what each of them is made of. Indices that count from the end become what they stand for on the host, because a
backend is never given such. Refuses to know: arithmetic. Specs: SUITE-13. Next: `benchmarks/suites/onnx_attention.py`.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any

import numpy as np

from ferrum.tensor.ops import DTYPES, Tensor

from .onnx_node import Host, Node, constant, number, on_last_axis, place

Ops = Any


def positive(indices: Host, length: int) -> Host:
    return np.where(indices < 0, indices + length, indices).astype(np.int64)


def index(ops: Ops, indices: Host, length: int) -> Tensor:
    return ops.asarray(positive(indices, length), "int64")


def copy(ops: Ops, values: Host) -> Tensor:
    """On the backend, to be written to: what `asarray` gives may be the host's own memory."""
    return place(ops, values.copy())


def concat(ops: Ops, node: Node) -> Tensor:
    return ops.concat([place(ops, node.host(each)) for each in range(len(node.inputs))], node.get("axis", 0))


def split(ops: Ops, node: Node) -> Sequence[Tensor]:
    x, axis = place(ops, node.host(0)), node.get("axis", 0)
    sizes = node.integers(1, "split")
    if sizes is None:
        most = math.ceil(x.shape[axis] / len(node.outputs))
        bounds = [min(most * part, x.shape[axis]) for part in range(len(node.outputs) + 1)]
        sizes = [end - start for start, end in pairwise(bounds)]
    return ops.split(x, sizes, axis)


def transpose(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    return ops.permute(x, node.get("perm", tuple(range(len(x.shape)))[::-1]))


def reshape(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    shape = [int(each) for each in node.host(1)]
    if not node.get("allowzero", 0):
        shape = [x.shape[place] if length == 0 else length for place, length in enumerate(shape)]
    return ops.reshape(x, tuple(shape))


def flatten(ops: Ops, node: Node) -> Tensor:
    x, axis = place(ops, node.host(0)), node.get("axis", 1)
    axis = axis + len(x.shape) if axis < 0 else axis
    return ops.reshape(x, (math.prod(x.shape[:axis]), math.prod(x.shape[axis:])))


def squeeze(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    axes = node.integers(1, "axes") or [axis for axis, length in enumerate(x.shape) if length == 1]
    gone = {axis % len(x.shape) for axis in axes}
    return ops.reshape(x, tuple(length for axis, length in enumerate(x.shape) if axis not in gone))


def unsqueeze(ops: Ops, node: Node) -> Tensor:
    x, axes = place(ops, node.host(0)), node.integers(1, "axes") or []
    rank = len(x.shape) + len(axes)
    new, lengths = {axis % rank for axis in axes}, iter(x.shape)
    return ops.reshape(x, tuple(1 if axis in new else next(lengths) for axis in range(rank)))


def expand(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    return ops.broadcast_to(x, np.broadcast_shapes(x.shape, tuple(int(each) for each in node.host(1))))


def tile(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    for axis, count in enumerate(node.host(1)):
        x = ops.concat([x] * int(count), axis)
    return x


def identity(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    return ops.reshape(x, x.shape)


def gather(ops: Ops, node: Node) -> Tensor:
    x, axis = place(ops, node.host(0)), node.get("axis", 0)
    return ops.take(x, index(ops, node.host(1), x.shape[axis]), axis)


def gather_elements(ops: Ops, node: Node) -> Tensor:
    x, indices = place(ops, node.host(0)), node.host(1)
    axis = node.get("axis", 0) % indices.ndim
    for other, length in enumerate(indices.shape):
        if other != axis:
            x = ops.split(x, (length, x.shape[other] - length), other)[0]
    last = index(ops, np.moveaxis(indices, axis, -1), x.shape[axis])
    return on_last_axis(ops, lambda y: ops.take_along(y, last), x, axis)


def gather_nd(ops: Ops, node: Node) -> Tensor:
    """The place of each element in a row of all of them, then one `take`."""
    values, indices = node.host(0), node.host(1)
    batch, depth = node.get("batch_dims", 0), indices.shape[-1]
    lead = np.indices(indices.shape[:batch]).reshape(batch, *indices.shape[:batch], *[1] * (indices.ndim - 1 - batch))
    lead = np.broadcast_to(lead, (batch, *indices.shape[:-1]))
    parts = [*lead, *(positive(indices[..., each], values.shape[batch + each]) for each in range(depth))]
    known = batch + depth
    flat = np.ravel_multi_index(tuple(parts), values.shape[:known]).astype(np.int64)
    rows = ops.reshape(place(ops, values), (-1, *values.shape[known:]))
    return ops.take(rows, ops.asarray(flat, "int64"), 0)


def cut(ops: Ops, node: Node) -> Tensor:
    """`Slice`, with any step, by the places that it names."""
    x = place(ops, node.host(0))
    starts, ends = (node.integers(each, name) or [] for each, name in ((1, "starts"), (2, "ends")))
    axes = node.integers(3, "axes") or list(range(len(starts)))
    steps = node.integers(4, "steps") or [1] * len(starts)
    for start, end, axis, step in zip(starts, ends, axes, steps, strict=True):
        places = np.arange(x.shape[axis])[start:end:step]
        x = ops.take(x, ops.asarray(places.copy(), "int64"), axis)
    return x


def scatter(ops: Ops, node: Node, indices: Sequence[Host], updates: Host) -> Tensor:
    """Index arrays of several axes become rows of indices, which is what `put` is given."""
    if node.get("reduction", "none") != "none":
        raise node.refuse("with a reduction")
    x, rest = copy(ops, node.host(0)), updates.shape[indices[0].ndim :]
    places = [index(ops, each.reshape(-1), x.shape[axis]) for axis, each in enumerate(indices)]
    ops.put(x, places, place(ops, updates.reshape(-1, *rest)))
    return x


def scatter_nd(ops: Ops, node: Node) -> Tensor:
    places = node.host(1)
    return scatter(ops, node, [places[..., each] for each in range(places.shape[-1])], node.host(2))


def scatter_elements(ops: Ops, node: Node) -> Tensor:
    places = list(np.indices(node.host(1).shape))
    places[node.get("axis", 0)] = node.host(1)
    return scatter(ops, node, places, node.host(2))


def tensor_scatter(ops: Ops, node: Node) -> Tensor:
    """A cache's new rows, each batch at its own place."""
    cache, update = node.host(0), node.host(1)
    axis = node.get("axis", -2) % cache.ndim
    first = node.host(2) if node.has(2) else np.zeros(len(cache), np.int64)
    places = list(np.indices(update.shape[: axis + 1]))
    places[axis] = places[axis] + first.reshape(-1, *[1] * axis)
    if node.get("mode", "linear") == "circular":
        places[axis] = places[axis] % cache.shape[axis]
    return scatter(ops, node, places, update)


def chosen(ops: Ops, node: Node) -> Tensor:
    return ops.where(place(ops, node.host(0)), number(ops, node.host(1)), number(ops, node.host(2)))


def triangle(ops: Ops, node: Node) -> Tensor:
    x = place(ops, node.host(0))
    rows, columns = x.shape[-2:]
    offset = int(node.host(1).reshape(())) if node.has(1) else 0
    away = ops.sub(ops.arange(columns, "int64"), ops.reshape(ops.arange(rows, "int64"), (rows, 1)))
    if node.get("upper", 1):
        kept = ops.less(ops.constant(offset - 1, "int64"), away)
    else:
        kept = ops.less(away, ops.constant(offset + 1, "int64"))
    return ops.where(kept, x, constant(ops, 0, x))


def counted(ops: Ops, node: Node) -> Tensor:
    """`Range`: start + delta · i."""
    start, limit, delta = (node.host(each).astype(np.float64) for each in range(3))
    first, step = (number(ops, node.host(each)) for each in (0, 2))
    count = max(math.ceil((limit - start) / delta), 0)
    return ops.add(first, ops.mul(ops.arange(count, str(first.dtype)), step))


def cast(ops: Ops, node: Node) -> Tensor:
    from onnx.helper import tensor_dtype_to_np_dtype

    x = place(ops, node.host(0))
    wanted = tensor_dtype_to_np_dtype(node.get("to", 1)) if node.operator == "Cast" else node.host(1).dtype
    name = "string" if wanted.kind in "OSU" else wanted.name
    if name not in DTYPES:
        raise node.refuse(f"to {name}")
    return ops.cast(x, name)


def bit_cast(ops: Ops, node: Node) -> Tensor:
    """The bytes, as a backend is given them."""
    from onnx.helper import tensor_dtype_to_np_dtype

    values, wanted = node.host(0), tensor_dtype_to_np_dtype(node.get("to", 1))
    for each in (values.dtype, wanted):
        if each.name not in DTYPES:
            raise node.refuse(f"of {each.name}")
    raw = np.frombuffer(values.tobytes(), np.uint8).reshape(*values.shape[:-1], -1)
    return ops.reshape(ops.bitcast(ops.asarray(raw, "uint8"), wanted.name), values.shape)


def dequantized(ops: Ops, node: Node) -> Tensor:
    """(x - zero point) · scale, of all or of each place along an axis."""
    x, scale = ops.cast(place(ops, node.host(0)), ops.float_dtype), number(ops, node.host(1))
    if node.get("block_size", 0):
        raise node.refuse("in blocks along an axis")
    shape = [1] * len(x.shape)
    if scale.shape:
        shape[node.get("axis", 1)] = -1
    if node.has(2):
        zero = ops.cast(place(ops, node.host(2)), ops.float_dtype)
        x = ops.sub(x, ops.reshape(zero, tuple(shape)))
    return ops.mul(x, ops.reshape(scale, tuple(shape)))


SHAPES: Mapping[str, Callable[[Ops, Node], Tensor | Sequence[Tensor]]] = {
    "Concat": concat,
    "Split": split,
    "Transpose": transpose,
    "Reshape": reshape,
    "Flatten": flatten,
    "Squeeze": squeeze,
    "Unsqueeze": unsqueeze,
    "Expand": expand,
    "Tile": tile,
    "Identity": identity,
    "Gather": gather,
    "GatherElements": gather_elements,
    "GatherND": gather_nd,
    "Slice": cut,
    "ScatterND": scatter_nd,
    "ScatterElements": scatter_elements,
    "Scatter": scatter_elements,
    "TensorScatter": tensor_scatter,
    "Where": chosen,
    "Trilu": triangle,
    "Range": counted,
    "Cast": cast,
    "CastLike": cast,
    "BitCast": bit_cast,
    "DequantizeLinear": dequantized,
}

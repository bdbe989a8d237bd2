"""The memory behind the blocks: keys and values of every layer, on the backend and, as a second tier, on the host.

Owns: the arrays, one block-id space for all layers, what a block costs in bytes, and moving blocks within and between
the tiers: whole blocks, all layers in one piece, so that a move waits for the device once. The arrays are made by
`ops.empty` and its like on the host: an operating system gives a page when it is first written, so an unused pool costs
nothing on a CPU.
Refuses to know: which block is whose.
Specs: KV-07, KV-08, KV-15, KV-44, KV-47, KV-48. Next: `ferrum.kv.pressure`.
"""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, fields
from fractions import Fraction
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from ferrum.config import ModelConfig
from ferrum.errors import DeviceError, InvalidParameter, ResourceExhausted, Unsupported
from ferrum.tensor.compositions import TensorOps
from ferrum.tensor.kv_q8 import Q8_0, new_layer
from ferrum.tensor.ops import Tensor, host_dtype
from ferrum.tensor.weights import GROUP

ELEMENT_BYTES: Mapping[str, int | Fraction] = {
    "float64": 8,
    "float32": 4,
    "float16": 2,
    "bfloat16": 2,
    Q8_0: Fraction(34, 32),
}
"""Of a number; in q8_0 a code, and its share of a scale."""

MOST_MOVED = 8 << 20
"""Bytes that travel between the tiers in one piece, at least a block. Meanwhile there is a copy of them, so the size is
bounded; twice as much takes no less time for each byte, on a CPU or over a bus."""

LEFT_OVER = 256 << 20
"""Bytes that must be there for everything else where memory is limited."""


class BlockStore(Protocol):
    """What the manager needs of whoever keeps the contents of blocks: `KvStorage`, or a test double. Lists of ids have
    equal lengths. Raises DeviceError where a move fails; the targets then hold anything, the sources what they held."""

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Within the device."""
        ...

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """From the device to the host."""
        ...

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """From the host to the device."""
        ...

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        """The contents of blocks on the device, by name; each array's first axis is the block."""
        ...

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        """The inverse of `read`. Raises KeyError or ValueError for contents of another shape or type."""
        ...


@dataclass(frozen=True, eq=False)
class _Share:
    """What all layers store in one type of number: its tensors, by name, and the same of the blocks on the host, whose
    shape is [host blocks, tensors, numbers of a block in one tensor]."""

    dtype: str
    arrays: dict[str, Tensor]
    host: NDArray[Any]

    def packed(self, ops: TensorOps, place: Tensor) -> Tensor:
        """-> [blocks, tensors, numbers]: what the blocks hold, as one tensor."""
        shape = place.shape[0], 1, -1
        return ops.concat([ops.reshape(ops.take(array, place), shape) for array in self.arrays.values()], 1)

    def unpack(self, ops: TensorOps, packed: Tensor, place: Tensor) -> None:
        """Puts what `packed` made into blocks."""
        parts = ops.split(packed, [1] * len(self.arrays), 1)
        for array, part in zip(self.arrays.values(), parts, strict=True):
            ops.put(array, (place,), ops.reshape(part, (place.shape[0], *array.shape[1:])))


class KvStorage:
    """`layers`: one KvLayer per decoder layer, each with room for `blocks` blocks; contents undefined at first."""

    def __init__(
        self, ops: TensorOps, config: ModelConfig, blocks: int, block_size: int, dtype: str, host_blocks: int = 0
    ) -> None:
        self.dtype = dtype
        one = block_bytes(config, block_size, dtype)
        self.bytes = blocks * one
        self._ops = ops
        with _fitting("kv_memory", self.bytes):
            shape = blocks, config.kv_heads, config.head_dim, block_size
            self.layers = tuple(new_layer(ops.empty, dtype, *shape) for _ in range(config.layers))
        self._blocks_at_once = max(1, MOST_MOVED // one)
        self._named = {
            f"layer.{index}.{each.name}": getattr(layer, each.name)
            for index, layer in enumerate(self.layers)
            for each in fields(layer)
        }
        with _fitting("host_kv_memory", host_blocks * one):
            self._shares = self._shared_out(host_blocks)

    def _shared_out(self, host_blocks: int) -> list[_Share]:
        by_type: dict[str, dict[str, Tensor]] = {}
        for name, array in self._named.items():
            by_type.setdefault(str(array.dtype), {})[name] = array
        numbers = {dtype: math.prod(next(iter(arrays.values())).shape[1:]) for dtype, arrays in by_type.items()}
        return [
            _Share(dtype, arrays, self._ops.host_array((host_blocks, len(arrays), numbers[dtype]), dtype))
            for dtype, arrays in by_type.items()
        ]

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Blocks of the device, to other blocks of the device."""
        with _device_errors():
            source, target = self._place(sources), self._place(targets)
            for array in self._named.values():
                self._ops.put(array, (target,), self._ops.take(array, source))

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """Blocks of the device, to blocks of the host."""
        for source, target in zip(self._pieces(blocks), self._pieces(host_blocks), strict=True):
            with _device_errors():
                place = self._place(source)
                for share in self._shares:
                    if self._ops.on_host:
                        self._move_out(share, place, target)
                    else:
                        self._ops.store(share.packed(self._ops, place), share.host, target)

    def _move_out(self, share: _Share, place: Tensor, host_blocks: Sequence[int]) -> None:
        """The same where a look at tensors costs nothing: array by array, without a copy of all of them together."""
        for index, array in enumerate(share.arrays.values()):
            taken = self._ops.to_numpy(self._ops.take(array, place))
            share.host[list(host_blocks), index] = taken.reshape(len(host_blocks), -1)

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """Blocks of the host, to blocks of the device."""
        for source, target in zip(self._pieces(host_blocks), self._pieces(blocks), strict=True):
            with _device_errors():
                place = self._place(target)
                for share in self._shares:
                    share.unpack(self._ops, self._ops.fetch(share.host, source, share.dtype), place)

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        """Blocks of the device by "layer.0.keys", "layer.0.values", …: the tensors of `KvLayer` with so many blocks."""
        found = {
            name: np.empty((len(blocks), *array.shape[1:]), host_dtype(str(array.dtype)))
            for name, array in self._named.items()
        }
        start = 0
        for source in self._pieces(blocks):
            end = start + len(source)
            with _device_errors():
                place = self._place(source)
                for share in self._shares:
                    parts = self._ops.to_numpy(share.packed(self._ops, place)).swapaxes(0, 1)
                    for name, part in zip(share.arrays, parts, strict=True):
                        found[name][start:end] = part.reshape(-1, *found[name].shape[1:])
            start = end
        return found

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        """What `read` returned, to as many blocks of the device."""
        for name, array in self._named.items():
            found = contents[name]
            if found.shape != (len(blocks), *array.shape[1:]) or str(found.dtype) != str(array.dtype):
                raise ValueError(f"{name} is {found.dtype} of shape {found.shape}")
        start = 0
        for target in self._pieces(blocks):
            end = start + len(target)
            packed = [
                np.stack([contents[name][start:end].reshape(len(target), -1) for name in share.arrays], 1)
                for share in self._shares
            ]
            with _device_errors():
                given = [self._ops.asarray(x, share.dtype) for x, share in zip(packed, self._shares, strict=True)]
                place = self._place(target)
                for share, tensor in zip(self._shares, given, strict=True):
                    share.unpack(self._ops, tensor, place)
            start = end

    def _pieces(self, blocks: Sequence[int]) -> list[list[int]]:
        """The same blocks in order, as many at a time as travel together."""
        count = self._blocks_at_once
        return [list(blocks[start : start + count]) for start in range(0, len(blocks), count)]

    def _place(self, blocks: Sequence[int]) -> Tensor:
        return self._ops.asarray(np.array(blocks, np.int64), "int64")


@contextmanager
def _device_errors() -> Iterator[None]:
    """Whatever word a backend's library has for a device that fails, those who can do without a move know one."""
    try:
        yield
    except (RuntimeError, MemoryError, ResourceExhausted) as error:
        raise DeviceError(f"blocks could not be moved: {error!r}") from error


@contextmanager
def _fitting(name: str, size: int) -> Iterator[None]:
    """What is made inside may be more than there is, or leave nothing to the rest of the program, parts of which end
    the process where they get no memory; `name` is the parameter that asked for it."""
    try:
        yield
        np.empty(LEFT_OVER, np.uint8)  # asked for, never touched, given back
    except (MemoryError, ResourceExhausted, ValueError) as error:  # NumPy's word for more than any machine has
        raise InvalidParameter(name, f"asks for {size} bytes, more than this process can have") from error


def block_bytes(config: ModelConfig, block_size: int, dtype: str) -> int:
    """Bytes of one block: keys and values of `block_size` positions in every layer."""
    if dtype == Q8_0 and config.head_dim % GROUP:
        raise Unsupported(
            f"keys and values in q8_0 need a head_dim that is a multiple of {GROUP}, and this model's is "
            f"{config.head_dim}: choose another kv_dtype, such as float16"
        )
    if dtype not in ELEMENT_BYTES:
        raise Unsupported(f"keys and values cannot be stored as {dtype!r}; known: {', '.join(ELEMENT_BYTES)}")
    return int(2 * config.layers * config.kv_heads * config.head_dim * block_size * ELEMENT_BYTES[dtype])


def blocks_within(memory: int, config: ModelConfig, block_size: int, dtype: str) -> int:
    """How many whole blocks `memory` bytes hold; may be none."""
    return memory // block_bytes(config, block_size, dtype)

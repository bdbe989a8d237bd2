"""The memory behind the blocks: keys and values of every layer, on the backend and, as a second tier, on the host.

Owns: the arrays, one block-id space for all layers, the bytes of a block, and moving blocks within and between the
tiers: whole blocks with all layers at once, so that a move waits for the device once. The arrays are uninitialised: an
operating system provides a page of memory when it is first written, so an unused pool costs nothing on a CPU.
Refuses to know: which sequence holds which block.
Specs: KV-07, KV-08, KV-15, KV-44, KV-47, KV-48. Next: `ferrum.kv.statistics`.
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
"""Bytes of one number by type; in q8_0 one byte of a code, and 2 bytes of a scale for every 32 numbers."""

MOST_MOVED = 8 << 20
"""Bytes that are moved between the tiers in one piece, at least one block. A move copies its piece, so the size is
bounded; larger pieces are not faster per byte, neither on a CPU nor over a bus."""

LEFT_OVER = 256 << 20
"""Bytes of memory that must be left for everything else in the process."""


class BlockStore(Protocol):
    """The contents of blocks, as the manager needs them: `KvStorage`, or a test double. Lists of ids are equally long.
    Raises DeviceError where a move fails: the sources are then unchanged, and the targets hold garbage."""

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
    """All tensors of one type of number, of all layers, on both tiers."""

    dtype: str
    arrays: dict[str, Tensor]  # by name, on the device; the first axis is the block
    host: NDArray[Any]  # [host blocks, tensors, numbers of one block in one tensor]

    def packed(self, ops: TensorOps, place: Tensor) -> Tensor:
        """-> [blocks, tensors, numbers]: the contents of the blocks `place`, as one tensor."""
        shape = place.shape[0], 1, -1
        return ops.concat([ops.reshape(ops.take(array, place), shape) for array in self.arrays.values()], 1)

    def unpack(self, ops: TensorOps, packed: Tensor, place: Tensor) -> None:
        """Writes the result of `packed` to the blocks `place`."""
        parts = ops.split(packed, [1] * len(self.arrays), 1)
        for array, part in zip(self.arrays.values(), parts, strict=True):
            ops.put(array, (place,), ops.reshape(part, (place.shape[0], *array.shape[1:])))


class KvStorage:
    """`layers`: one KvLayer per decoder layer, each with room for `blocks` blocks; contents undefined at first."""

    def __init__(
        self, ops: TensorOps, config: ModelConfig, blocks: int, block_size: int, dtype: str, host_blocks: int = 0
    ) -> None:
        self.dtype = dtype
        block = block_bytes(config, block_size, dtype)
        self.bytes = blocks * block
        self._ops = ops
        with _fitting("kv_memory", self.bytes):
            shape = blocks, config.kv_heads, config.head_dim, block_size
            self.layers = tuple(new_layer(ops.empty, dtype, *shape) for _ in range(config.layers))
        self._blocks_at_once = max(1, MOST_MOVED // block)
        self._arrays = {
            f"layer.{index}.{each.name}": getattr(layer, each.name)
            for index, layer in enumerate(self.layers)
            for each in fields(layer)
        }
        with _fitting("host_kv_memory", host_blocks * block):
            self._shares = self._by_type(host_blocks)

    def _by_type(self, host_blocks: int) -> list[_Share]:
        by_type: dict[str, dict[str, Tensor]] = {}
        for name, array in self._arrays.items():
            by_type.setdefault(str(array.dtype), {})[name] = array
        numbers = {dtype: math.prod(next(iter(arrays.values())).shape[1:]) for dtype, arrays in by_type.items()}
        return [
            _Share(dtype, arrays, self._ops.host_array((host_blocks, len(arrays), numbers[dtype]), dtype))
            for dtype, arrays in by_type.items()
        ]

    def copy(self, sources: Sequence[int], targets: Sequence[int]) -> None:
        """Copies blocks of the device to other blocks of the device."""
        with _device_errors():
            source, target = self._place(sources), self._place(targets)
            for array in self._arrays.values():
                self._ops.put(array, (target,), self._ops.take(array, source))

    def swap_out(self, blocks: Sequence[int], host_blocks: Sequence[int]) -> None:
        """Copies blocks of the device to blocks of the host."""
        for source, target in zip(self._pieces(blocks), self._pieces(host_blocks), strict=True):
            with _device_errors():
                place = self._place(source)
                for share in self._shares:
                    if self._ops.on_host:
                        self._move_out(share, place, target)
                    else:
                        self._ops.store(share.packed(self._ops, place), share.host, target)

    def _move_out(self, share: _Share, place: Tensor, host_blocks: Sequence[int]) -> None:
        """The same where tensors are in the host's memory already: array by array, without packing them first."""
        for index, array in enumerate(share.arrays.values()):
            rows = self._ops.to_numpy(self._ops.take(array, place))
            share.host[list(host_blocks), index] = rows.reshape(len(host_blocks), -1)

    def swap_in(self, host_blocks: Sequence[int], blocks: Sequence[int]) -> None:
        """Copies blocks of the host to blocks of the device."""
        for source, target in zip(self._pieces(host_blocks), self._pieces(blocks), strict=True):
            with _device_errors():
                place = self._place(target)
                for share in self._shares:
                    share.unpack(self._ops, self._ops.fetch(share.host, source, share.dtype), place)

    def read(self, blocks: Sequence[int]) -> dict[str, NDArray[Any]]:
        """The contents of blocks of the device by "layer.0.keys", "layer.0.values", …: the tensors of `KvLayer`, with
        len(blocks) blocks on their first axis."""
        contents = {
            name: np.empty((len(blocks), *array.shape[1:]), host_dtype(str(array.dtype)))
            for name, array in self._arrays.items()
        }
        start = 0
        for source in self._pieces(blocks):
            end = start + len(source)
            with _device_errors():
                place = self._place(source)
                for share in self._shares:
                    parts = self._ops.to_numpy(share.packed(self._ops, place)).swapaxes(0, 1)
                    for name, part in zip(share.arrays, parts, strict=True):
                        contents[name][start:end] = part.reshape(-1, *contents[name].shape[1:])
            start = end
        return contents

    def write(self, blocks: Sequence[int], contents: dict[str, NDArray[Any]]) -> None:
        """Writes the result of `read` to as many blocks of the device. Raises KeyError or ValueError for contents of
        another shape or type."""
        for name, array in self._arrays.items():
            content = contents[name]
            if content.shape != (len(blocks), *array.shape[1:]) or str(content.dtype) != str(array.dtype):
                raise ValueError(f"{name} is {content.dtype} of shape {content.shape}")
        start = 0
        for target in self._pieces(blocks):
            end = start + len(target)
            packed = [
                np.stack([contents[name][start:end].reshape(len(target), -1) for name in share.arrays], 1)
                for share in self._shares
            ]
            with _device_errors():
                tensors = [self._ops.asarray(x, share.dtype) for x, share in zip(packed, self._shares, strict=True)]
                place = self._place(target)
                for share, tensor in zip(self._shares, tensors, strict=True):
                    share.unpack(self._ops, tensor, place)
            start = end

    def _pieces(self, blocks: Sequence[int]) -> list[list[int]]:
        """The same blocks in order, in lists of as many as are moved at a time."""
        count = self._blocks_at_once
        return [list(blocks[start : start + count]) for start in range(0, len(blocks), count)]

    def _place(self, blocks: Sequence[int]) -> Tensor:
        return self._ops.asarray(np.array(blocks, np.int64), "int64")


@contextmanager
def _device_errors() -> Iterator[None]:
    """Raises DeviceError for the errors of a backend's library, which differ from backend to backend."""
    try:
        yield
    except (RuntimeError, MemoryError, ResourceExhausted) as error:
        raise DeviceError(f"blocks could not be moved: {error!r}") from error


@contextmanager
def _fitting(name: str, size: int) -> Iterator[None]:
    """Raises InvalidParameter for the parameter `name` if the `size` bytes that are allocated inside do not fit or
    leave less than LEFT_OVER: native code ends the process where it gets no memory."""
    try:
        yield
        np.empty(LEFT_OVER, np.uint8)  # allocated, not written, and freed at once
    except (MemoryError, ResourceExhausted, ValueError) as error:  # ValueError: NumPy, for impossibly large sizes
        raise InvalidParameter(name, f"asks for {size} bytes, more than this process can have") from error


def block_bytes(config: ModelConfig, block_size: int, dtype: str) -> int:
    """Bytes of one block: keys and values of `block_size` positions in every layer. Raises Unsupported for a type in
    which they cannot be stored."""
    if dtype == Q8_0 and config.head_dim % GROUP:
        raise Unsupported(
            f"keys and values in q8_0 need a head_dim that is a multiple of {GROUP}, and this model's is "
            f"{config.head_dim}: choose another kv_dtype, such as float16"
        )
    if dtype not in ELEMENT_BYTES:
        raise Unsupported(f"keys and values cannot be stored as {dtype!r}; known: {', '.join(ELEMENT_BYTES)}")
    return int(2 * config.layers * config.kv_heads * config.head_dim * block_size * ELEMENT_BYTES[dtype])


def blocks_within(memory: int, config: ModelConfig, block_size: int, dtype: str) -> int:
    """How many whole blocks fit in `memory` bytes; 0 is possible."""
    return memory // block_bytes(config, block_size, dtype)
